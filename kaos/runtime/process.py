"""The process runtime: user code as processes of this machine, as the user of the server, within limits where it can.

Its records are files in the run's directory; nothing is kept in memory, so any process can take over at any time::

    launch.json      what to run, written by `launch`; the key in it names this one launch
    process.json     which processes it is, written by the wrapper before the script begins
    exit.json        how it ended
    terminate.json   the wish for its end
    run.log          what the script printed, and nothing else
    wrapper.log      what went wrong in the wrapper itself
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kaos
from kaos.errors import ConflictError, KaosError
from kaos.resources import show_memory
from kaos.runtime import proctree, wrapper
from kaos.runtime.base import RunSpec, RunState, RunStatus, Runtime
from kaos.runtime.cgroup import Group
from kaos.runtime.userenv import INSTANCE, user_environment
from kaos.value import Value

_CHUNK_BYTES = 1 << 20
_POLL_SECONDS = 0.01


class _Handle(Value):
    runtime: str = "process"
    directory: Path
    key: str


class ProcessRuntime(Runtime):
    """Run user code as processes of this machine. Linux only; without state of its own."""

    def launch(self, spec: RunSpec) -> str:
        """Start a run and return its handle; of a run that is alive, return the handle and start nothing.

        :raises ConflictError: another run, still alive, has the directory
        """
        directory = spec.directory.absolute()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(directory / "lock") as lock:
            before = _read(directory / wrapper.LAUNCH)
            if before is not None:
                handle = _Handle(directory=directory, key=before["key"])
                if _observe(handle).state is RunState.RUNNING:
                    if before["run_id"] != spec.run_id:
                        raise ConflictError(
                            f"Run {before['run_id']} is still alive in the directory of {spec.run_id}."
                        )
                    return handle.encode().decode()
                _sweep(handle)
            handle = _Handle(directory=directory, key=uuid.uuid4().hex)
            _prepare(spec, handle)
            _start(handle, lock)
        return handle.encode().decode()

    def observe(self, handle: str) -> RunStatus:
        """Return how the run is now; `lost` if its processes are gone and nobody kept its end."""
        return _observe(_Handle.parse(handle))

    def logs(self, handle: str, offset: int = 0) -> tuple[bytes, int]:
        """Return what the script printed since ``offset`` bytes, at most 1 MiB, and the next offset."""
        try:
            with (_Handle.parse(handle).directory / wrapper.LOG).open("rb") as file:
                file.seek(offset)
                chunk = file.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return b"", offset
        return chunk, offset + len(chunk)

    def terminate(self, handle: str, grace_seconds: float = wrapper.GRACE_SECONDS) -> None:
        """End the run with all that it started: SIGTERM, up to ``grace_seconds``, SIGKILL."""
        run = _Handle.parse(handle)
        if _observe(run).state is RunState.RUNNING:
            wrapper.write(run.directory / wrapper.TERMINATE, {"grace_seconds": grace_seconds})
            record = _record(run)
            keeper = _process(record, "wrapper")
            if keeper is not None and keeper.alive:
                proctree.send([keeper.pid], signal.SIGTERM)
                _until(lambda: not keeper.alive, grace_seconds + 1.0)
            else:
                proctree.send(_find(run, record), signal.SIGTERM)
                _until(lambda: not _find(run, record), grace_seconds)
        _sweep(run)


def _prepare(spec: RunSpec, handle: _Handle) -> None:
    directory = handle.directory
    for name in (wrapper.PROCESS, wrapper.EXIT, wrapper.TERMINATE, wrapper.LOG):
        (directory / name).unlink(missing_ok=True)
    (directory / "home").mkdir(exist_ok=True, mode=0o700)
    spec.output.mkdir(parents=True, exist_ok=True)
    for name in spec.executables:
        path = spec.program / name
        path.chmod(path.stat().st_mode | 0o111)
    # Not below the run's directory: sockets are made in it, and their paths must stay under 108 characters.
    scratch = Path(tempfile.mkdtemp(prefix="kaos-"))
    memory = spec.resources.memory
    order = {
        "key": handle.key,
        "run_id": spec.run_id,
        "labels": dict(spec.labels),
        "program": str(spec.program.absolute()),
        "command": list(spec.command) or ["./train", str(spec.output)],
        "env": user_environment(spec, handle.key, scratch, os.environ),
        "scratch": str(scratch),
        "cpu": spec.resources.cpu,
        "memory": memory,
        "memory_shown": "" if memory is None else show_memory(memory),
    }
    wrapper.write(directory / wrapper.LAUNCH, order)
    (directory / wrapper.LAUNCH).chmod(0o600)


def _start(handle: _Handle, lock: int) -> None:
    directory = handle.directory
    environment = {"PYTHONPATH": str(Path(kaos.__file__).parent.parent), "LANG": "C.UTF-8"}
    if INSTANCE in os.environ:
        environment[INSTANCE] = os.environ[INSTANCE]
    with (directory / "wrapper.log").open("wb") as errors:
        # -S: without site-packages it starts in half the time, and it needs none of them.
        done = subprocess.run(
            [sys.executable, "-P", "-S", "-m", "kaos.runtime.wrapper", str(directory), str(lock)],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[lock],
            start_new_session=True,
            check=False,
        )
    if done.returncode:
        said = (directory / "wrapper.log").read_text(errors="replace").strip()
        raise KaosError(
            f"The run could not be started: {said.splitlines()[-1] if said else 'no reason given'}."
        )


def _observe(run: _Handle) -> RunStatus:
    record = _record(run)
    exit_record = _of(run, wrapper.EXIT)
    if exit_record is None and record is not None:
        processes = (_process(record, "wrapper"), _process(record, "script"))
        if any(process is not None and process.alive for process in processes):
            return RunStatus(
                state=RunState.RUNNING, limits=record["limits"], started_at=_time(record["started_at"])
            )
        # It may have ended between the two looks.
        exit_record = _of(run, wrapper.EXIT)
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


def _why_lost(run: _Handle, record: dict[str, Any] | None) -> str:
    if not run.directory.is_dir():
        return f"its directory {run.directory} is gone"
    if _of(run, wrapper.LAUNCH) is None:
        return "a later launch took its place"
    if record is None:
        return "it was never started"
    return "its processes are gone, killed from outside or with the machine, and nobody saw how it ended"


def _sweep(run: _Handle) -> None:
    """Leave nothing of a run that has ended or has to end: no process, no control group, no temporary file."""
    order, record = _of(run, wrapper.LAUNCH), _record(run)
    if order is None:
        return
    group = _group(record)
    keeper = _process(record, "wrapper")
    if keeper is not None and keeper.alive and _of(run, wrapper.EXIT) is None:
        proctree.send([keeper.pid], signal.SIGKILL)
    group.kill()
    proctree.kill_all(lambda: _find(run, record))
    group.remove()
    wrapper.remove_scratch(Path(order["scratch"]))
    if _of(run, wrapper.EXIT) is None and (run.directory / wrapper.TERMINATE).exists():
        end = {
            "key": run.key,
            "exit_code": 128 + signal.SIGKILL,
            "reason": "terminated",
            "out_of_memory": False,
        }
        wrapper.write(run.directory / wrapper.EXIT, end | {"terminated": True, "ended_at": time.time()})


def _find(run: _Handle, record: dict[str, Any] | None) -> set[int]:
    found = _group(record).pids() | proctree.marked(run.key)
    script = _process(record, "script")
    if script is not None and script.alive:
        found |= {script.pid} | proctree.descendants(script.pid)
    return found


def _group(record: dict[str, Any] | None) -> Group:
    return Group(tuple(Path(path) for path in record["cgroups"])) if record else Group()


def _process(record: dict[str, Any] | None, role: str) -> proctree.Process | None:
    return proctree.Process(*record[role]) if record and record[role] else None


def _record(run: _Handle) -> dict[str, Any] | None:
    return _of(run, wrapper.PROCESS)


def _of(run: _Handle, name: str) -> dict[str, Any] | None:
    """Return a record of this launch; one that a later launch wrote in its place is not it."""
    record = _read(run.directory / name)
    return record if record is not None and record["key"] == run.key else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return record


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _until(done: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
