"""The records that a run of the container runtime leaves in its directory, and what they say.

::

    launch.json      what to run, written by `launch`; the key in it names this one launch and its container
    container.json   the container's first process, so that nobody has to ask the engine whether it runs
    terminate.json   the wish for its end
    exit.json        how it ended; the container is removed after it was written
    run.log          what the script printed: as podman keeps it, or copied from docker
    log.lock         held by what copies from docker
"""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime
from pathlib import Path
from typing import Literal

from kaos.runtime import proctree
from kaos.runtime.records import Record, read
from kaos.value import Value

LAUNCH = "launch.json"
CONTAINER = "container.json"
TERMINATE = "terminate.json"
EXIT = "exit.json"
LOG = "run.log"
LOG_LOCK = "log.lock"
LOCK = "lock"


class Handle(Value):
    """Name one launch: the run's directory, the engine, and the key that its container is named by."""

    runtime: Literal["container"] = "container"
    engine: str
    directory: Path
    key: str

    @property
    def container(self) -> str:
        """Return the name of the container."""
        return f"kaos-{self.key}"

    def record(self, name: str) -> Record | None:
        """Return a record of this launch; one that a later launch wrote in its place is not it."""
        found = read(self.directory / name)
        return found if found is not None and found["key"] == self.key else None

    def write(self, name: str, **fields: object) -> None:
        """Write a record of this launch that readers see whole or not at all."""
        new = self.directory / f"{name}.{os.getpid()}.new"
        new.write_text(json.dumps({"key": self.key, **fields}))
        new.chmod(0o600)
        new.replace(self.directory / name)


def process_of(pid: int, container: str) -> proctree.Process | None:
    """Return the first process of a container, if it is on this machine.

    :param container: id of the container, which the process' control groups or mounts must name
    """
    process = proctree.Process.of(pid) if pid else None
    if process is None:
        return None
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text() + Path(f"/proc/{pid}/mountinfo").read_text()
    except OSError:
        return None
    return process if container in groups else None


def alive(record: Record | None) -> bool:
    """Tell whether the process in ``container.json`` still runs; False says nothing."""
    return record is not None and record["process"] is not None and proctree.Process(*record["process"]).alive


def describe(code: int, memory: str) -> str:
    """Return the reason that belongs to an exit code.

    :param memory: what is known of memory as the cause, empty for nothing
    """
    if code == 0:
        return ""
    if 128 < code < 128 + signal.NSIG:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            name = "a real-time signal"
        return f"killed by signal {code - 128} ({memory or name})"
    return f"exit code {code} ({memory})" if memory else f"exit code {code}"


def moment(text: str | None) -> datetime | None:
    """Return the time that a record holds."""
    return datetime.fromisoformat(text) if text else None
