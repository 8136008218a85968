"""The models of a workspace, trained here or imported, and the tags that name them.

The refs::

    workspaces/<workspace>/imports/<model_id>   digest of the ImportRecord of a model from elsewhere
    workspaces/<workspace>/tags/<name>          digest of the tag's newest TagMove
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import merge
from operator import attrgetter

from kaos.bundle import Tree
from kaos.catalog import WorkspaceCatalog
from kaos.endpoint import ModelPin
from kaos.errors import RemovedError, UnknownNameError
from kaos.model import ImportRecord, ListedModel, TagMove, short_model
from kaos.names import check_model, check_tag
from kaos.retention import Note
from kaos.store import change_ref


class Models:
    """The models of one workspace."""

    def __init__(self, workspace: WorkspaceCatalog) -> None:
        self.workspace = workspace
        self.store = workspace.store
        self._at = f"workspaces/{workspace.workspace.name}"

    def named(self, name: str) -> str:
        """Return the id of a model, trained or imported, of which perhaps only the records are left.

        :param name: its id, or a tag
        :raises UnknownNameError: there is no such model
        """
        tag = self.tag(name) if ":" not in name else None  # every id has one, no tag has
        model_id = (tag.model_id if tag is not None else None) or name
        if _is_plain(model_id) and (
            self.store.refs.get(f"{self._at}/imports/{model_id}") is not None
            or any(self.store.refs.names(f"{self._at}/models/{model_id}"))
        ):
            return model_id
        imported = [each.model_id for each in self.imports()]
        known = [*self.workspace.model_ids(), *imported, *(each.name for each in self.tags())]
        raise UnknownNameError("model or tag", name, known, "See kaos train info, kaos model list.")

    def pin(self, name: str) -> ModelPin:
        """Return a model, trained or imported.

        :param name: its id, or a tag
        :raises UnknownNameError: there is no such model
        :raises RemovedError: retention has removed it
        """
        model_id = self.named(name)
        ref = self.store.refs.get(f"{self._at}/imports/{model_id}")
        if ref is not None:
            found = ImportRecord.parse(self.store.objects.get(ref.value.decode()))
            return ModelPin(
                model_id=model_id,
                digest=found.digest,
                files=found.files,
                size=found.size,
                author=found.imported_by,
            )
        note = self.workspace.removed_model(model_id)
        if note is not None:
            raise removed_model(model_id, note)
        record = self.workspace.model_record(model_id)
        return ModelPin(
            model_id=model_id,
            digest=record.digest,
            files=record.files,
            size=record.size,
            author=record.job.author,
        )

    def newest(self) -> Iterator[ListedModel]:
        """Iterate over the models that jobs made and people imported, the newest first.

        A model that came out of several trials of a job is one; of several jobs it is one for each.
        """
        imported = sorted(map(_listed, self.imports()), key=attrgetter("at"), reverse=True)
        yield from merge(imported, self._trained(), key=attrgetter("at"), reverse=True)

    def _trained(self) -> Iterator[ListedModel]:
        for job_id in reversed(self.workspace.job_ids()):
            outcome = self.workspace.outcome(job_id)
            if outcome is None:
                continue
            for model_id in dict.fromkeys(outcome.models):
                record = self.workspace.model_record(model_id)
                note = self.workspace.removed_model(model_id)
                yield ListedModel(
                    model_id=model_id,
                    digest=record.digest,
                    files=record.files,
                    size=record.size,
                    job_id=job_id,
                    by=record.job.author,
                    at=outcome.ended_at,
                    removed=note.shown if note else "",
                )

    # -- models from elsewhere ---------------------------------------------------------------------------

    def add_import(self, name: str, tree: Tree, user: str) -> ImportRecord:
        """Record a model that was not trained here; the same content again is the same model."""
        known = [each.digest for each in self.imports() if each.name == check_model(name)]
        record = ImportRecord(
            model_id=f"{name}:{short_model(tree.digest, known)}",
            name=name,
            digest=tree.digest,
            files=len(list(tree.files)),
            size=tree.size,
            imported_by=user,
            imported_at=datetime.now(UTC),
        )
        digest = self.store.objects.put(record.encode())
        self.store.refs.create(f"{self._at}/imports/{record.model_id}", digest.encode())
        ref = self.store.refs.get(f"{self._at}/imports/{record.model_id}")
        return ImportRecord.parse(self.store.objects.get(ref.value.decode())) if ref else record

    def imports(self) -> Iterator[ImportRecord]:
        """Iterate over the imported models, sorted by id."""
        for name in self.store.refs.names(f"{self._at}/imports"):
            ref = self.store.refs.get(name)
            if ref is not None:
                yield ImportRecord.parse(self.store.objects.get(ref.value.decode()))

    # -- tags --------------------------------------------------------------------------------------------

    def move_tag(self, name: str, model: str | None, user: str, why: str = "") -> TagMove:
        """Let a tag name a model from now on, and return the move; where it does already, none is recorded.

        :param model: id of the model, or a tag that names it; None takes the tag away
        :raises InvalidNameError: `name` cannot be a tag
        :raises UnknownNameError: there is no such model, or no such tag to take away
        """
        ref_name = f"{self._at}/tags/{check_tag(name)}"
        model_id = self.pin(model).model_id if model is not None else None

        def moved(value: bytes | None) -> bytes:
            present = self._move(value) if value is not None else None
            if model_id is None and (present is None or present.model_id is None):
                raise UnknownNameError(
                    "tag", name, (each.name for each in self.tags()), "See kaos model tags."
                )
            if value is not None and present is not None and present.model_id == model_id:
                return value
            move = TagMove(
                name=name,
                model_id=model_id,
                by=user,
                at=datetime.now(UTC),
                why=why,
                before=value.decode() if value is not None else None,
            )
            return self.store.objects.put(move.encode()).encode()

        return self._move(change_ref(self.store.refs, ref_name, moved, f"The tag {name}"))

    def tag(self, name: str) -> TagMove | None:
        """Return what a tag names, or None if it names nothing."""
        ref = self.store.refs.get(f"{self._at}/tags/{name}") if _is_plain(name) else None
        move = self._move(ref.value) if ref is not None else None
        return move if move is not None and move.model_id is not None else None

    def tags(self) -> list[TagMove]:
        """Return the tags that name a model, sorted."""
        refs = map(self.store.refs.get, self.store.refs.names(f"{self._at}/tags"))
        found = (self._move(ref.value) for ref in refs if ref is not None)
        return [move for move in found if move.model_id is not None]

    def tag_moves(self, name: str) -> list[TagMove]:
        """Return what a tag has named, the newest first.

        :raises UnknownNameError: there never was such a tag
        """
        ref = self.store.refs.get(f"{self._at}/tags/{check_tag(name)}")
        if ref is None:
            raise UnknownNameError("tag", name, (each.name for each in self.tags()), "See kaos model tags.")
        moves = [self._move(ref.value)]
        while (before := moves[-1].before) is not None:
            moves.append(self._move(before.encode()))
        return moves

    def _move(self, digest: bytes) -> TagMove:
        return TagMove.parse(self.store.objects.get(digest.decode()))


def _listed(record: ImportRecord) -> ListedModel:
    return ListedModel(
        model_id=record.model_id,
        digest=record.digest,
        files=record.files,
        size=record.size,
        job_id=None,
        by=record.imported_by,
        at=record.imported_at,
    )


def removed_model(model_id: str, note: Note) -> RemovedError:
    """Return the error for a model that retention has removed."""
    return RemovedError(
        f"model {model_id}",
        note.shown,
        "Its records are left: kaos train info. The same training on the same inputs makes it again.",
    )


def _is_plain(name: str) -> bool:
    return bool(name) and "/" not in name and not name.startswith(".") and " " not in name
