"""Start the local server, or find the one that runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kaos.errors import LocalServerError
from kaos_cli.server import processes, supervision
from kaos_cli.server.files import write_private
from kaos_cli.server.instance import Instance, create, load, save
from kaos_cli.server.layout import Layout
from kaos_cli.server.lock import exclusive
from kaos_cli.server.logs import tail
from kaos_cli.server.ports import ensure_free
from kaos_cli.server.postgres import Database, stop_leftover
from kaos_cli.server.prepare import ensure_installed, prepare
from kaos_cli.server.serving import choose_port
from kaos_cli.server.status import ProcessStatus, observe
from kaos_cli.server.stop import stop

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080

# Seconds; a machine busy with other things takes several times the usual 15.
_PATIENCE = 240
_SURE, _SURE_AGAIN = 1.0, 5.0
"""Seconds for which everything has to be ready; the longer where something has failed before."""


def up(
    layout: Layout,
    host: str | None,
    port: int | None,
    report: Callable[[str], None],
    registry: str | None = None,
    gateway_port: int | None = None,
) -> tuple[Instance, bool]:
    """Start everything and wait until it is ready; if it runs already, only wait.

    :param host: the address to listen on; by default that of the last start
    :param port: the port to listen on; by default that of the last start
    :param report: is told what is being waited for
    :param registry: where images are pushed to, empty for nowhere; by default that of the last start
    :param gateway_port: the port of the endpoints; by default that of the last start, or the next free one
    :returns: the instance, and whether it was running before
    :raises LocalServerError: if it cannot start; then nothing is left running
    """
    ensure_installed()
    with exclusive(layout, report):
        known = load(layout)
        if known is not None and supervision.Supervisor(layout).pid() is not None:
            _ensure_same(known, host, port, registry, gateway_port)
            report("waiting until the server that runs here is ready")
            wait_until_ready(layout, known, report)
            _tell_client(layout, known)
            return known, True
        if known is None:
            instance = create(host or DEFAULT_HOST, port or DEFAULT_PORT)
        else:
            instance = dataclasses.replace(known, host=host or known.host, port=port or known.port)
            _clear_up(layout, instance)
        if registry is not None:
            instance = dataclasses.replace(instance, registry=registry)
        ensure_free(instance.host, instance.port)
        instance = dataclasses.replace(instance, gateway_port=choose_port(instance, gateway_port))
        ensure_free("127.0.0.1", instance.gateway_port, "--gateway-port")
        save(layout, instance)
        instance = prepare(layout, instance, report)
        _start(layout, instance, report)
        _tell_client(layout, instance)
        return instance, False


def _start(layout: Layout, instance: Instance, report: Callable[[str], None]) -> None:
    layout.stopping.unlink(missing_ok=True)
    supervision.write_config(layout)
    supervisor = supervision.start(layout, instance)
    try:
        wait_until_ready(layout, instance, report, supervisor)
    except BaseException:  # also Ctrl-C: what did not get ready is not left running
        stop(layout, instance, report)
        raise


def wait_until_ready(
    layout: Layout,
    instance: Instance,
    report: Callable[[str], None],
    supervisor: subprocess.Popen[bytes] | None = None,
) -> None:
    """Wait until every process does its work.

    :raises LocalServerError: if one fails, with the end of its log
    """
    deadline = time.monotonic() + _PATIENCE
    failures = Failures()
    ready_since: float | None = None
    while True:
        if supervisor is not None and supervisor.poll() is not None:
            raise _failure("supervisord", supervision.error_log(layout))
        rows = observe(layout, instance)
        for name, count in failures.count(rows).items():
            if count >= 2:  # once may be an accident, such as a database still in recovery
                raise _failure(name, layout.log(name))
        waiting = [row.name for row in rows if row.state != "ready"]
        if not waiting:
            # One that fails soon after its first heartbeat looks ready in between.
            ready_since = ready_since or time.monotonic()
            if time.monotonic() - ready_since >= (_SURE_AGAIN if failures.were_any() else _SURE):
                return
            time.sleep(0.25)
            continue
        ready_since = None
        if time.monotonic() > deadline:
            raise _failure(waiting[0], layout.log(waiting[0]))
        report(f"waiting for {', '.join(waiting)}")
        time.sleep(0.25)


class Failures:
    """Count how often each process has failed.

    One that ends soon is seen waiting for its next start. Where all is slow it runs long enough to be started
    again at once, and only its pid tells.
    """

    def __init__(self) -> None:
        self._failed: set[str] = set()
        self._counted: dict[str, int] = {}
        self._pids: dict[str, set[int]] = {}

    def count(self, rows: list[ProcessStatus]) -> dict[str, int]:
        """Take in how the processes are now, and return how often each has failed so far."""
        failed = {row.name for row in rows if row.state == "failed"}
        for name in failed - self._failed:
            self._counted[name] = self._counted.get(name, 0) + 1
        self._failed = failed
        for row in rows:
            if row.pid is not None:
                self._pids.setdefault(row.name, set()).add(row.pid)
        return self._counts()

    def were_any(self) -> bool:
        """Tell whether any has failed."""
        return any(self._counts().values())

    def _counts(self) -> dict[str, int]:
        names = self._counted.keys() | self._pids.keys()
        return {name: max(self._counted.get(name, 0), len(self._pids.get(name, ())) - 1) for name in names}


def _failure(component: str, log: Path) -> LocalServerError:
    last = "\n".join(f"  {line}" for line in tail(log, 20))
    return LocalServerError(
        f"{component} does not start. The end of its log:\n{last}", f"The whole log: {log}"
    )


def _ensure_same(
    known: Instance, host: str | None, port: int | None, registry: str | None, gateway_port: int | None
) -> None:
    if registry not in (None, known.registry):
        pushes = f"pushes images to {known.registry}" if known.registry else "pushes images nowhere"
        raise LocalServerError(
            f"The server runs already, and {pushes}.", "To change it: kaos down, then kaos up again."
        )
    wanted = (host or known.host, port or known.port, gateway_port or known.gateway_port)
    if wanted != (known.host, known.port, known.gateway_port):
        raise LocalServerError(
            f"The server runs at {known.url} already.", "To move it: kaos down, then kaos up again."
        )


def _clear_up(layout: Layout, instance: Instance) -> None:
    """End what a crash of everything at once left behind, except users' jobs: their tasks find them again."""
    processes.end(processes.marked(instance.id, jobs=False), grace=0)
    stop_leftover(Database.of(layout, instance))


def _tell_client(layout: Layout, instance: Instance) -> None:
    name, user = instance.owner
    document = {"url": instance.url, "username": name, "password": user.password, "instance": instance.id}
    write_private(layout.server, json.dumps(document) + "\n")
