"""The records that a run of the process runtime leaves in its directory, and what they say.

::

    launch.json      what to run, written by `launch`; the key in it names this one launch
    process.json     which processes it is, written by the wrapper before the script begins
    exit.json        how it ended
    terminate.json   the wish for its end
    run.log          what the script printed, and nothing else
    wrapper.log      what went wrong in the wrapper itself
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kaos.runtime import proctree, wrapper
from kaos.runtime.base import RunState, RunStatus
from kaos.runtime.cgroup import Group
from kaos.value import Value

Record = dict[str, Any]


class Handle(Value):
    """Name one launch: the run's directory, and the key in its records."""

    runtime: Literal["process"] = "process"
    directory: Path
    key: str

    def record(self, name: str) -> Record | None:
        """Return a record of this launch; one that a later launch wrote in its place is not it."""
        found = read(self.directory / name)
        return found if found is not None and found["key"] == self.key else None


def observe(run: Handle) -> RunStatus:
    """Return how a run is, from its records and the processes that they name."""
    record = run.record(wrapper.PROCESS)
    exit_record = run.record(wrapper.EXIT)
    if exit_record is None and record is not None:
        processes = (process_of(record, "wrapper"), process_of(record, "script"))
        if any(process is not None and process.alive for process in processes):
            return RunStatus(
                state=RunState.RUNNING, limits=record["limits"], started_at=_time(record["started_at"])
            )
        # It may have ended between the two looks.
        exit_record = run.record(wrapper.EXIT)
    limits = record["limits"] if record else ""
    started_at = _time(record["started_at"]) if record else None
    if exit_record is None:
        return RunStatus(
            state=RunState.LOST, reason=_why_lost(run, record), limits=limits, started_at=started_at
        )
    succeeded = exit_record["exit_code"] == 0 and not exit_record["terminated"]
    return RunStatus(
        state=RunState.SUCCEEDED if succeeded else RunState.FAILED,
        exit_code=exit_record["exit_code"],
        reason=exit_record["reason"],
        limits=limits,
        out_of_memory=exit_record["out_of_memory"],
        terminated=exit_record["terminated"],
        started_at=started_at,
        ended_at=_time(exit_record["ended_at"]),
    )


def group_of(record: Record | None) -> Group:
    """Return the control group of a run, empty if it has none."""
    return Group(tuple(Path(path) for path in record["cgroups"])) if record else Group()


def process_of(record: Record | None, role: str) -> proctree.Process | None:
    """Return the run's ``wrapper`` or ``script``."""
    return proctree.Process(*record[role]) if record and record[role] else None


def read(path: Path) -> Record | None:
    """Return what a record holds, None if it is not there, or was lost in part with the machine's power."""
    try:
        record: Record = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return record


def _why_lost(run: Handle, record: dict[str, Any] | None) -> str:
    if not run.directory.is_dir():
        return f"its directory {run.directory} is gone"
    if run.record(wrapper.LAUNCH) is None:
        return "a later launch took its place"
    if record is None:
        return "it was never started"
    return "its processes are gone, killed from outside or with the machine, and nobody saw how it ended"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
