"""What a person asks about, found in a lineage graph: by name, digest, path, URL, or their beginnings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kaos.bundle import Tree
from kaos.catalog import WorkspaceCatalog
from kaos.digest import SHORT
from kaos.errors import (
    CorruptObjectError,
    InvalidBundleError,
    InvalidInputError,
    RemovedError,
    UnknownNameError,
)
from kaos.graph import Graph, Node
from kaos.manifest import parse
from kaos.provenance.nodes import DATA, ENDPOINT, IMAGE, JOB, MANIFEST, MODEL, REVISION, SOURCE, TAG

ASKABLE = (
    "file (its SHA-256, or /bundle:abcde/path), bundle, manifest, URL, image, job, model, tag or endpoint"
)
"""What a question can be about, in words."""

_BUNDLE = re.compile(r"/(?P<name>[^/]+):(?P<digest>[0-9a-f]{5,64})(?:/(?P<path>.+))?")
_FILE = re.compile(rb',"([0-9a-f]{64})"\]\n')
_HEX = re.compile(r"[0-9a-f]{5,64}")
_CONTENT = (SOURCE, DATA, MODEL)
_NAMED = (MODEL, TAG, ENDPOINT, REVISION)
_IDENTITIES = ("digest", "job_id", "environment", "lock", "id")
_REMEMBERED = 10_000
_SHOWN = 5


class File(NamedTuple):
    """Where a file is: the node that holds it, and its path there or its URL."""

    node: str
    path: str


class Found(NamedTuple):
    """What a question is about.

    :param nodes: ids of the nodes
    :param files: if it is about a file, where that is
    :param identities: the digests or ids that begin as what was asked for; none of a name
    """

    what: str
    nodes: tuple[str, ...]
    files: tuple[File, ...] = ()
    identities: frozenset[str] = frozenset()


class Finder:
    """Finds what people ask about in the graph of a workspace.

    :param contents: what the trees hold, as far as it was read before
    """

    def __init__(self, workspace: WorkspaceCatalog, graph: Graph, contents: dict[str, str]) -> None:
        self._workspace = workspace
        self._objects = workspace.store.objects
        self._graph = graph
        self._contents = contents

    def find(self, ref: str) -> Found | None:
        """Return what `ref` means, None if nothing in the workspace.

        :raises UnknownNameError: a file that is not in its bundle
        :raises RemovedError: a file in a bundle that retention has removed
        :raises InvalidInputError: it may mean several things
        """
        bundle = _BUNDLE.fullmatch(ref)
        if "://" in ref:
            return self._line(ref)
        if bundle is not None:
            return self._bundle(ref, bundle)
        return self._named(ref) or self._identified(ref.removeprefix("sha256:"))

    def _named(self, ref: str) -> Found | None:
        nodes = self._graph.where(lambda node: node.kind in _NAMED and node.label == ref)
        # A tag and an endpoint may have one name.
        return Found(" and ".join(f"{node.kind} {ref}" for node in nodes), _ids(nodes)) if nodes else None

    def _bundle(self, ref: str, match: re.Match[str]) -> Found | None:
        name, digest, path = match["name"], match["digest"], match["path"]

        def is_meant(node: Node) -> bool:
            return (
                node.kind in (SOURCE, DATA, MANIFEST)
                and node.attributes["digest"].startswith(digest)
                and node.label[1:].rpartition(":")[0] == name
            )

        nodes = self._graph.where(is_meant)
        if not nodes:
            return None
        meant = {str(node.attributes["digest"]): node for node in nodes}
        _check_one(ref, meant)
        if path is None:
            return Found(f"{nodes[0].kind} {nodes[0].label}", _ids(nodes), identities=frozenset(meant))
        if nodes[0].kind == MANIFEST:
            raise UnknownNameError(
                f"file in {nodes[0].label}",
                path,
                next_step="It is a manifest: ask about a URL of it, or a file in the data that it gave.",
            )
        self._check_kept(nodes[0])
        file = self._tree(nodes[0]).file(path)
        if file is None:
            known = [each.path for each in self._tree(nodes[0]).files]
            raise UnknownNameError(f"file in {nodes[0].label}", path, known, "See kaos train get.")
        return self._file(file.digest)

    def _identified(self, ref: str) -> Found | None:
        """Return what has an identity that begins so: a digest, or the id of a job."""
        if not _HEX.fullmatch(ref):
            return self._pinned(ref)

        def identities(node: Node) -> list[str]:
            values = (node.attributes.get(name) for name in _IDENTITIES)
            return [value for value in values if isinstance(value, str) and value.startswith(ref)]

        nodes = self._graph.where(lambda node: bool(identities(node)))
        if nodes:
            meant = {identity: node for node in nodes for identity in identities(node)}
            _check_one(ref, meant)
            return Found(f"{nodes[0].kind} {nodes[0].label}", _ids(nodes), identities=frozenset(meant))
        return self._pinned(ref) or self._file(ref)

    def _pinned(self, ref: str) -> Found | None:
        """Return the images with this name in a registry, or that are built on this one."""

        def is_meant(node: Node) -> bool:
            names = [node.attributes.get("pinned") or "", *node.attributes.get("base", [])]
            return node.kind == IMAGE and any(ref in name for name in names)

        nodes = self._graph.where(is_meant) if len(ref) >= SHORT else []
        return Found(f"image {ref}", _ids(nodes)) if nodes else None

    def _line(self, url: str) -> Found | None:
        """Return the manifests with a line for this URL."""
        nodes: list[Node] = []
        dumped = {json.dumps(url, ensure_ascii=ascii_only)[1:-1].encode() for ascii_only in (True, False)}
        for node in self._graph.where(lambda node: node.kind == MANIFEST):
            try:
                content = self._objects.get(node.attributes["content"])
            except CorruptObjectError:  # damaged, or removed; the others can be searched
                continue
            # Searched first: few of many manifests have the line, and the others need not be understood.
            escaped = b"\\/" in content or any(text in content for text in dumped)
            if escaped and any(entry.url == url for entry in parse(content).entries):
                nodes.append(node)
        files = tuple(File(node.id, url) for node in nodes)
        return Found(f"manifest line {url}", _ids(nodes), files) if nodes else None

    def _file(self, digest: str) -> Found | None:
        """Return the bundles and models that hold a file whose digest begins so."""
        hits: list[tuple[Node, Tree]] = []
        whole: set[str] = set()
        for node in self._graph.where(lambda node: node.kind in _CONTENT and "digest" in node.attributes):
            try:
                if f" {digest}" not in self._files(node):
                    continue
                tree = self._tree(node)
            except (CorruptObjectError, InvalidBundleError):  # the same
                continue
            held = {file.digest for file in tree.files if file.digest.startswith(digest)}
            if held:
                hits.append((node, tree))
                whole |= held
        if len(whole) > 1:
            raise ambiguous(digest, sorted(whole))
        files = tuple(
            File(node.id, file.path) for node, tree in hits for file in tree.files if file.digest in whole
        )
        what = f"file {next(iter(whole))[:12]}…" if whole else ""
        nodes = _ids(node for node, _ in hits)
        return Found(what, nodes, files, frozenset(whole)) if hits else None

    def _files(self, node: Node) -> str:
        """Return the digests of a tree's files, each after a space; not more than that: there are many trees.

        What a link leads to may look like one.
        """
        digest = str(node.attributes["digest"])
        known = self._contents.get(digest)
        if known is None:
            known = b" ".join([b"", *_FILE.findall(self._objects.get(digest))]).decode()
            if node.attributes.get("files", 0) <= _REMEMBERED:
                self._contents[digest] = known
        return known

    def _tree(self, node: Node) -> Tree:
        return Tree.stored(self._objects.get(node.attributes["digest"]))

    def _check_kept(self, node: Node) -> None:
        """Refuse to look into what retention has removed.

        :raises RemovedError: it has removed this
        """
        note = self._workspace.removed_tree(node.attributes["digest"])
        if note is not None:
            raise RemovedError(
                f"list of files of {node.label}", note.shown, f"Ask about all of it: {node.label}"
            )


def unknown(ref: str, asked: Iterable[tuple[WorkspaceCatalog, Graph]]) -> UnknownNameError:
    """Return the error for what means nothing in these workspaces."""
    pairs = list(asked)
    known = (node.label for _, graph in pairs for node in graph.where(lambda node: node.kind != JOB))
    next_step = f"Ask about a {ASKABLE}."
    if any(workspace.has_removed_trees() for workspace, _ in pairs):
        next_step += " Which files there were in what retention has removed nobody knows any more."
    return UnknownNameError("lineage of", ref, known, next_step)


def _check_one(ref: str, meant: Mapping[str, Node]) -> None:
    """Refuse what may mean several things; one that several nodes share, such as a lock, is one."""
    if len(meant) > 1 and ref not in meant:
        raise ambiguous(ref, [f"{node.kind} {node.label}" for node in meant.values()])


def ambiguous(ref: str, meant: list[str]) -> InvalidInputError:
    """Return the error for what may mean any of these."""
    shown = ", ".join(dict.fromkeys(meant[:_SHOWN]))
    more = f" and {len(meant) - _SHOWN} more" if len(meant) > _SHOWN else ""
    return InvalidInputError(f"{ref!r} may mean {shown}{more}.", "Give more of it.")


def _ids(nodes: Iterable[Node]) -> tuple[str, ...]:
    return tuple(node.id for node in nodes)
