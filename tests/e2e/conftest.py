"""One real `kaos up` for all end-to-end tests."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import psycopg2
import pytest

from e2e.harness import Kaos, Server, free_port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that is here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say of a test that failed what Airflow was at: its server is gone before anybody can look."""
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.when == "call" and report.failed and isinstance(server, Server):
        report.sections.append(("Airflow", _what_airflow_is_at(server)))
    return report


def _what_airflow_is_at(server: Server) -> str:
    try:
        rows = server.sql(
            "SELECT t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number, t.state FROM task_instance t"
            " JOIN dag_run r USING (dag_id, run_id) WHERE r.state = 'running'"
            " AND t.state IS DISTINCT FROM %s",
            "success",
        )
        errors = [
            line[:500]
            for name in ("scheduler", "dag-processor", "api-server")
            for line in (server.home / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
            if "[error" in line
        ]
    except (OSError, psycopg2.Error) as error:
        return f"It cannot be asked: {error}"
    return "\n".join([*map(str, rows), *errors[-10:]])


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server in a new home, and leave nothing of it."""
    root = tmp_path_factory.mktemp("e2e")
    port = free_port()
    owner = Kaos(root / ".kaos", root, {"HOME": str(root)})
    try:
        owner.run("up", "--port", str(port), seconds=280)
        yield Server(owner, port)
    finally:
        owner.run("down", "--purge", "--yes", seconds=120)


@pytest.fixture(scope="package")
def token(server: Server) -> str:
    """Return a token of the server's owner."""
    return server.owner_token()


@pytest.fixture(scope="package")
def ada(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Kaos:
    """Return a second user, who may deploy, connected."""
    return _user(server, tmp_path_factory, "ada", "user")


@pytest.fixture(scope="package")
def eve(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Kaos:
    """Return a user who may only look, connected."""
    return _user(server, tmp_path_factory, "eve", "viewer")


def _user(server: Server, factory: pytest.TempPathFactory, name: str, role: str) -> Kaos:
    root = factory.mktemp(name)
    user = Kaos(root / ".kaos", root, {"HOME": str(root)})
    token = server.token(name, server.create_user(name, role))
    user.run("init", "-e", server.url, "-t", "-", stdin=f"{token}\n")
    return user


@pytest.fixture
def workspace(request: pytest.FixtureRequest) -> str:
    """Return a name that no other test uses."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[-50:].strip("-")


@pytest.fixture
def kaos(server: Server, token: str, workspace: str, tmp_path: Path) -> Kaos:
    """Return the owner at a shell of her own, connected, with a new workspace set."""
    work = tmp_path / "work"
    work.mkdir()
    user = Kaos(tmp_path / ".kaos", work, {"HOME": str(tmp_path)})
    user.run("init", "-e", server.url, "-t", "-", stdin=f"{token}\n")
    user.run("workspace", "create", "-n", workspace)
    return user
