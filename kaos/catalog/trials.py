"""Trials: how they go, how they ended, and what was made of the same before."""

from __future__ import annotations

from kaos.catalog.records import Records
from kaos.curves import LiveTrial
from kaos.lineage import TrialRecord
from kaos.value import Value


class Made(Value):
    """A trial that succeeded, and the job it was part of."""

    job_id: str
    record: TrialRecord


class Trials(Records):
    """The trials of the jobs of one workspace."""

    def set_trial(self, job_id: str, record: TrialRecord) -> None:
        """Record how a trial ended; a later try takes the place of an earlier one."""
        self._swap(f"{self._at}/trials/{job_id}/{record.index:06d}", lambda _: record.encode())

    def trial(self, job_id: str, index: int) -> TrialRecord | None:
        """Return the record of a trial that has ended, or None."""
        ref = self.store.refs.get(f"{self._at}/trials/{job_id}/{index:06d}")
        return TrialRecord.parse(ref.value) if ref else None

    def remember_trial(self, key: str, job_id: str, record: TrialRecord) -> None:
        """Keep a trial's record under what it was made of, for jobs that take models over."""
        self.store.refs.create(f"{self._at}/memo/{key}", Made(job_id=job_id, record=record).encode())

    def made(self, key: str) -> Made | None:
        """Return the trial that was made of this, or None."""
        ref = self.store.refs.get(f"{self._at}/memo/{key}")
        return Made.parse(ref.value) if ref else None

    def add_failure(self, job_id: str, index: int) -> int:
        """Count a trial as failed, and return how many of the job are."""
        self.store.refs.create(f"{self._at}/failures/{job_id}/{index:06d}", b"")
        return self.failures(job_id)

    def failures(self, job_id: str) -> int:
        """Return how many trials of a job have failed."""
        return sum(1 for _ in self.store.refs.names(f"{self._at}/failures/{job_id}"))

    def trials(self, job_id: str) -> list[TrialRecord]:
        """Return the records of a job's trials that have ended, by index."""
        return [TrialRecord.parse(value) for _, value in self._values(f"trials/{job_id}")]

    def set_live(self, job_id: str, trial: LiveTrial) -> None:
        """Record the newest metrics of a trial that runs."""
        self._swap(f"{self._at}/live/{job_id}/{trial.index:06d}", lambda _: trial.encode())

    def live(self, job_id: str) -> list[LiveTrial]:
        """Return the newest metrics of the job's trials that run, or ran when their worker was lost."""
        return [LiveTrial.parse(value) for _, value in self._values(f"live/{job_id}")]

    def live_trial(self, job_id: str, index: int) -> LiveTrial | None:
        """Return the newest metrics of one of them, or None."""
        ref = self.store.refs.get(f"{self._at}/live/{job_id}/{index:06d}")
        return LiveTrial.parse(ref.value) if ref else None

    def drop_live(self, job_id: str, index: int | None = None) -> None:
        """Forget the newest metrics of a trial that has ended, or those of all of a job's."""
        names = [f"{self._at}/live/{job_id}/{index:06d}"] if index is not None else None
        for name in names or list(self.store.refs.names(f"{self._at}/live/{job_id}")):
            self.store.refs.delete(name)
