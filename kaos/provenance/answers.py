"""What had a part in something, or what came of it: in one workspace, or in several at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kaos.catalog import WorkspaceCatalog
from kaos.errors import KaosError, RemovedError, UnknownNameError
from kaos.graph import Graph, Node
from kaos.provenance.lineage import Memory, Read
from kaos.provenance.nodes import ENDPOINT, KINDS
from kaos.provenance.refs import Finder, Found, ambiguous, unknown
from kaos.render.lines import one_line
from kaos.schema.lineage import FoundFile, LineageAnswer, LineageRow


class Asked(NamedTuple):
    """A workspace that is asked, with its lineage as it was just read."""

    workspace: WorkspaceCatalog
    read: Read
    memory: Memory

    @property
    def name(self) -> str:
        """Return the name of the workspace."""
        return self.workspace.workspace.name

    @property
    def graph(self) -> Graph:
        """Return the graph of the workspace."""
        return self.read.graph

    def find(self, ref: str) -> Found | None:
        """Return what `ref` means there, or None."""
        return Finder(self.workspace, self.graph, self.memory.contents).find(ref)


class _Place(NamedTuple):
    """A workspace in which what was asked about means something."""

    asked: Asked
    found: Found


class _Row(NamedTuple):
    workspace: str
    node: Node


def answer(workspaces: Sequence[Asked], ref: str, *, upstream: bool, limit: int | None) -> LineageAnswer:
    """Return what had a part in something, or what came of it; the ends of the way first.

    A name means in each workspace what has that name there; a digest means the same in all of them.

    :raises UnknownNameError: it means nothing in any of the workspaces
    :raises RemovedError: it is a file in what retention has removed
    :raises InvalidInputError: it may mean several things
    """
    places = _places(workspaces, ref)
    order = list(KINDS) if upstream else list(reversed(KINDS))
    rows = [_Row(place.asked.name, node) for place in places for node in _reached(place, upstream=upstream)]
    rank = {kind: place for place, kind in enumerate(order)}
    rows.sort(key=lambda row: (rank[row.node.kind], not _live(row.node)))
    counts = Counter(row.node.kind for row in rows)
    starts = [_Row(asked.name, asked.graph.by_id[start]) for asked, found in places for start in found.nodes]
    files = [(asked, file) for asked, found in places for file in found.files]
    return LineageAnswer(
        what=", ".join(dict.fromkeys(place.found.what for place in places)),
        found=_rows(starts[:limit]),
        files=[
            FoundFile(
                kind=asked.graph.by_id[file.node].kind,
                holder=asked.graph.by_id[file.node].label,
                path=file.path,
                workspace=asked.name,
            )
            for asked, file in files[:limit]
        ],
        rows=_rows(rows[:limit]),
        counts={kind: counts[kind] for kind in order if counts[kind]},
        damaged=[line for each in workspaces for line in each.read.damaged],
    )


def _places(workspaces: Sequence[Asked], ref: str) -> list[_Place]:
    """Return where what was asked about means something, and what."""
    places: list[_Place] = []
    missing: list[KaosError] = []
    for each in workspaces:
        try:
            found = each.find(ref)
        except (UnknownNameError, RemovedError) as error:  # a file that the bundle there does not have
            missing.append(error)
            continue
        if found is not None:
            places.append(_Place(each, found))
    if not places:
        raise missing[0] if missing else unknown(ref, ((each.workspace, each.graph) for each in workspaces))
    meant = {identity: place.found.what for place in places for identity in place.found.identities}
    if len(meant) > 1 and ref.removeprefix("sha256:") not in meant:
        raise ambiguous(ref, [f"{what} ({identity[:12]}…)" for identity, what in meant.items()])
    return places


def _reached(place: _Place, *, upstream: bool) -> Iterator[Node]:
    starts = set(place.found.nodes)
    graph = place.asked.graph
    reached = graph.upstream(starts) if upstream else graph.downstream(starts)
    # A file is in bundles, and those are an answer too.
    return (node for node in reached.nodes if place.found.files or node.id not in starts)


def _rows(rows: Iterable[_Row]) -> list[LineageRow]:
    return [
        LineageRow(
            kind=node.kind,
            name=node.label,
            digest=str(node.attributes.get("digest") or node.attributes.get("job_id") or ""),
            detail=one_line(node),
            live=_live(node),
            workspace=workspace,
        )
        for workspace, node in rows
    ]


def _live(node: Node) -> bool:
    return node.kind == ENDPOINT and node.attributes.get("state") == "live"
