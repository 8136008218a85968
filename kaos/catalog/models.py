"""Models, and what is left of those that were removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from kaos.bundle import Tree
from kaos.catalog.bundles import Bundles
from kaos.errors import UnknownNameError
from kaos.job import JobDocument, new_job_id
from kaos.model import ModelRecord, model_id, model_identity
from kaos.retention import Note, Tombstone


class ModelRecords(Bundles):
    """The models of one workspace."""

    def next_model_ids(self, document: JobDocument, digests: Iterable[str]) -> dict[str, str]:
        """Return the ids for models with these trees, by digest; the same content has the same id."""
        found: dict[str, str] = {}
        given: dict[str, str] = {}
        for digest in dict.fromkeys(digests):
            key = model_id(document, digest, lambda key: given.get(key) or self._identity(key))
            found[digest], given[key] = key, model_identity(document, digest)
        return found

    def output_tree(self, digest: str) -> Tree:
        """Return the tree that a trial wrote, before it is registered.

        :raises CorruptObjectError: it is not in the store
        """
        return Tree.decode(self.store.objects.get(digest))

    def add_model(self, record: ModelRecord) -> None:
        """Record a model, whose tree's objects are all in the store."""
        with self.store.uses.hold():
            digest = self.store.objects.put(record.encode())
            name = f"{self._at}/models/{record.model_id}/{record.job.job_id}-{record.trial.index}"
            self.store.refs.create(name, digest.encode())
            self._keep_tree(record.digest)
        before = self.tombstone(record.model_id)
        if before is not None and before.removed is not None:
            self.add_tombstone(
                before.model_copy(
                    update={
                        "removed": None,
                        "back": f"job {record.job.job_id} made it again",
                        "at": datetime.now(UTC),
                    }
                )
            )

    def add_tombstone(self, tombstone: Tombstone) -> None:
        """Record that a model was removed, or that it is back; older ones stay."""
        self.store.refs.create(
            f"{self._at}/removed/models/{tombstone.model_id}/{new_job_id()}", tombstone.encode()
        )

    def tombstone(self, key: str) -> Tombstone | None:
        """Return the newest tombstone of a model (by id), None if it was never removed."""
        names = list(self.store.refs.names(f"{self._at}/removed/models/{key}"))
        ref = self.store.refs.get(names[-1]) if names else None
        return Tombstone.parse(ref.value) if ref else None

    def removed_model(self, key: str) -> Note | None:
        """Return when and why a model (by id) was removed, None if it was not, or is back."""
        found = self.tombstone(key)
        return found.removed if found else None

    def model_ids(self) -> list[str]:
        """Return the ids of all models, sorted."""
        names = self.store.refs.names(f"{self._at}/models")
        return sorted({name.split("/")[3] for name in names})

    def models_of_jobs(self) -> Iterator[tuple[str, str]]:
        """Iterate over the ids of models and of the jobs that made them, one for each record."""
        for name in self.store.refs.names(f"{self._at}/models"):
            key, made = name.split("/")[3:5]
            yield key, made.partition("-")[0]

    def model_records(self, key: str) -> list[ModelRecord]:
        """Return the records of a model, the oldest first: one for each job and trial that made it.

        :raises UnknownNameError: there is no such model
        """
        records = [
            ModelRecord.parse(self.store.objects.get(value.decode()))
            for _, value in self._values(f"models/{key}")
        ]
        if not records:
            raise self._unknown(key)
        return records

    def model_record(self, key: str) -> ModelRecord:
        """Return the oldest record of a model: any of them tells its content.

        :raises UnknownNameError: there is no such model
        """
        found = self._oldest(key)
        if found is None:
            raise self._unknown(key)
        return found

    def job_model(self, job_id: str, key: str, index: int) -> ModelRecord:
        """Return the record of the model (by id) that a trial made.

        :raises UnknownNameError: there is no such model
        """
        ref = self.store.refs.get(f"{self._at}/models/{key}/{job_id}-{index}")
        if ref is None:
            raise UnknownNameError("model", key, next_step="See kaos train info.")
        return ModelRecord.parse(self.store.objects.get(ref.value.decode()))

    def job_models(self, job_id: str, keys: list[str]) -> list[ModelRecord]:
        """Return the records of those models (by id) that a job made, by trial."""
        found = [record for key in dict.fromkeys(keys) for record in self.model_records(key)]
        return sorted(
            (record for record in found if record.job.job_id == job_id), key=lambda r: r.trial.index
        )

    def _identity(self, key: str) -> str | None:
        record = self._oldest(key)
        return model_identity(record.job, record.digest) if record else None

    def _oldest(self, key: str) -> ModelRecord | None:
        """Return the first of a model's records, alone: thousands of trials may have made the same model."""
        value = next((value for _, value in self._values(f"models/{key}")), None)
        return ModelRecord.parse(self.store.objects.get(value.decode())) if value is not None else None

    def _unknown(self, key: str) -> UnknownNameError:
        return UnknownNameError("model", key, self.model_ids(), "See kaos train info.")
