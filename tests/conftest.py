"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from lab import containers, setup

from kaos.runtime.container.engine import Docker

if TYPE_CHECKING:
    from airflow_example import Example

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in a shell's background job, and for all that is started there: Ctrl-C could not be tried.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("kaos", deadline=None, max_examples=60)
settings.load_profile("kaos")


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test out of the home of whoever runs it."""
    monkeypatch.setenv("KAOS_HOME", str(tmp_path_factory.mktemp("home") / ".kaos"))


@pytest.fixture(scope="session")
def podman() -> Iterator[containers.Podman]:
    """Return a real podman with a base image; where it cannot be had, the test says so."""
    try:
        found = containers.podman()
    except setup.LabError as error:
        setup.missing("podman", error)
    before = dict(os.environ)
    os.environ.update(found.variables)
    yield found
    for name in found.variables:
        os.environ.pop(name)
        if name in before:
            os.environ[name] = before[name]


@pytest.fixture(scope="session")
def docker(podman: containers.Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Return docker with a daemon of our own, to which our own calls of docker lead."""
    before = dict(os.environ)
    try:
        with containers.dockerd(tmp_path_factory.mktemp("docker"), podman) as variables:
            os.environ.update(variables)
            yield Docker()
    except setup.LabError as error:
        setup.missing("docker", error)
    finally:
        for name in ("DOCKER_HOST", "PATH"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Return what an Airflow of its own made of the example DAG."""
    from airflow_example import run_example  # which needs this module

    return run_example(tmp_path_factory.mktemp("airflow"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what could not be tested on this machine."""
    for words in setup.MISSING:
        terminalreporter.write_line(f"NOT TESTED: {words}", yellow=True, bold=True)


def write_tree(root: Path, files: dict[str, bytes | str | None]) -> Path:
    """Write files (content by path; None: an empty directory); `train` and `serve` are executable."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if path.name in ("train", "serve"):
            path.chmod(0o755)
    return root
