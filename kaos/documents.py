"""The records of a workspace as objects of the store: which there must be, and what each is to a person."""

from __future__ import annotations

from collections.abc import Iterator

from kaos.catalog import WorkspaceCatalog
from kaos.endpoint import RevisionRecord
from kaos.errors import CorruptObjectError
from kaos.lineage import BuildRecord
from kaos.model import ModelRecord
from kaos.removals import Removals

_TITLES = {
    "jobs": "document of job {0}",
    "models": "record of model {0}",
    "imports": "record of model {0}",
    "reproductions": "verdict on model {0}",
    "revisions": "document of revision {1} of endpoint {0}",
    "served": "record of revision {1} of endpoint {0}",
}


def documents(workspace: WorkspaceCatalog) -> Iterator[tuple[str, str]]:
    """Iterate over the records, and the locks that they name: digest, and what it is to a person.

    A lock is named where its record can be read; of a removed model it is not needed.
    """
    store, at = workspace.store, f"workspaces/{workspace.workspace.name}"
    for family, title in _TITLES.items():
        for name in store.refs.names(f"{at}/{family}"):
            ref = store.refs.get(name)
            if ref is None:
                continue
            digest, parts = ref.value.decode(), name.split("/")[3:]
            shown = title.format(parts[0], parts[-1].lstrip("0"))
            yield digest, f"{shown} of workspace {workspace.workspace.name}"
            if family == "models" and _is_kept(workspace, *parts):
                yield from _lock(workspace, digest, ModelRecord, f"lock of model {parts[0]}")
            elif family == "served":
                yield from _lock(workspace, digest, RevisionRecord, f"lock of endpoint {parts[0]}")


def _is_kept(workspace: WorkspaceCatalog, model_id: str, made: str) -> bool:
    """Tell whether a record's model is there, and was not removed and then made again by a later job."""
    job = Removals(workspace).job(made.partition("-")[0])
    return job is None and workspace.removed_model(model_id) is None


def _lock(
    workspace: WorkspaceCatalog, digest: str, kind: type[ModelRecord | RevisionRecord], title: str
) -> Iterator[tuple[str, str]]:
    try:
        build: BuildRecord = kind.parse(workspace.store.objects.get(digest)).build
    except CorruptObjectError:
        return
    if build.lock:
        yield build.lock, f"{title} of workspace {workspace.workspace.name}"
