"""Jobs: what they are to run on, and how they ended."""

from __future__ import annotations

from kaos.catalog.bundles import Bundles
from kaos.catalog.manifests import Manifests
from kaos.digest import SHORT, matching
from kaos.errors import RemovedError, UnknownNameError
from kaos.job import Inputs, JobDocument, JobOutcome, ParametersPin
from kaos.parameters import Space


class Jobs(Bundles, Manifests):
    """The current inputs and the jobs of one workspace."""

    def inputs(self) -> Inputs:
        """Return the current inputs."""
        ref = self.store.refs.get(f"{self._at}/inputs")
        return Inputs.parse(ref.value) if ref else Inputs()

    def merge_inputs(self, new: Inputs, *, drop_params: bool = False) -> Inputs:
        """Put `new` into the current inputs in one step, and return what then was current.

        :param drop_params: have no hyperparameters afterwards
        """

        def merge(old: bytes | None) -> bytes:
            merged = (Inputs.parse(old) if old else Inputs()).merge(new)
            return (merged.without_params() if drop_params else merged).encode()

        return Inputs.parse(self._swap(f"{self._at}/inputs", merge))

    def add_space(self, space: Space) -> str:
        """Store hyperparameters and return their digest."""
        return self.store.objects.put(space.canonical)

    def space(self, pin: ParametersPin | None) -> Space | None:
        """Return the hyperparameters that a job names, or None if it has none."""
        return Space.parse(self.store.objects.get(pin.digest)) if pin else None

    def add_job(self, document: JobDocument) -> str:
        """Record a job before it starts, and return the digest of its document.

        :raises RemovedError: retention has removed what it should run on; nothing was recorded
        """
        name = f"{self._at}/jobs/{document.job_id}"
        with self.store.uses.hold():
            digest = self.store.objects.put(document.encode())
            self.store.refs.set(name, digest.encode(), None)
            try:
                for pin in (document.source, document.data):
                    if pin is not None:
                        self.use_tree(pin.digest)
            except RemovedError:
                self.store.refs.delete(name)
                raise
        return digest

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs, the oldest first."""
        return [name.rpartition("/")[2] for name in self.store.refs.names(f"{self._at}/jobs")]

    def job(self, job_id: str) -> tuple[JobDocument, str]:
        """Return a job's document, with its data where that came by a manifest, and the document's digest.

        :param job_id: the whole id, or a beginning that only one job has
        :raises UnknownNameError: there is no such job, or several
        """
        ids = (
            [job_id]
            if len(job_id) == 32
            else matching(job_id, self.job_ids())
            if len(job_id) >= SHORT
            else []
        )
        ref = self.store.refs.get(f"{self._at}/jobs/{ids[0]}") if len(ids) == 1 and ids[0] else None
        if ref is None:
            raise UnknownNameError("job", job_id, self.job_ids(), "See kaos train list.")
        digest = ref.value.decode()
        return self.with_data(JobDocument.parse(self.store.objects.get(digest))), digest

    def set_outcome(self, outcome: JobOutcome) -> JobOutcome:
        """Record how a job ended, once: the first outcome stays, and is returned."""
        name = f"{self._at}/outcomes/{outcome.job_id}"
        if self.store.refs.create(name, outcome.encode()):
            return outcome
        return self.outcome(outcome.job_id) or outcome

    def outcome(self, job_id: str) -> JobOutcome | None:
        """Return how a job ended, or None."""
        ref = self.store.refs.get(f"{self._at}/outcomes/{job_id}")
        return JobOutcome.parse(ref.value) if ref else None
