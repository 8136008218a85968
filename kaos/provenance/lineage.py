"""The lineage graph of a workspace, put together from the records in its store.

Nothing else is asked, so the graph is the same whatever becomes of Airflow's database. What was read of a
record that never changes is remembered, in this process only: the records stay the truth.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from threading import Lock

from kaos.catalog import WorkspaceCatalog
from kaos.digest import SHORT
from kaos.errors import CorruptObjectError, KaosError
from kaos.graph import Edge, Graph, Node
from kaos.job import JobDocument
from kaos.lineage import AirflowRun, BuildRecord
from kaos.lock import packages
from kaos.model import ImportRecord, ModelRecord, TagMove
from kaos.promotion import Decision
from kaos.provenance import nodes
from kaos.provenance.cache import Cache, Parts
from kaos.provenance.nodes import DATA, ENDPOINT, MANIFEST, SOURCE, Part
from kaos.provenance.sketch import sketch
from kaos.reproduction import Reproduction
from kaos.retention import Tombstone
from kaos.schema.bundle import Bundle
from kaos.serving.records import Endpoints

log = logging.getLogger(__name__)

_BUNDLES = (SOURCE, DATA, MANIFEST)
_WORTH = 10


@dataclass
class Memory:
    """What was read of the records of one workspace: parts by name of the ref, with the ref's value.

    :param cache: keeps it over restarts
    """

    cache: Cache | None = None

    parts: Parts = field(default_factory=dict)
    kept: int = 0
    locks: dict[str, int] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    graph: Graph = field(default_factory=Graph)
    made_of: tuple[Part, ...] = ()
    busy: Lock = field(default_factory=Lock)

    def keep(self) -> None:
        """Keep what was read over restarts, if much of it is new: a little is read anew in no time."""
        with self.busy:
            parts, worth = self.parts, (len(self.parts) - self.kept) * _WORTH > len(self.parts)
            if self.cache is None or not worth:
                return
            self.kept = len(parts)
        self.cache.keep(parts)


@dataclass(frozen=True)
class Read:
    """A graph, and what could not be read of its records: a sentence each."""

    graph: Graph
    damaged: tuple[str, ...] = ()


class Lineage:
    """The lineage of one workspace.

    :param memory: of earlier reads, to read only what is new
    """

    def __init__(self, workspace: WorkspaceCatalog, memory: Memory | None = None) -> None:
        self.workspace = workspace
        self.store = workspace.store
        self._memory = memory or Memory()
        self._name = workspace.workspace.name
        self._at = f"workspaces/{self._name}"
        self._endpoints = Endpoints(workspace)
        self._damaged: list[str] = []
        self._makers: dict[tuple[bytes, bytes, bytes], tuple[JobDocument, Part]] = {}

    def read(self) -> Read:
        """Return the whole graph; a record that is damaged is named and passed over."""
        memory = self._memory
        with memory.busy:
            self._damaged = []
            if memory.cache is not None and not memory.parts:
                memory.parts = memory.cache.parts()
                memory.kept = len(memory.parts)
            before, memory.parts = memory.parts, {}
            parts = tuple(self._parts(before))
            if not _same(parts, memory.made_of):
                memory.graph, memory.made_of = self._assemble(parts), parts
            return Read(memory.graph, tuple(self._damaged))

    def _parts(self, before: Parts) -> Iterator[Part]:
        """Read the records, kind by kind; a new kind has its line here."""
        at = self._at
        names = self.store.refs.names
        yield from self._each(names(f"{at}/jobs"), self._job, before)
        yield from self._each(names(f"{at}/models"), self._model, before)
        yield from self._each(names(f"{at}/reproductions"), self._reproduction, before)
        yield from self._each(names(f"{at}/imports"), self._import, before, by_value=True)
        # Of each model the last: names sort by time.
        tombstones = {name.split("/")[4]: name for name in names(f"{at}/removed/models")}
        yield from self._each(tombstones.values(), self._removed, before)
        yield from self._each(names(f"{at}/tags"), self._tag, before, by_value=True)
        yield from self._each(names(f"{at}/decisions"), self._decision, before)
        yield from self._each(names(f"{at}/revisions"), self._revision, before, by_value=True)
        yield from self._each(names(f"{at}/endpoints"), self._endpoint, before, by_value=True)
        yield from self._each(names(f"{at}/bundles"), self._bundle, before, by_value=True)

    def _each(
        self,
        names: Iterable[str],
        read: Callable[[str, bytes], tuple[Part, bool]],
        before: Parts,
        *,
        by_value: bool = False,
    ) -> Iterator[Part]:
        """Read the records with these names.

        :param read: returns what a record says, and whether it will say so for ever
        :param by_value: the same name may come to stand for another record
        """
        parts = self._memory.parts
        for name in names:
            known = before.get(name)
            if known is not None and not by_value:
                parts[name] = known
                yield known[1]
                continue
            ref = self.store.refs.get(name)
            if ref is None:
                continue
            if known is not None and known[0] == ref.value:
                parts[name] = known
                yield known[1]
                continue
            try:
                part, final = read(name, ref.value)
            except KaosError as error:
                self._damaged.append(f"{name}: {error.message}")
                continue
            if final:
                parts[name] = (ref.value, part)
            yield part

    # -- the records -------------------------------------------------------------------------------------

    def _job(self, name: str, _: bytes) -> tuple[Part, bool]:
        job_id = name.rpartition("/")[2]
        document, _digest = self.workspace.job(job_id)
        outcome, resolved = self.workspace.outcome(job_id), self.workspace.resolved(job_id)
        final = outcome is not None and (document.manifest is None or resolved is not None)
        return nodes.job(document, outcome, resolved), final

    def _model(self, _: str, digest: bytes) -> tuple[Part, bool]:
        content = self.store.objects.get(digest.decode())
        known = sketch(content)
        if known is not None:
            return nodes.model(known, *self._maker(known.made_by)), True
        record = ModelRecord.parse(content)
        packages = self._packages(record.build)
        maker = nodes.maker(record.job, record.build, record.airflow, packages)
        return nodes.model(record, record.job, maker), True

    def _maker(self, made_by: tuple[bytes, bytes, bytes]) -> tuple[JobDocument, Part]:
        """Return what made a model, from its documents: those of all models of a job are the same."""
        if made_by not in self._makers:
            document, build = JobDocument.parse(made_by[0]), BuildRecord.parse(made_by[1])
            airflow, packages = AirflowRun.parse(made_by[2]), self._packages(build)
            self._makers[made_by] = document, nodes.maker(document, build, airflow, packages)
        return self._makers[made_by]

    def _reproduction(self, _: str, digest: bytes) -> tuple[Part, bool]:
        record = Reproduction.parse(self.store.objects.get(digest.decode()))
        return nodes.reproduction(self._name, record), True

    def _import(self, _: str, digest: bytes) -> tuple[Part, bool]:
        return nodes.imported(self._name, ImportRecord.parse(self.store.objects.get(digest.decode()))), True

    def _removed(self, _: str, value: bytes) -> tuple[Part, bool]:
        return nodes.removed(self._name, Tombstone.parse(value)), True

    def _decision(self, _: str, value: bytes) -> tuple[Part, bool]:
        digest = value.decode()
        return nodes.decision(self._name, digest, Decision.parse(self.store.objects.get(digest))), True

    def _tag(self, _: str, digest: bytes) -> tuple[Part, bool]:
        return nodes.tag(self._name, TagMove.parse(self.store.objects.get(digest.decode()))), True

    def _revision(self, name: str, _: bytes) -> tuple[Part, bool]:
        endpoint, number = name.split("/")[3], int(name.rpartition("/")[2])
        document, _digest = self._endpoints.revision(endpoint, number)
        record = self._endpoints.record(endpoint, number)
        outcome = self._endpoints.outcome(endpoint, number)
        packages = self._packages(record.build) if record is not None else None
        return nodes.revision(document, record, outcome, packages), outcome is not None

    def _endpoint(self, name: str, _: bytes) -> tuple[Part, bool]:
        endpoint = name.rpartition("/")[2]
        numbers = self._endpoints.revision_numbers(endpoint)
        return nodes.endpoint(self._endpoints.get(endpoint), numbers), False

    def _bundle(self, _: str, value: bytes) -> tuple[Part, bool]:
        return nodes.bundle(self._name, Bundle.parse(value)), True

    def _packages(self, build: BuildRecord) -> int | None:
        """Return how many packages the lock of an environment has."""
        if not build.lock:
            return None
        if build.lock not in self._memory.locks:
            try:
                text = self.store.objects.get(build.lock).decode()
            except CorruptObjectError:  # of a model that was removed
                return None
            self._memory.locks[build.lock] = len(packages(text))
        return self._memory.locks[build.lock]

    # -- together ----------------------------------------------------------------------------------------

    def _assemble(self, parts: Iterable[Part]) -> Graph:
        """Put the parts together; of a node that several records know each adds what is new."""
        merged: dict[str, Node] = {}
        edges: dict[Edge, None] = {}
        for part in parts:
            edges.update(dict.fromkeys(part.edges))
            for node in part.nodes:
                known = merged.setdefault(node.id, node)
                if known is not node and (
                    new := {
                        key: value for key, value in node.attributes.items() if key not in known.attributes
                    }
                ):
                    merged[node.id] = replace(known, attributes={**known.attributes, **new})
        # A bundle that was downloaded, or made by a deploy, is known by what made it.
        made = {
            (node.kind, node.attributes["digest"])
            for node in merged.values()
            if node.kind in _BUNDLES and "@" in node.id
        }
        ends = {end for edge in edges for end in (edge.source, edge.target)}
        kept = [
            node
            for node in merged.values()
            if node.id in ends
            or node.kind not in _BUNDLES
            or (node.kind, node.attributes["digest"]) not in made
        ]
        lengths = _lengths({node.attributes["digest"] for node in kept if node.kind in _BUNDLES})
        return Graph.of((_shown(node, lengths) for node in kept), edges)


def of_model(graph: Graph, node: str) -> Graph:
    """Return what had a part in a model, and the tags that name it.

    :param node: id of the model's node
    """
    tags = [edge.target for edge in graph.edges if edge.source == node and edge.role == "tagged"]
    return graph.among([*(each.id for each in graph.upstream([node]).nodes), *tags])


def of_endpoint(graph: Graph, name: str, *, everything: bool = False) -> Graph:
    """Return what an endpoint is made of: of the revisions that have its traffic, or the newest, or all.

    :param everything: all its revisions
    """
    end = next(node.id for node in graph.nodes if node.kind == ENDPOINT and node.label == name)
    whole = graph.upstream([end])
    if everything:
        return whole
    into = [edge for edge in whole.edges if edge.target == end]
    live = [edge for edge in into if edge.role != "served"] or sorted(into, key=lambda each: each.source)[-1:]
    return Graph(
        whole.nodes, tuple(edge for edge in whole.edges if edge.target != end or edge in live)
    ).upstream([end])


def _shown(node: Node, lengths: dict[str, int]) -> Node:
    """Return a bundle's node with as many characters of its digest as tell it from the others."""
    length = lengths.get(node.attributes.get("digest", ""), SHORT) if node.kind in _BUNDLES else SHORT
    if length == SHORT:
        return node
    name = node.label.rpartition(":")[0]
    return replace(node, label=f"{name}:{node.attributes['digest'][:length]}")


def _lengths(digests: set[str]) -> dict[str, int]:
    """Return how much of each digest must be shown, of those that share more than is usual."""
    found: dict[str, int] = {}
    ordered = sorted(digests)
    for one, two in pairwise(ordered):
        shared = next(place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
        if shared >= SHORT:
            for digest in (one, two):
                found[digest] = max(found.get(digest, 0), shared + 1)
    return found


def _same(parts: tuple[Part, ...], before: tuple[Part, ...]) -> bool:
    """Tell whether nothing is new; a part that was remembered is the same object."""
    pairs = zip(parts, before, strict=False)
    return len(parts) == len(before) and all(one is two or one == two for one, two in pairs)
