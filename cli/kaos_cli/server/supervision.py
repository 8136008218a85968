"""supervisor: its configuration, its start, and the questions it answers through a unix socket."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import subprocess
import sys
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaos_cli.server.files import private_folder, write_private
from kaos_cli.server.instance import Instance
from kaos_cli.server.layout import COMPONENTS, Layout
from kaos_cli.server.settings import environment

# Seconds between the polite signal and SIGKILL. A scheduler waits for its tasks, which may take hours.
_GRACE = {
    **{"postgres": 15, "api-server": 4, "scheduler": 5, "dag-processor": 4, "triggerer": 4},
    **{"gateway": 2, "keeper": 2, "guard": 2},
}
# Stopped in reverse: the guard first, PostgreSQL last.
_PRIORITY = {"gateway": 50, "keeper": 60, "postgres": 100, "guard": 900}
_SIGNAL = {"postgres": "INT"}


@dataclass(frozen=True)
class Process:
    """Be a process as supervisor sees it."""

    name: str
    state: str
    pid: int
    started: int
    """Seconds since the epoch."""
    now: int
    problem: str


class Supervisor:
    """Ask the supervisor of a home, if it runs."""

    def __init__(self, layout: Layout) -> None:
        self._socket = layout.supervisor_socket

    def _call(self, method: str, *arguments: Any) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        finally:
            transport.close()

    def pid(self) -> int | None:
        """Return supervisor's pid; None if it does not run."""
        try:
            return int(self._call("getPID"))
        except (OSError, xmlrpc.client.Error):
            return None

    def processes(self) -> dict[str, Process]:
        """Return its processes by name; none if it does not run."""
        try:
            found: list[dict[str, Any]] = self._call("getAllProcessInfo")
        except (OSError, xmlrpc.client.Error):
            return {}
        return {
            one["name"]: Process(
                one["name"], one["statename"], one["pid"], one["start"], one["now"], one["spawnerr"]
            )
            for one in found
        }

    def stop(self, name: str, *, wait: bool) -> None:
        """Stop a process; it stays stopped."""
        with contextlib.suppress(xmlrpc.client.Fault):  # it was not running
            self._call("stopProcess", name, wait)

    def start(self, name: str) -> None:
        """Start a process that was stopped."""
        self._call("startProcess", name, False)

    def shutdown(self) -> None:
        """Have it stop everything and end."""
        with contextlib.suppress(OSError, xmlrpc.client.Error):
            self._call("shutdown")


def write_config(layout: Layout) -> None:
    """Write supervisor's configuration, which holds no secret."""
    own = shlex.quote(sys.executable)
    lines = [
        "[supervisord]",
        f"logfile={_relative(layout, layout.log('supervisord'))}",
        "logfile_maxbytes=10MB",
        "logfile_backups=2",
        f"pidfile={_relative(layout, layout.supervisor_pid)}",
        f"childlogdir={_relative(layout, layout.logs)}",
        "silent=true",
        "umask=077",
        *([f"user={getpass.getuser()}"] if os.geteuid() == 0 else []),
        "[unix_http_server]",
        f"file={_relative(layout, layout.supervisor_socket)}",
        "chmod=0600",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for name in COMPONENTS:
        module = "kaos_cli.server.guard" if name == "guard" else f"kaos_cli.server.launch {name}"
        lines += [
            f"[program:{name}]",
            # -P: the modules of the folder where somebody happened to type `kaos up` are not Airflow's.
            f"command={own.replace('%', '%%')} -P -m {module}",
            f'environment=KAOS_COMPONENT="{name}"',
            f"priority={_PRIORITY.get(name, 500)}",
            "autorestart=true",
            "startsecs=5",
            # The pause grows by a second with each failure.
            "startretries=100",
            f"stopsignal={_SIGNAL.get(name, 'TERM')}",
            f"stopwaitsecs={_GRACE[name]}",
            "redirect_stderr=true",
            f"stdout_logfile={_relative(layout, layout.log(name))}",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=3",
        ]
    write_private(layout.supervisor_config, "\n".join(lines) + "\n")


def _relative(layout: Layout, path: Path) -> str:
    """Name a path from the home, where supervisor runs: it expands percent signs, even twice."""
    return str(path.relative_to(layout.home) if path.is_relative_to(layout.home) else path)


def command(layout: Layout) -> list[str]:
    """Return supervisor's command line."""
    return [sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-c", str(layout.supervisor_config)]


def error_log(layout: Layout) -> Path:
    """Return where supervisor writes what it cannot write to its log."""
    return layout.logs / "supervisord.err"


def start(layout: Layout, instance: Instance) -> subprocess.Popen[bytes]:
    """Start supervisor in a session of its own, so that it outlives the terminal."""
    private_folder(layout.run)
    descriptor = os.open(error_log(layout), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            command(layout),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            cwd=layout.home,
            env={**environment(layout, instance), "KAOS_COMPONENT": "supervisord"},
            start_new_session=True,
            umask=0o077,
        )
    finally:
        os.close(descriptor)
