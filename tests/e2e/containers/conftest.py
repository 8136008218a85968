"""A `kaos up` that has podman and a registry, for all tests of containers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import containers, setup

from e2e.harness import Kaos, Server, free_port

DOCKERFILE = "FROM python:3.11-slim\nWORKDIR /opt/program\nCOPY . /opt/program/\n"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that is here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.container)


@pytest.fixture(scope="package")
def server(podman: containers.Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server that pushes to a registry; when it is stopped, no container of it may be left."""
    root = tmp_path_factory.mktemp("containers")
    port = free_port()
    owner = Kaos(root / ".kaos", root, {"HOME": str(root)})
    try:
        with containers.registry(root, free_port()) as host:
            owner.run("up", "--port", str(port), "--registry", f"{host}/kaos", seconds=280)
            found = Server(owner, port)
            instance = found.instance["id"]
            yield found
            owner.run("down", seconds=120)
            assert names(f"kaos.instance={instance}") == []
    except setup.LabError as error:
        setup.missing("a registry", error)
    finally:
        owner.run("down", "--purge", "--yes", seconds=120)


@pytest.fixture(scope="package")
def token(server: Server) -> str:
    return server.owner_token()


def names(label: str) -> list[str]:
    """Return the containers with a label, running or not."""
    command = ["podman", "ps", "--all", f"--filter=label={label}", "--format={{.Names}}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
