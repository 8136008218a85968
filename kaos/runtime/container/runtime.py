"""The container runtime: a run is a container of podman or docker, found by its name and labels.

Its records are files in the run's directory, none are in memory: any process can take over at any time.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from kaos.errors import ConflictError, ContainerEngineError, KaosError
from kaos.lineage import ImageRecord
from kaos.resources import Resources, show_memory
from kaos.runtime.base import RunSpec, RunState, RunStatus, Runtime
from kaos.runtime.container import contract, logs, records
from kaos.runtime.container.engine import (
    NO_NETWORK,
    OUT_OF_MEMORY,
    Container,
    ContainerEngine,
    ContainerState,
    Mount,
    engine_named,
    find_engine,
)
from kaos.runtime.container.records import Handle
from kaos.runtime.container.script import interpreter, trouble
from kaos.runtime.exclusive import locked
from kaos.runtime.records import Record, read
from kaos.runtime.userenv import INSTANCE

LABEL = "kaos"
"""What every label of ours begins with."""

GRACE_SECONDS = 1.0

_POLL_SECONDS = 0.02
_KILL_SECONDS = 10
_SECONDS_OF_TROUBLE = 20
# What catatonit (podman) and tini (docker) say when they cannot start the script.
_NO_EXEC = re.compile(r"(?:failed to exec pid1|exec \S+ failed): (?P<why>.+)$")


class ContainerRuntime(Runtime):
    """Run user code in containers of this machine's engine; without state of its own.

    :param engine: that makes new containers, None for the one that is there; those of another engine are
        found by their handles all the same
    :param network: name of the network of runs that may use one, empty for the engine's default
    :param user: ``UID[:GID]`` for images that ask for no user; empty for root in the container, which without
        a daemon of root's is an ordinary user of the machine
    :param patience: seconds that an engine which does not answer is given, before that is an error
    """

    name: ClassVar[str] = "container"

    def __init__(
        self,
        engine: ContainerEngine | None = None,
        *,
        network: str = "",
        user: str = "",
        patience: float = _SECONDS_OF_TROUBLE,
    ) -> None:
        self._engine = engine
        self.network = network
        self.user = user
        self.patience = patience

    @property
    def engine(self) -> ContainerEngine:
        """Return the engine that makes new containers.

        :raises ContainerEngineError: there is none
        """
        if self._engine is None:
            self._engine = find_engine()
        return self._engine

    def launch(self, spec: RunSpec) -> str:
        """Start a run and return its handle; of a run that is alive, return the handle and start nothing.

        :raises ConflictError: another run, still alive, has the directory
        :raises ContainerEngineError: the engine cannot make or start the container
        """
        image = spec.environment
        if not isinstance(image, ImageRecord):
            raise KaosError("The container runtime runs images.")
        return self.start(
            spec.directory, spec.run_id, image.train, lambda run: self.container(spec, image, run)
        )

    def start(self, directory: Path, run_id: str, script: str, make: Callable[[Handle], Container]) -> str:
        """Start a container and return its handle; one that is alive in the directory is left alone.

        :param directory: for the records and the log
        :param script: what it runs, if that is a file of the image: to say why it could not be started
        :param make: returns the container of a launch
        :raises ConflictError: another run, still alive, has the directory
        :raises ContainerEngineError: the engine cannot make or start the container
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(directory / records.LOCK):
            before = self.find(directory)
            if before is not None:
                if self.observe(before).state is RunState.RUNNING:
                    there = (read(directory / records.LAUNCH) or {}).get("run_id")
                    if there != run_id:
                        raise ConflictError(f"Run {there} is still alive in the directory of {run_id}.")
                    return before
                old = Handle.parse(before)
                engine_named(old.engine).remove(old.container)
            run = Handle(engine=self.engine.name, directory=directory, key=uuid.uuid4().hex)
            self._start(run, run_id, script, make)
        return run.encode().decode()

    def find(self, directory: Path) -> str | None:
        """Return the handle of the run that was last launched in a directory, or None."""
        order = read(directory / records.LAUNCH)
        if order is None:
            return None
        return Handle(engine=order["engine"], directory=directory, key=order["key"]).encode().decode()

    def observe(self, handle: str) -> RunStatus:
        """Return how the run is now; `lost` if its container is gone and nobody kept its end."""
        run = Handle.parse(handle)
        ended = run.record(records.EXIT)
        if ended is not None:
            return RunStatus.model_validate(ended["status"])
        order, container = run.record(records.LAUNCH), run.record(records.CONTAINER)
        if order is None:
            gone = not run.directory.is_dir()
            why = f"its directory {run.directory} is gone" if gone else "a later launch took its place"
            return RunStatus(state=RunState.LOST, reason=why)
        if records.alive(container) and container is not None:
            return RunStatus(
                state=RunState.RUNNING,
                limits=order["limits"],
                started_at=records.moment(container["started_at"]),
            )
        return self._ask(run, order)

    def logs(self, handle: str, offset: int = 0) -> tuple[bytes, int]:
        """Return what the script printed since ``offset`` (0, or what an earlier call returned)."""
        run = Handle.parse(handle)
        return logs.read_log(engine_named(run.engine), run, offset)

    def terminate(self, handle: str, grace_seconds: float = GRACE_SECONDS) -> None:
        """End the run with all that it started, and remove its container: SIGTERM, the grace, SIGKILL."""
        run = Handle.parse(handle)
        engine = engine_named(run.engine)
        if self.observe(handle).state is RunState.RUNNING:
            run.write(records.TERMINATE, grace_seconds=grace_seconds)
            for signal, seconds in (("TERM", grace_seconds), ("KILL", _KILL_SECONDS)):
                engine.signal(run.container, signal)
                if self._wait(handle, seconds):
                    break
        engine.remove(run.container)
        self.observe(handle)  # which keeps its end, if nothing else did

    def _wait(self, handle: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.observe(handle).state is RunState.RUNNING:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _start(self, run: Handle, run_id: str, script: str, make: Callable[[Handle], Container]) -> None:
        for name in (records.CONTAINER, records.EXIT, records.TERMINATE, records.LOG, OUT_OF_MEMORY):
            (run.directory / name).unlink(missing_ok=True)
        container = make(run)
        memory, limits = container.resources.memory, _limits(self.engine, container.resources)
        run.write(
            records.LAUNCH,
            runtime=run.runtime,
            run_id=run_id,
            engine=run.engine,
            labels=dict(container.labels),
            script=script,
            memory="" if memory is None or not self.engine.limits else show_memory(memory),
            limits=limits,
        )
        try:
            # In two steps: if we are killed between them, what was made never runs, and the next launch
            # removes it.
            self.engine.create(container)
            self.engine.start(run.container, run.directory)
        except ContainerEngineError as error:
            self._keep(
                run, RunStatus(state=RunState.FAILED, exit_code=125, reason=error.message, limits=limits)
            )
            self.engine.remove(run.container)
            raise
        self._note(run, self.engine.inspect(run.container))
        logs.keep(self.engine, run)

    def container(self, spec: RunSpec, image: ImageRecord, run: Handle) -> Container:
        """Return the container that a run is; makes the directories that it sees."""
        spec.output.mkdir(parents=True, exist_ok=True)
        return self.dressed(
            run,
            image,
            Container(
                name=run.container,
                image=image.id,
                command=contract.command(spec, image),
                variables=contract.variables(spec, image, run.key, os.environ),
                mounts=tuple(contract.mounts(spec)),
                workdir=contract.PROGRAM if spec.program is not None else workdir(image, image.train),
                labels={"run": spec.run_id, "job": spec.job_id, **spec.labels},
                resources=spec.resources,
                network=self.network if spec.network else NO_NETWORK,
            ),
        )

    def dressed(self, run: Handle, image: ImageRecord, container: Container) -> Container:
        """Return a container with what all of ours have: user, labels, and a log that can be read back.

        :param container: with labels that do not begin with ``kaos.`` yet
        """
        user, namespace = self._who(image)
        if user is not None or image.user:
            _let_in(container.mounts)
        labels = {**container.labels, "key": run.key}
        if INSTANCE in os.environ:
            labels["instance"] = os.environ[INSTANCE]
        variables = dict(container.variables)
        if user is not None and "HOME" not in image.variables:
            variables.setdefault("HOME", "/tmp")  # noqa: S108  of the container
        return container.model_copy(
            update={
                "user": user,
                "user_namespace": namespace,
                "labels": {f"{LABEL}.{name}": value for name, value in labels.items()},
                "variables": variables,
                "log": logs.log_file(self.engine, run.directory),
            }
        )

    def _who(self, image: ImageRecord) -> tuple[str | None, str]:
        """Return the user in the container, None for the image's, and podman's user namespace."""
        if self.engine.rootless:
            # Whoever the script is in its container, on the machine it is us: we can read what it writes.
            user, _, group = image.user.partition(":")
            if not user or user in ("0", "root"):
                return None, ""
            numbers = user.isdigit() and (not group or group.isdigit())
            return None, f"keep-id:uid={user},gid={group or user}" if numbers else "keep-id"
        if os.geteuid() != 0:
            # The daemon is root's, we are not: nor is the script then.
            return f"{os.geteuid()}:{os.getegid()}", ""
        return (self.user or None) if not image.user else None, ""

    def _ask(self, run: Handle, order: Record) -> RunStatus:
        """Return how the run is from its container; keep its end and remove it, if it has ended."""
        engine = engine_named(run.engine)
        state = _patiently(engine, run.container, self.patience)
        if state is None or not (state.running or state.ended):
            # Removed by another observer, who kept its end before; or by hand; or never started.
            ended = run.record(records.EXIT)
            if ended is not None:
                return RunStatus.model_validate(ended["status"])
            if run.record(records.TERMINATE) is not None:
                status = RunStatus(
                    state=RunState.FAILED,
                    exit_code=137,
                    reason="terminated",
                    limits=order["limits"],
                    terminated=True,
                )
                return self._keep(run, status)
            why = (
                "its container was removed from outside"
                if state is None
                else "its container was never started"
            )
            return RunStatus(state=RunState.LOST, reason=why, limits=order["limits"])
        if state.running:
            self._note(run, state)
            logs.keep(engine, run)
            return RunStatus(state=RunState.RUNNING, limits=order["limits"], started_at=state.started_at)
        logs.complete(engine, run)
        status = self._keep(run, self._ended(run, order, state))
        engine.remove(run.container)
        return status

    def _keep(self, run: Handle, status: RunStatus) -> RunStatus:
        run.write(records.EXIT, status=status.model_dump(mode="json"))
        return status

    def _ended(self, run: Handle, order: Record, state: ContainerState) -> RunStatus:
        code, terminated = state.exit_code, run.record(records.TERMINATE) is not None
        memory = code != 0 and (state.out_of_memory or (run.directory / OUT_OF_MEMORY).exists())
        # With control groups of version 1 podman does not always see it: but nobody else sends SIGKILL, for
        # what kaos ends is recorded as terminated.
        memory = memory or (code == 137 and bool(order["memory"]) and not terminated)
        reason = records.describe(code, f"out of memory: limit {order['memory'] or 'none'}" if memory else "")
        if code in (1, 126, 127):
            code, reason = self._never_began(run, order, code, reason)
        if code and (said := contract.failure(run.directory)):
            reason = f"{reason}: {said}"
        if terminated:
            reason = f"terminated ({reason})" if reason else "terminated"
        return RunStatus(
            state=RunState.SUCCEEDED if code == 0 and not terminated else RunState.FAILED,
            exit_code=code,
            reason=reason,
            limits=order["limits"],
            out_of_memory=memory,
            terminated=terminated,
            started_at=state.started_at,
            ended_at=state.ended_at,
        )

    def _never_began(self, run: Handle, order: Record, code: int, reason: str) -> tuple[int, str]:
        """Return the exit code and the reason of a script that could not be started."""
        content, _ = logs.read_log(engine_named(run.engine), run, 0)
        match = _NO_EXEC.search(content.decode(errors="replace").strip()[-1000:])
        path = order["script"]
        if match is None or not path:
            return code, reason
        engine = engine_named(run.engine)
        found = trouble(engine, run.container, path)
        if found is not None:
            return found
        first = interpreter(engine, run.container, path)
        return 127, f"./{path.rpartition('/')[2]} wants an interpreter that is not there: {first}"

    def _note(self, run: Handle, state: ContainerState | None) -> None:
        """Write down the container's process, if it is one of this machine."""
        process = records.process_of(state.pid, state.id) if state is not None and state.running else None
        if state is not None and process is not None:
            started = state.started_at.isoformat() if state.started_at else None
            run.write(records.CONTAINER, id=state.id, process=list(process), started_at=started)


def _patiently(engine: ContainerEngine, container: str, seconds: float) -> ContainerState | None:
    """Return how a container is; a daemon that starts anew is given time to answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return engine.inspect(container)
        except ContainerEngineError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _limits(engine: ContainerEngine, resources: Resources) -> str:
    words = []
    by = f"by {engine.name}" if engine.limits else f"not limited: {engine.name} without root needs cgroup v2"
    if resources.memory is not None:
        words.append(f"memory {show_memory(resources.memory)} {by}")
    if resources.cpu is not None:
        words.append(f"cpu {resources.cpu:g} {by}")
    return ", ".join(words) or "none asked for"


def workdir(image: ImageRecord, script: str) -> str | None:
    """Return where a script of an image runs, None for the image's own working directory."""
    folder = script.rpartition("/")[0]
    # A script may read the files beside it by their names alone.
    return folder if folder and folder != image.workdir else None


def _let_in(mounts: Iterable[Mount]) -> None:
    """Let a user who is not us use what is mounted: the directories above stay ours alone."""
    for mount in mounts:
        for path in (mount.source, *(path for path in mount.source.rglob("*") if path.is_dir())):
            if path.is_symlink():
                continue
            wanted = (0o777 if mount.writable else 0o755) if path.is_dir() else 0o644
            if path.stat().st_mode & 0o777 | wanted != path.stat().st_mode & 0o777:
                path.chmod(wanted)
