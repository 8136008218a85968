"""Say which environments and images a store needs: what its models and endpoints were made in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kaos.errors import CorruptObjectError, UnknownNameError
from kaos.lineage import ImageRecord
from kaos.serving.records import Endpoints
from kaos.survey import Survey, WorkspaceView


@dataclass(frozen=True)
class NeededBuilds:
    """What has to stay.

    :param ids: digests of environments, and ids of images
    :param known: whether all records could be read; if not, more may be needed
    """

    ids: frozenset[str]
    known: bool


def needed_builds(found: Survey) -> NeededBuilds:
    """Return what kept models and live endpoints were made in, and what bundles that stay were built to."""
    ids: set[str] = set()
    known = not found.damaged
    for view in found.views:
        ids.update(_of_bundles(view, found))
        ids.update(_of_endpoints(view))
        for key in view.decision.kept:
            try:
                ids.update(record.build.environment for record in view.catalog.model_records(key))
            except (UnknownNameError, CorruptObjectError):
                known = False
    return NeededBuilds(frozenset(ids), known)


def _of_bundles(view: WorkspaceView, found: Survey) -> Iterator[str]:
    refs = view.catalog.store.refs
    for family in ("images", "containers"):
        for name in refs.names(f"workspaces/{view.name}/{family}"):
            source = name.rpartition("/")[2]
            if view.policy.is_set and source not in found.whole:
                continue  # it goes with the bundle
            if ref := refs.get(name):
                yield ref.value.decode() if family == "images" else ImageRecord.parse(ref.value).id


def _of_endpoints(view: WorkspaceView) -> Iterator[str]:
    records = Endpoints(view.catalog)
    for name in records.names():
        for number in records.revision_numbers(name):
            if (name, number) not in view.dead and (record := records.record(name, number)) is not None:
                yield record.build.environment
