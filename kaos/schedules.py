"""The records of schedules in a store: what their runs came to, and which data they were told of.

The refs::

    workspaces/<workspace>/schedules/<name>     the ScheduleState; changes by compare-and-swap
    workspaces/<workspace>/ticks/<name>/<run>   the Pinned job of a run, by a digest of the run's id
    workspaces/<workspace>/told/data            the Told of the asset of the workspace's data

A schedule itself is in its `Definition`. A `Pinned` names a `JobDocument`, which is also the job's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from kaos.catalog import WorkspaceCatalog
from kaos.digest import digest_bytes
from kaos.errors import ConflictError
from kaos.job import Definition, Inputs, JobDocument, JobState
from kaos.store import change_ref
from kaos.value import Value

_KEPT = 50
"""Jobs of a schedule that its state names, the newest."""

_ATTEMPTS = 100


class Unless(StrEnum):
    """What keeps a run from becoming a job."""

    SUCCEEDED = "succeeded"
    """The same inputs were the last that it succeeded with."""

    PINNED = "pinned"
    """The same inputs were the last that it took, whatever became of them."""

    NEVER = "never"


class Pinned(Value):
    """A run that became a job.

    :param job: digest of the job's document
    :param inputs: digest of what it takes
    """

    run_id: str
    job_id: str
    job: str
    inputs: str


class Tick(Value):
    """What a run came to.

    :param job_id: of the job that it became, or None
    :param failed: there is no job because something was wrong; else because there was nothing to do
    :param reason: why there is no job
    """

    run_id: str
    at: datetime
    job_id: str | None = None
    failed: bool = False
    reason: str = ""


class ScheduleState(Value):
    """What a schedule remembers.

    :param pinned: its newest jobs, the oldest first; the last that succeeded is among them
    :param last: what its last run came to
    """

    pinned: tuple[Pinned, ...] = ()
    last: Tick | None = None


class Told(Value):
    """Which data the asset of a workspace's data has had an event for.

    :param manifest: digest of the manifest that it comes from, if from one
    :param data: digest of the data; None while nobody knows what a manifest gives
    :param by: the run that told, which tells again if it is repeated
    """

    manifest: str | None = None
    data: str | None = None
    by: str = ""

    @classmethod
    def of(cls, inputs: Inputs) -> Told:
        """Return what there is to tell of a workspace's inputs without asking any server."""
        return cls(
            manifest=inputs.manifest.digest if inputs.manifest else None,
            data=inputs.data.digest if inputs.data else None,
        )

    def same(self, other: Told) -> bool:
        """Tell whether both are of the same data, which both know."""
        return (self.manifest, self.data) == (other.manifest, other.data) and self.data is not None


def inputs_digest(document: JobDocument) -> str:
    """Return what tells the inputs of a job from others: code, data and hyperparameters."""
    pins = (document.source, document.data or document.manifest, document.params)
    return digest_bytes(json.dumps([pin.digest if pin else None for pin in pins]).encode())


class Schedules:
    """The schedules of one workspace."""

    def __init__(self, workspace: WorkspaceCatalog) -> None:
        self.workspace = workspace
        self.store = workspace.store
        self._at = f"workspaces/{workspace.workspace.name}"

    def definitions(self) -> list[Definition]:
        """Return the definitions that are schedules, by name."""
        found = self.workspace.definitions()
        return [each for each in found if each.schedule is not None and each.kind == "train"]

    def state(self, name: str) -> ScheduleState:
        """Return what a schedule remembers."""
        ref = self.store.refs.get(f"{self._at}/schedules/{name}")
        return ScheduleState.parse(ref.value) if ref else ScheduleState()

    def pinned(self, name: str, run_id: str) -> Pinned | None:
        """Return the job that a run became, or None."""
        ref = self.store.refs.get(self._tick(name, run_id))
        if ref is not None:
            return Pinned.parse(ref.value)
        found = next((each for each in self.state(name).pinned if each.run_id == run_id), None)
        if found is not None:  # its task was killed in between
            self._complete(name, found)
        return found

    def pin(self, name: str, document: JobDocument, unless: Unless, now: datetime) -> Tick:
        """Let a run become this job, once, unless nothing has changed; return what it came to.

        Whoever does the same for the same run, at the same time or later, gets the same job.
        """
        inputs = inputs_digest(document)
        job = Tick(run_id=document.run_id, at=now, job_id=document.job_id)

        def take(state: ScheduleState) -> ScheduleState:
            for each in state.pinned:
                if each.run_id == document.run_id:
                    return state
            same = self._same(state, inputs, unless)
            if same is not None:
                return state.model_copy(update={"last": _unchanged(job, same, unless)})
            digest = self.store.objects.put(document.encode())
            new = Pinned(run_id=document.run_id, job_id=document.job_id, job=digest, inputs=inputs)
            return ScheduleState(pinned=(*self._needed(state), new), last=job)

        before = self.pinned(name, document.run_id)
        if before is not None:
            return job.model_copy(update={"job_id": before.job_id})
        with self.store.uses.hold():
            state = self._change(name, take)
        found = self.pinned(name, document.run_id)
        if found is not None:
            return job.model_copy(update={"job_id": found.job_id})
        return state.last or job

    def note(self, name: str, tick: Tick) -> None:
        """Record a run that became no job."""
        self._change(name, lambda state: state.model_copy(update={"last": tick}))

    def forget(self, name: str) -> None:
        """Forget what a schedule remembers; its jobs, and which of its runs they were, stay."""
        self.store.refs.delete(f"{self._at}/schedules/{name}")

    # -- data --------------------------------------------------------------------------------------------

    def told(self) -> Told | None:
        """Return which data there was an event for, or None."""
        ref = self.store.refs.get(f"{self._at}/told/data")
        return Told.parse(ref.value) if ref else None

    def tell(self, told: Told | None) -> None:
        """Record which data there was an event for; None lets the next look tell of what it finds."""
        name = f"{self._at}/told/data"
        if told is None:
            self.store.refs.delete(name)
            return
        change_ref(self.store.refs, name, lambda _: told.encode())

    def _same(self, state: ScheduleState, inputs: str, unless: Unless) -> Pinned | None:
        """Return the job that keeps a run with these inputs from becoming one, or None."""
        if unless is Unless.NEVER or not state.pinned:
            return None
        found = state.pinned[-1] if unless is Unless.PINNED else self._last_success(state)
        return found if found is not None and found.inputs == inputs else None

    def _last_success(self, state: ScheduleState) -> Pinned | None:
        return next((each for each in reversed(state.pinned) if self._succeeded(each)), None)

    def _succeeded(self, pinned: Pinned) -> bool:
        outcome = self.workspace.outcome(pinned.job_id)
        return outcome is not None and outcome.state is JobState.SUCCESS

    def _needed(self, state: ScheduleState) -> tuple[Pinned, ...]:
        """Return the jobs that the next runs have to know of."""
        success = self._last_success(state)
        newest = state.pinned[1 - _KEPT :]
        return newest if success is None or success in newest else (success, *newest[1:])

    def _complete(self, name: str, pinned: Pinned) -> None:
        """Let the job and its run be found."""
        self.store.refs.create(f"{self._at}/jobs/{pinned.job_id}", pinned.job.encode())
        self.store.refs.create(self._tick(name, pinned.run_id), pinned.encode())

    def _tick(self, name: str, run_id: str) -> str:
        return f"{self._at}/ticks/{name}/{digest_bytes(run_id.encode())[:32]}"

    def _change(self, name: str, change: Callable[[ScheduleState], ScheduleState]) -> ScheduleState:
        ref_name = f"{self._at}/schedules/{name}"
        for _ in range(_ATTEMPTS):
            ref = self.store.refs.get(ref_name)
            before = ScheduleState.parse(ref.value) if ref else ScheduleState()
            after = change(before)
            if after == before:
                return before
            try:
                self.store.refs.set(ref_name, after.encode(), ref.version if ref else None)
            except ConflictError:
                continue
            return after
        raise ConflictError(f"The schedule {name} is changed by too many at once.", "Try again.")


def _unchanged(tick: Tick, same: Pinned, unless: Unless) -> Tick:
    how = ", which succeeded" if unless is Unless.SUCCEEDED else ""
    reason = f"Nothing has changed since job {same.job_id}{how}."
    return tick.model_copy(update={"job_id": None, "reason": reason})
