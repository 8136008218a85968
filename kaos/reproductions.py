"""The records of models that were made again, in a store.

The refs, below ``workspaces/<workspace>/``::

    reproductions/<model_id>/<job_id>  digest of the Reproduction, an object in the store
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from kaos.catalog import WorkspaceCatalog
from kaos.errors import InvalidInputError, UnknownNameError
from kaos.job import JobDocument, Reproduces
from kaos.model import ModelRecord
from kaos.reproduction import (
    Reproduction,
    Verdict,
    compare_environments,
    compare_files,
    compare_metrics,
    judge,
    listed,
)
from kaos.store.base import naming


class Reproductions:
    """The models of one workspace that were made again."""

    def __init__(self, workspace: WorkspaceCatalog) -> None:
        self.workspace = workspace
        self.store = workspace.store
        self._at = f"workspaces/{workspace.workspace.name}"

    def original(self, model_id: str, job_id: str | None = None) -> tuple[ModelRecord, str]:
        """Return the record of a trained model, and its digest.

        :param job_id: of the job that made it, or its beginning; None for the first one that did
        :raises UnknownNameError: there is no such model, or that job did not make it
        :raises InvalidInputError: the ids of several jobs that made it begin so
        """
        known = list(self.store.refs.names(f"{self._at}/models/{model_id}"))
        # Ids sort by time, so that the first is the oldest.
        names = [name for name in known if name.rpartition("/")[2].startswith(job_id or "")]
        if known and not names:
            jobs = [name.rpartition("/")[2].partition("-")[0] for name in known]
            raise UnknownNameError(
                f"job that made {model_id}", job_id or "", jobs, f"It was made by {', '.join(jobs[:3])}."
            )
        meant = dict.fromkeys(name.rpartition("/")[2].partition("-")[0] for name in names)
        if job_id and len(meant) > 1:
            raise InvalidInputError(
                f"{job_id!r} may mean {', '.join(list(meant)[:3])}.", "Give more of the job's id."
            )
        ref = self.store.refs.get(names[0]) if names else None
        if ref is None:
            raise UnknownNameError("model", model_id, self.workspace.model_ids(), "See kaos train info.")
        digest = ref.value.decode()
        with naming(f"The record of model {model_id}"):
            return ModelRecord.parse(self.store.objects.get(digest)), digest

    def pinned(self, reproduces: Reproduces) -> ModelRecord:
        """Return the record of the model that a job makes again."""
        with naming(f"The record of model {reproduces.model_id}"):
            return ModelRecord.parse(self.store.objects.get(reproduces.record))

    def conclude(self, document: JobDocument, made: ModelRecord | None, reason: str = "") -> None:
        """Record what came of a job that makes a model again, once: the first record stays.

        A job of another purpose has nothing to conclude.

        :param made: the model that it made; None if it made none
        :param reason: why it made none
        """
        asked = document.reproduces
        if asked is None or self.of_job(document) is not None:
            return
        found = Reproduction(
            model_id=asked.model_id,
            digest=asked.digest,
            original_job=asked.job_id,
            trial=asked.trial,
            job_id=document.job_id,
            by=document.author,
            submitted_at=document.submitted_at,
            ended_at=datetime.now(UTC),
            tolerance=asked.tolerance,
            rebuilt=asked.rebuild,
            verdict=Verdict.FAILED,
            reason=reason,
        )
        if made is not None:
            found = self._compare(found, self.pinned(asked), made)
        with self.store.uses.hold():
            digest = self.store.objects.put(found.encode())
            self.store.refs.create(self._name(asked.model_id, document.job_id), digest.encode())

    def of_job(self, document: JobDocument) -> Reproduction | None:
        """Return what came of a job that makes a model again; None before its end, or of any other job."""
        if document.reproduces is None:
            return None
        ref = self.store.refs.get(self._name(document.reproduces.model_id, document.job_id))
        return Reproduction.parse(self.store.objects.get(ref.value.decode())) if ref else None

    def of_model(self, model_id: str) -> Iterator[Reproduction]:
        """Iterate over what came of making a model again, the oldest first."""
        for name in self.store.refs.names(f"{self._at}/reproductions/{model_id}"):
            ref = self.store.refs.get(name)
            if ref is not None:
                yield Reproduction.parse(self.store.objects.get(ref.value.decode()))

    def _compare(self, found: Reproduction, original: ModelRecord, made: ModelRecord) -> Reproduction:
        identical = made.digest == original.digest
        with naming(f"The list of files of model {original.model_id}"):
            before = self.workspace.tree(original.digest)
        files = [] if identical else compare_files(before, self.workspace.tree(made.digest))
        metrics = compare_metrics(original.metrics, made.metrics, found.tolerance)
        environment = compare_environments(original.build, made.build, self._lock(original), self._lock(made))
        return found.model_copy(
            update={
                "verdict": judge(identical, len(original.metrics), metrics),
                "made": made.digest,
                "made_id": made.model_id,
                "files": original.files,
                "compared": len(original.metrics),
                **listed(files, metrics, environment),
            }
        )

    def _lock(self, record: ModelRecord) -> str:
        digest = record.build.lock
        with naming(f"The lock of model {record.model_id}"):
            return self.store.objects.get(digest).decode() if digest else ""

    def _name(self, model_id: str, job_id: str) -> str:
        return f"{self._at}/reproductions/{model_id}/{job_id}"
