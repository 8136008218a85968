"""What was read of records, kept over restarts: a file that may be removed at any time, and is never asked
whether something is there.

The file says what it is, and has the digest of all that follows: one that was cut short, or changed, or that
another version of kaos wrote, is as good as none.
"""

from __future__ import annotations

import inspect
import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from kaos import __version__, graph
from kaos.digest import digest_bytes
from kaos.graph import Edge, Node
from kaos.provenance import nodes, sketch
from kaos.provenance.nodes import Part

log = logging.getLogger(__name__)

Parts = dict[str, tuple[bytes, Part]]
"""What records say, by the name of the ref each was read from, with the value that the ref had."""


class Cache:
    """The parts that make up the lineage of one workspace.

    :param directory: of the file; made when something is kept
    :param of: the workspace, and its store
    """

    def __init__(self, directory: Path, of: str) -> None:
        self.path = directory / f"{digest_bytes(of.encode())[:32]}.json"
        made_by = "".join(map(inspect.getsource, (nodes, sketch, graph)))
        self._what = digest_bytes(f"{of} {__version__} {made_by}".encode()).encode()

    def parts(self) -> Parts:
        """Return all parts that were kept; none where the file is of no use."""
        try:
            what, digest, content = self.path.read_bytes().split(b"\n", 2)
            if what != self._what or digest.decode() != digest_bytes(content):
                raise ValueError("it was changed, or another kaos wrote it")
            return _decode(content)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s is of no use, and begins anew: %s", self.path, error)
            return {}

    def keep(self, parts: Mapping[str, tuple[bytes, Part]]) -> None:
        """Keep these parts, in place of those that were kept before."""
        content = _encode(parts)
        scratch = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                scratch.write_bytes(b"\n".join([self._what, digest_bytes(content).encode(), content]))
                scratch.rename(self.path)
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be written: %s", self.path, error)


def _encode(parts: Mapping[str, tuple[bytes, Part]]) -> bytes:
    """Return parts as JSON: each node and edge once, however many parts have it."""
    known = [part for _, part in parts.values()]
    node_places, shown_nodes = _places(chain.from_iterable(part.nodes for part in known))
    edge_places, shown_edges = _places(chain.from_iterable(part.edges for part in known))
    plain = [
        [[node.id, node.kind, node.label, node.attributes] for node in shown_nodes],
        [[edge.source, edge.target, edge.role, edge.detail] for edge in shown_edges],
        [
            [
                name,
                value.decode("latin-1"),
                [node_places[id(node)] for node in part.nodes],
                [edge_places[id(edge)] for edge in part.edges],
            ]
            for name, (value, part) in parts.items()
        ],
    ]
    return json.dumps(plain, separators=(",", ":")).encode()


def _places(things: Iterable[Any]) -> tuple[dict[int, int], list[Any]]:
    """Return the things, each once, and the place of each among them by what Python knows it by."""
    found = {id(thing): thing for thing in things}
    return {each: place for place, each in enumerate(found)}, list(found.values())


def _decode(content: bytes) -> Parts:
    plain_nodes, plain_edges, plain_parts = from_json(content)
    nodes = [Node(*node) for node in plain_nodes]
    edges = [Edge(*edge) for edge in plain_edges]
    return {
        name: (
            value.encode("latin-1"),
            Part(tuple([nodes[place] for place in its_nodes]), tuple([edges[place] for place in its_edges])),
        )
        for name, value, its_nodes, its_edges in plain_parts
    }
