"""What a revision runs as: launched, observed, read and ended like a run, but meant to stay.

A service listens on the port in ``PORT``, on the address in ``KAOS_HOST``, and answers ``GET /ping`` and
``POST /invocations``. Its directory::

    service.json   the ServiceSpec and the port
    service.lock   held while it is launched
    run/           the runtime's records of its present life, and its log
    log.<number>   the logs of its earlier lives, the last few, as the runtime wrote them
    program/       the code, with the model's files beside it; of a container that is in its image
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from kaos.digest import digest_bytes
from kaos.errors import InvalidInputError, KaosError
from kaos.lineage import ImageRecord
from kaos.resources import Resources
from kaos.runtime import wrapper
from kaos.runtime.base import AbsolutePath, Environment, RunState, RunStatus, Runtime
from kaos.runtime.exclusive import locked
from kaos.value import Value

_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to outgoing connections: none of them can take a service's port."""

_SPEC = "service.json"
_KEPT_LOGS = 3
LARGEST_LOG = 16 << 20
_LARGEST_PAST = 2 * LARGEST_LOG
_LONGEST_LINE = 1 << 20


class ServiceSpec(Value):
    """Describe a service; a runtime needs nothing else.

    :param name: of the endpoint, ``KAOS_ENDPOINT`` for the script
    :param revision: ``KAOS_REVISION``
    :param program: the code, writable, and the working directory of ``serve``; None where the image has it
    :param model: directory of the model, ``KAOS_MODEL``
    :param directory: the service's own; always the same one for the same revision
    :param environment: what it runs in: an environment for a process, an image for a container
    :param env: further variables
    :param executables: files of ``program`` to make executable first
    :param workers: ``WEB_CONCURRENCY``, which gunicorn and uvicorn know; None leaves it to them
    :param network: of a container, empty for the engine's default
    :param user: of a container whose image names none
    """

    name: str
    revision: int
    job_id: str
    program: AbsolutePath | None
    model: AbsolutePath | None
    directory: AbsolutePath
    environment: Environment | ImageRecord
    env: Mapping[str, str] = {}
    executables: tuple[str, ...] = ()
    resources: Resources = Resources()
    workers: int | None = None
    network: str = ""
    user: str = ""

    @property
    def run_id(self) -> str:
        """Return what names its runs."""
        return f"{self.name}-{self.revision}"

    def variables(self, port: int, host: str, model: str | None) -> dict[str, str]:
        """Return what the contract gives to ``serve``, and the revision's own variables.

        :param host: address to listen on
        :param model: where it finds the model
        """
        given = {
            "PORT": str(port),
            "KAOS_HOST": host,
            "KAOS_ENDPOINT": self.name,
            "KAOS_REVISION": str(self.revision),
        }
        if model is not None:
            given["KAOS_MODEL"] = model
        if self.workers is not None:
            given["WEB_CONCURRENCY"] = str(self.workers)
        return {**self.env, **given}


class Kept(Value):
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

        An empty position stands for the beginning of the oldest log that is kept. While the service runs,
        what is returned ends with the end of a line, unless a line is very long.
        """

    @abstractmethod
    def trim(self, directory: Path) -> None:
        """Begin a new log if the present one is large."""

    @abstractmethod
    def terminate(self, directory: Path, grace_seconds: float) -> None:
        """End the service: ask, wait up to ``grace_seconds`` for its last answers, kill."""


class LocalServices(Services):
    """Services of this machine: each is a run of a runtime, under a port of the loopback interface.

    :param runtime: that observes and ends them
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @abstractmethod
    def start(self, spec: ServiceSpec, port: int) -> None:
        """Start the run of a service."""

    @abstractmethod
    def read(self, directory: Path, log: Path, offset: int) -> tuple[bytes, int]:
        """Return what was printed since `offset` of one of the service's logs, and the next offset."""

    def launch(self, spec: ServiceSpec) -> int:
        """Start a service; it gets the same port again if that is free."""
        spec.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        root = spec.directory.parent.parent
        with locked(spec.directory / "service.lock"):
            running = self.observe(spec.directory)
            before = self.port(spec.directory)
            if before is not None and running is not None and running.state is RunState.RUNNING:
                return before
            _keep_log(spec.directory)
            with locked(root / "ports.lock"):
                port = before if before is not None and _free(before) else _choose(root)
                wrapper.write(spec.directory / _SPEC, Kept(port=port, spec=spec).model_dump(mode="json"))
            self.start(spec, port)
        return port

    def relaunch(self, directory: Path) -> int:
        """Start the service of a directory once more.

        :raises FileNotFoundError: none was ever launched there, or its code is not there any more
        """
        found = kept(directory)
        if found is None or (found.spec.program is not None and not found.spec.program.is_dir()):
            raise FileNotFoundError(f"Nothing can be launched in {directory}.")
        return self.launch(found.spec)

    def port(self, directory: Path) -> int | None:
        """Return the port of the service that was last launched in a directory, or None."""
        found = kept(directory)
        return found.port if found is not None else None

    def observe(self, directory: Path) -> RunStatus | None:
        """Return how the service of a directory is, None if none was ever launched there."""
        handle = self.runtime.find(directory / "run")
        return self.runtime.observe(handle) if handle is not None else None

    def logs(self, directory: Path, position: str = "") -> tuple[bytes, str]:
        """Return what the service wrote since `position` (number of the log, offset), and the next one."""
        # The state first: what it wrote before its end is then always read after it.
        status = self.observe(directory)
        alive = status is not None and status.state is RunState.RUNNING
        past = _past(directory)
        present = past[-1] + 1 if past else 0
        number, _, offset = position.partition(":")
        log = int(number) if number else (past[0] if past else present)
        start = int(offset or 0)
        while True:
            path = directory / "run" / wrapper.LOG if log >= present else directory / f"log.{log}"
            chunk, after = self.read(directory, path, start)
            if log >= present and alive and not chunk.endswith(b"\n") and len(chunk) < _LONGEST_LINE:
                # The rest of the line comes with the next ones.
                chunk, after = self.whole_lines(directory, path, start, chunk)
            if chunk or log >= present:
                return chunk, f"{log}:{after}"
            log, start = log + 1, 0

    def whole_lines(self, directory: Path, log: Path, offset: int, chunk: bytes) -> tuple[bytes, int]:
        """Return the whole lines of what was read, and the offset of what comes after them."""
        whole = chunk[: chunk.rfind(b"\n") + 1]
        return whole, offset + len(whole)

    def trim(self, directory: Path) -> None:
        """Copy a large log away and empty it: its writers append, so that they go on at its new end."""
        log = directory / "run" / wrapper.LOG
        try:
            if log.stat().st_size < LARGEST_LOG:
                return
        except FileNotFoundError:
            return
        _store_log(directory, _last_of(log))
        with log.open("r+b") as file:
            file.truncate(0)

    def terminate(self, directory: Path, grace_seconds: float) -> None:
        """End the service with all that it started."""
        handle = self.runtime.find(directory / "run")
        if handle is not None:
            self.runtime.terminate(handle, grace_seconds)


def kept(directory: Path) -> Kept | None:
    """Return what the directory of a service remembers, None if none was ever launched there.

    What was lost in part with the machine's power is nothing either.
    """
    try:
        return Kept.parse((directory / _SPEC).read_bytes())
    except (FileNotFoundError, InvalidInputError):
        return None


def launched_at(directory: Path) -> float:
    """Return when the service of a directory was last launched, in seconds since the epoch."""
    return (directory / _SPEC).stat().st_mtime


def last_lines(services: Services, directory: Path, count: int = 15) -> list[str]:
    """Return the end of what a service printed."""
    position, text = "", b""
    while True:
        chunk, position = services.logs(directory, position)
        if not chunk:
            return text.decode(errors="replace").splitlines()[-count:]
        text = (text + chunk)[-65536:]


def _choose(root: Path) -> int:
    """Return a port that no service of this machine has and on which nothing listens."""
    # One that ends meanwhile takes its directory with it.
    taken = {found.port for path in root.glob(f"*/*/{_SPEC}") if (found := kept(path.parent)) is not None}
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


def _past(directory: Path) -> list[int]:
    return sorted(int(path.suffix[1:]) for path in directory.glob("log.*") if path.suffix[1:].isdigit())


def _keep_log(directory: Path) -> None:
    log = directory / "run" / wrapper.LOG
    if log.exists():
        _store_log(directory, _last_of(log))
        log.unlink()


def _last_of(log: Path) -> bytes:
    """Return what a log holds; of one that grew faster than anybody could look at it, the last lines."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LARGEST_PAST))
        content = file.read(_LARGEST_PAST)
    return content if size <= _LARGEST_PAST else content[content.find(b"\n") + 1 :]


def _store_log(directory: Path, content: bytes) -> None:
    past = _past(directory)
    number = past[-1] + 1 if past else 0
    path = directory / f"log.{number}"
    path.touch(mode=0o600)
    path.write_bytes(content)
    for old in past[: max(0, len(past) + 1 - _KEPT_LOGS)]:
        (directory / f"log.{old}").unlink(missing_ok=True)
