"""The process runtime: user code as processes of this machine, as the user of the server.

Its records are files in the run's directory, none are in memory: any process can take over at any time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import kaos
from kaos.errors import ConflictError, KaosError
from kaos.resources import show_memory
from kaos.runtime import proctree, spawn, wrapper
from kaos.runtime.base import Environment, RunSpec, RunState, RunStatus, Runtime
from kaos.runtime.exclusive import locked
from kaos.runtime.records import Handle, Record, group_of, observe, process_of, read
from kaos.runtime.userenv import INSTANCE, user_environment

_CHUNK_BYTES = 1 << 20
_POLL_SECONDS = 0.01


class ProcessRuntime(Runtime):
    """Run user code as processes of this machine. Linux only; without state of its own."""

    def launch(self, spec: RunSpec) -> str:
        """Start a run and return its handle; of a run that is alive, return the handle and start nothing.

        :raises ConflictError: another run, still alive, has the directory
        """
        directory = spec.directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(directory / "lock") as lock:
            before = read(directory / wrapper.LAUNCH)
            if before is not None:
                handle = Handle(directory=directory, key=before["key"])
                if observe(handle).state is RunState.RUNNING:
                    if before["run_id"] != spec.run_id:
                        raise ConflictError(
                            f"Run {before['run_id']} is still alive in the directory of {spec.run_id}."
                        )
                    return handle.encode().decode()
                _sweep(handle)
            handle = Handle(directory=directory, key=uuid.uuid4().hex)
            _prepare(spec, handle)
            _start(handle, lock)
        return handle.encode().decode()

    def find(self, directory: Path) -> str | None:
        """Return the handle of the run that was last launched in a directory, or None."""
        order = read(directory / wrapper.LAUNCH)
        return Handle(directory=directory, key=order["key"]).encode().decode() if order else None

    def observe(self, handle: str) -> RunStatus:
        """Return how the run is now; `lost` if its processes are gone and nobody kept its end."""
        return observe(Handle.parse(handle))

    def logs(self, handle: str, offset: int = 0) -> tuple[bytes, int]:
        """Return what the script printed since ``offset`` bytes, at most 1 MiB, and the next offset."""
        try:
            with (Handle.parse(handle).directory / wrapper.LOG).open("rb") as file:
                file.seek(offset)
                chunk = file.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return b"", offset
        return chunk, offset + len(chunk)

    def terminate(self, handle: str, grace_seconds: float = wrapper.GRACE_SECONDS) -> None:
        """End the run with all that it started: SIGTERM, up to ``grace_seconds``, SIGKILL."""
        run = Handle.parse(handle)
        if observe(run).state is RunState.RUNNING:
            wrapper.write(run.directory / wrapper.TERMINATE, {"grace_seconds": grace_seconds})
            record = run.record(wrapper.PROCESS)
            keeper = process_of(record, "wrapper")
            if keeper is not None and keeper.alive:
                proctree.send([keeper.pid], signal.SIGTERM)
                _until(lambda: not keeper.alive, grace_seconds + 1.0)
            else:
                proctree.send(_find(run, record), signal.SIGTERM)
                _until(lambda: not _find(run, record), grace_seconds)
        _sweep(run)


def _prepare(spec: RunSpec, handle: Handle) -> None:
    program, environment, directory = spec.program, spec.environment, handle.directory
    if program is None or not isinstance(environment, Environment):
        raise KaosError("The process runtime runs code that is laid out, in an environment on this machine.")
    for name in (wrapper.PROCESS, wrapper.EXIT, wrapper.TERMINATE, wrapper.LOG):
        (directory / name).unlink(missing_ok=True)
    (directory / "home").mkdir(exist_ok=True, mode=0o700)
    spec.output.mkdir(parents=True, exist_ok=True)
    for name in spec.executables:
        path = program / name
        path.chmod(path.stat().st_mode | 0o111)
    # Not below the run's directory: sockets are made in it, and their paths must stay under 108 characters.
    scratch = Path(tempfile.mkdtemp(prefix="kaos-"))
    memory = spec.resources.memory
    order = {
        "key": handle.key,
        "run_id": spec.run_id,
        "labels": dict(spec.labels),
        "program": str(program),
        "command": list(spec.command) or ["./train", str(spec.output)],
        "env": user_environment(spec, environment, program, handle.key, scratch, os.environ),
        "scratch": str(scratch),
        "cpu": spec.resources.cpu,
        "memory": memory,
        "memory_shown": "" if memory is None else show_memory(memory),
    }
    wrapper.write(directory / wrapper.LAUNCH, order)
    (directory / wrapper.LAUNCH).chmod(0o600)


def many_runs() -> AbstractContextManager[None]:
    """Make the launches of this process cheaper, as long as the context lasts."""
    return spawn.many_runs(_wrapper_environment())


def _wrapper_environment() -> dict[str, str]:
    environment = {"PYTHONPATH": str(Path(kaos.__file__).parent.parent), "LANG": "C.UTF-8"}
    if INSTANCE in os.environ:
        environment[INSTANCE] = os.environ[INSTANCE]
    return environment


def _start(handle: Handle, lock: int) -> None:
    directory = handle.directory
    spawner = spawn.current()
    code = spawner.start(directory, lock) if spawner else None
    # A spawner that was killed may have started the run before.
    if code is None and not (directory / wrapper.PROCESS).exists():
        code = _start_alone(directory, lock)
    if code:
        said = (directory / wrapper.ERRORS).read_text(errors="replace").strip()
        raise KaosError(
            f"The run could not be started: {said.splitlines()[-1] if said else 'no reason given'}."
        )


def _start_alone(directory: Path, lock: int) -> int:
    with (directory / wrapper.ERRORS).open("wb") as errors:
        done = subprocess.run(
            spawn.command(directory, lock),
            env=_wrapper_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[lock],
            start_new_session=True,
            check=False,
        )
    return done.returncode


def _sweep(run: Handle) -> None:
    """Leave nothing of a run that has ended or must end: no process, control group or temporary file."""
    order, record = run.record(wrapper.LAUNCH), run.record(wrapper.PROCESS)
    if order is None:
        return
    group = group_of(record)
    keeper = process_of(record, "wrapper")
    if keeper is not None and keeper.alive and run.record(wrapper.EXIT) is None:
        proctree.send([keeper.pid], signal.SIGKILL)
    group.kill()
    proctree.kill_all(lambda: _find(run, record))
    group.remove()
    wrapper.remove_scratch(Path(order["scratch"]))
    if run.record(wrapper.EXIT) is None and (run.directory / wrapper.TERMINATE).exists():
        end = {
            "key": run.key,
            "exit_code": 128 + signal.SIGKILL,
            "reason": "terminated",
            "out_of_memory": False,
        }
        wrapper.write(run.directory / wrapper.EXIT, end | {"terminated": True, "ended_at": time.time()})


def _find(run: Handle, record: Record | None) -> set[int]:
    found = group_of(record).pids() | proctree.marked(run.key)
    script = process_of(record, "script")
    if script is not None and script.alive:
        found |= {script.pid} | proctree.descendants(script.pid)
    return found


def _until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
