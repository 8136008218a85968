"""What a revision runs as: launched, observed, read and ended like a run, but meant to stay.

A service listens on the port in ``PORT``, here on the loopback address (``KAOS_HOST``), and answers ``GET
/ping`` and ``POST /invocations``. Its directory::

    service.json   the ServiceSpec and the port
    run/           the runtime's records of its present life, and its log
    log.<number>   the logs of its earlier lives, the last few
    program/       the code, with the model's files beside it
"""

from __future__ import annotations

import fcntl
import json
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kaos.digest import digest_bytes
from kaos.errors import KaosError
from kaos.resources import Resources
from kaos.runtime import proctree, wrapper
from kaos.runtime.base import AbsolutePath, Environment, RunSpec, RunState, RunStatus, Runtime
from kaos.runtime.records import process_of, read
from kaos.serving.listener import holds
from kaos.value import Value

_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to outgoing connections: none of them can take a service's port."""

_SPEC = "service.json"
_KEPT_LOGS = 3
_LARGEST_LOG = 16 << 20


class ServiceSpec(Value):
    """Describe a service; a runtime needs nothing else.

    :param name: of the endpoint, ``KAOS_ENDPOINT`` for the script
    :param revision: ``KAOS_REVISION``
    :param program: the code, writable, and the working directory of ``serve``
    :param model: directory of the model, ``KAOS_MODEL``
    :param directory: the service's own; always the same one for the same revision
    :param env: further variables
    :param executables: files of ``program`` to make executable first
    :param workers: ``WEB_CONCURRENCY``, which gunicorn and uvicorn know; None leaves it to them
    """

    name: str
    revision: int
    job_id: str
    program: AbsolutePath
    model: AbsolutePath | None
    directory: AbsolutePath
    environment: Environment
    env: Mapping[str, str] = {}
    executables: tuple[str, ...] = ()
    resources: Resources = Resources()
    workers: int | None = None


class _Kept(Value):
    """What a service's directory remembers."""

    port: int
    spec: ServiceSpec


class Services(ABC):
    """Run services somewhere, independent of the life of the process that asked for them."""

    @abstractmethod
    def launch(self, spec: ServiceSpec) -> int:
        """Start a service and return its port; of one that is alive, return the port and start nothing."""

    @abstractmethod
    def relaunch(self, directory: Path) -> int:
        """Start the service of a directory once more, and return its port.

        :raises FileNotFoundError: none was ever launched there
        """

    @abstractmethod
    def port(self, directory: Path) -> int | None:
        """Return the port of the service that was last launched in a directory, or None."""

    @abstractmethod
    def observe(self, directory: Path) -> RunStatus | None:
        """Return how the service of a directory is, None if none was ever launched there."""

    @abstractmethod
    def listens(self, directory: Path) -> bool:
        """Tell whether it is the service of a directory that listens on its port, and not another program."""

    @abstractmethod
    def logs(self, directory: Path, position: str = "") -> tuple[bytes, str]:
        """Return what the service wrote since `position`, at most 1 MiB, and the next position.

        An empty position stands for the beginning of the oldest log that is kept.
        """

    @abstractmethod
    def trim(self, directory: Path) -> None:
        """Begin a new log if the present one is large."""

    @abstractmethod
    def terminate(self, directory: Path, grace_seconds: float) -> None:
        """End the service: ask, wait up to ``grace_seconds`` for its last answers, kill."""


class ProcessServices(Services):
    """Services as processes of this machine."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def launch(self, spec: ServiceSpec) -> int:
        """Start a service; it gets the same port again if that is free."""
        spec.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(spec.directory.parent.parent / "ports.lock"):
            running = self.observe(spec.directory)
            before = self.port(spec.directory)
            if before is not None and running is not None and running.state is RunState.RUNNING:
                return before
            _keep_log(spec.directory)
            port = before if before is not None and _free(before) else _choose(spec.directory.parent.parent)
            wrapper.write(spec.directory / _SPEC, _Kept(port=port, spec=spec).model_dump(mode="json"))
            self.runtime.launch(_run(spec, port))
        return port

    def relaunch(self, directory: Path) -> int:
        """Start the service of a directory once more."""
        return self.launch(_Kept.parse((directory / _SPEC).read_bytes()).spec)

    def port(self, directory: Path) -> int | None:
        """Return the port of the service that was last launched in a directory, or None."""
        try:
            return _Kept.parse((directory / _SPEC).read_bytes()).port
        except FileNotFoundError:
            return None

    def observe(self, directory: Path) -> RunStatus | None:
        """Return how the service of a directory is, None if none was ever launched there."""
        handle = self.runtime.find(directory / "run")
        return self.runtime.observe(handle) if handle is not None else None

    def listens(self, directory: Path) -> bool:
        """Tell whether a process of the service listens on its port."""
        port, record = self.port(directory), read(directory / "run" / wrapper.PROCESS)
        if port is None or record is None:
            return False
        found = {process.pid for role in ("wrapper", "script") if (process := process_of(record, role))}
        return holds(found.union(*map(proctree.descendants, found)), port)

    def logs(self, directory: Path, position: str = "") -> tuple[bytes, str]:
        """Return what the service wrote since `position` (number of the log, offset), and the next one."""
        kept = _kept(directory)
        present = kept[-1] + 1 if kept else 0
        number, _, offset = position.partition(":")
        log = int(number) if number else (kept[0] if kept else present)
        start = int(offset or 0)
        while True:
            path = directory / "run" / wrapper.LOG if log >= present else directory / f"log.{log}"
            try:
                with path.open("rb") as file:
                    file.seek(start)
                    chunk = file.read(1 << 20)
            except FileNotFoundError:
                chunk = b""
            if chunk or log >= present:
                return chunk, f"{log}:{start + len(chunk)}"
            log, start = log + 1, 0

    def trim(self, directory: Path) -> None:
        """Copy a large log away and empty it: its writers append, so that they go on at its new end."""
        log = directory / "run" / wrapper.LOG
        try:
            if log.stat().st_size < _LARGEST_LOG:
                return
        except FileNotFoundError:
            return
        _store_log(directory, log.read_bytes())
        with log.open("r+b") as file:
            file.truncate(0)

    def terminate(self, directory: Path, grace_seconds: float) -> None:
        """End the service with all that it started."""
        handle = self.runtime.find(directory / "run")
        if handle is not None:
            self.runtime.terminate(handle, grace_seconds)


def last_lines(services: Services, directory: Path, count: int = 15) -> list[str]:
    """Return the end of what a service printed."""
    position, text = "", b""
    while True:
        chunk, position = services.logs(directory, position)
        if not chunk:
            return text.decode(errors="replace").splitlines()[-count:]
        text = (text + chunk)[-65536:]


def _run(spec: ServiceSpec, port: int) -> RunSpec:
    params = spec.directory / "params.json"
    params.write_text("{}")
    given = {
        "PORT": str(port),
        "KAOS_HOST": "127.0.0.1",
        "KAOS_ENDPOINT": spec.name,
        "KAOS_REVISION": str(spec.revision),
    }
    if spec.model is not None:
        given["KAOS_MODEL"] = str(spec.model)
    if spec.workers is not None:
        given["WEB_CONCURRENCY"] = str(spec.workers)
    return RunSpec(
        run_id=f"{spec.name}-{spec.revision}",
        job_id=spec.job_id,
        program=spec.program,
        command=("./serve",),
        params=params,
        output=spec.directory / "output",
        directory=spec.directory / "run",
        environment=spec.environment,
        env={**spec.env, **given},
        executables=spec.executables,
        resources=spec.resources,
    )


def _choose(root: Path) -> int:
    """Return a port that no service of this machine has and on which nothing listens."""
    taken = {json.loads(path.read_text())["port"] for path in root.glob(f"*/*/{_SPEC}")}
    # Another server on this machine begins elsewhere: its services may not listen yet on what they chose.
    start = int(digest_bytes(str(root).encode())[:8], 16) + len(taken)
    for step in range(len(_PORTS)):
        port = _PORTS[(start + step) % len(_PORTS)]
        if port not in taken and _free(port):
            return port
    raise KaosError("No port is free for the service.", "End endpoints that are not needed: kaos serve kill")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _kept(directory: Path) -> list[int]:
    return sorted(int(path.suffix[1:]) for path in directory.glob("log.*") if path.suffix[1:].isdigit())


def _keep_log(directory: Path) -> None:
    log = directory / "run" / wrapper.LOG
    if log.exists():
        _store_log(directory, log.read_bytes())
        log.unlink()


def _store_log(directory: Path, content: bytes) -> None:
    kept = _kept(directory)
    number = kept[-1] + 1 if kept else 0
    path = directory / f"log.{number}"
    path.touch(mode=0o600)
    path.write_bytes(content)
    for old in kept[: max(0, len(kept) + 1 - _KEPT_LOGS)]:
        (directory / f"log.{old}").unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
