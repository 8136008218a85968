"""Where the local server keeps its state."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

# The kernel takes 107 bytes for a socket's path; supervisor appends its pid while it creates its own.
_LONGEST_SOCKET_FOLDER = 75

AIRFLOW_COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
SERVING_COMPONENTS = ("gateway", "keeper")
COMPONENTS = ("postgres", *AIRFLOW_COMPONENTS, *SERVING_COMPONENTS, "guard")
LOGS = (*COMPONENTS, "supervisord")


@dataclass(frozen=True)
class Layout:
    """Name every file and folder of one home."""

    home: Path

    @classmethod
    def current(cls) -> Layout:
        """Take the home from KAOS_HOME, or ~/.kaos."""
        return cls(Path(os.environ.get("KAOS_HOME") or "~/.kaos").expanduser().absolute())

    @property
    def instance(self) -> Path:
        """Hold what makes this instance: its id, its secrets, its users."""
        return self.home / "instance.json"

    @property
    def server(self) -> Path:
        """Tell the client of the same user where the running server is, and how to log in."""
        return self.home / "server.json"

    @property
    def lock(self) -> Path:
        """Serialise `up`, `down` and `user create`."""
        return self.home / "lock"

    @property
    def stopping(self) -> Path:
        """Keep the guard from healing what is being stopped on purpose."""
        return self.run / "stopping"

    @property
    def airflow(self) -> Path:
        """Be AIRFLOW_HOME."""
        return self.home / "airflow"

    @property
    def airflow_config(self) -> Path:
        """Be Airflow's configuration, written anew by every `up`."""
        return self.airflow / "airflow.cfg"

    @property
    def own_settings(self) -> Path:
        """Hold the user's own Airflow settings, which win over ours."""
        return self.home / "airflow.local.cfg"

    @property
    def passwords(self) -> Path:
        """Hold the passwords that Airflow's SimpleAuthManager reads."""
        return self.airflow / "passwords.json"

    @property
    def store(self) -> Path:
        """Hold the objects and records of kaos."""
        return self.home / "store"

    @property
    def work(self) -> Path:
        """Hold the working folders of jobs."""
        return self.home / "work"

    @property
    def logs(self) -> Path:
        """Hold the logs of the processes."""
        return self.home / "logs"

    @property
    def supervisor_config(self) -> Path:
        """Be supervisor's configuration."""
        return self.home / "supervisord.conf"

    @property
    def run(self) -> Path:
        """Hold sockets and pid files; elsewhere if the home's path is too long for a socket."""
        run = self.home / "run"
        if len(os.fsencode(run)) <= _LONGEST_SOCKET_FOLDER:
            return run
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(f"/tmp/kaos-{os.getuid()}-{digest}")  # noqa: S108 (private_folder checks whose it is)

    @property
    def supervisor_socket(self) -> Path:
        """Be where supervisor listens."""
        return self.run / "supervisor.sock"

    @property
    def supervisor_pid(self) -> Path:
        """Hold supervisor's pid."""
        return self.run / "supervisord.pid"

    def log(self, component: str) -> Path:
        """Return the log of a component."""
        return self.logs / f"{component}.log"
