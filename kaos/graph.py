"""A lineage graph: what was made of what. Pure values, and the questions that are asked of them.

An edge leads from a cause to what came of it, so that everything upstream of a model made it, and everything
downstream of a bundle came of it. Nothing here knows what kinds of nodes there are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from kaos.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Node:
    """Something that has a part in how a model came about.

    :param id: unique in a graph: ``<kind>:<workspace>/<identity>``
    :param kind: ``source``, ``data``, ``model``, ...
    :param label: what a person calls it, such as ``/mnist:e23a2``
    :param attributes: what is known of it: plain JSON values by name, in the order in which they are shown
    """

    id: str
    kind: str
    label: str
    attributes: dict[str, Any] = field(default_factory=dict, compare=True, hash=False)


@dataclass(frozen=True, slots=True)
class Edge:
    """That one node had a part in another.

    :param source: id of the cause
    :param target: id of what came of it
    :param role: the part, in a word or two: ``code``, ``data``, ``trained``, ``serves``
    :param detail: more about it, such as the parameters of a trial
    """

    source: str
    target: str
    role: str
    detail: str = ""


@dataclass(frozen=True)
class Graph:
    """Nodes by id, and the edges between them; both in the order in which they were given."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()

    @classmethod
    def of(cls, nodes: Iterable[Node], edges: Iterable[Edge]) -> Self:
        """Return the graph of these: of nodes with one id the first, of edges those with two ends, once."""
        by_id: dict[str, Node] = {}
        for node in nodes:
            by_id.setdefault(node.id, node)
        kept = (edge for edge in edges if edge.source in by_id and edge.target in by_id)
        return cls(tuple(by_id.values()), tuple(dict.fromkeys(kept)))

    @cached_property
    def by_id(self) -> dict[str, Node]:
        """Return the nodes by their ids."""
        return {node.id: node for node in self.nodes}

    @cached_property
    def _causes(self) -> dict[str, list[str]]:
        return _neighbours((edge.target, edge.source) for edge in self.edges)

    @cached_property
    def _effects(self) -> dict[str, list[str]]:
        return _neighbours((edge.source, edge.target) for edge in self.edges)

    def causes(self, node: str) -> list[Node]:
        """Return the nodes that had a part in one, in one step."""
        return [self.by_id[each] for each in dict.fromkeys(self._causes.get(node, ()))]

    def effects(self, node: str) -> list[Node]:
        """Return the nodes that came of one, in one step."""
        return [self.by_id[each] for each in dict.fromkeys(self._effects.get(node, ()))]

    def upstream(self, starts: Iterable[str]) -> Self:
        """Return the graph of these nodes and of everything that had a part in them."""
        return self.among(_reached(starts, self._causes))

    def downstream(self, starts: Iterable[str]) -> Self:
        """Return the graph of these nodes and of everything that came of them."""
        return self.among(_reached(starts, self._effects))

    def among(self, ids: Iterable[str]) -> Self:
        """Return the graph of the nodes with these ids, with the edges between them."""
        kept = set(ids)
        return type(self)(
            tuple(node for node in self.nodes if node.id in kept),
            tuple(edge for edge in self.edges if edge.source in kept and edge.target in kept),
        )

    def where(self, wanted: Callable[[Node], bool]) -> list[Node]:
        """Return the nodes of which `wanted` is true."""
        return [node for node in self.nodes if wanted(node)]

    def plain(self) -> dict[str, Any]:
        """Return the graph as plain JSON values."""
        return {
            "nodes": [
                {"id": node.id, "kind": node.kind, "label": node.label, "attributes": node.attributes}
                for node in self.nodes
            ],
            "edges": [
                {"source": edge.source, "target": edge.target, "role": edge.role, "detail": edge.detail}
                for edge in self.edges
            ],
        }

    def encode(self) -> bytes:
        """Return the graph as JSON: the same graph gives the same bytes."""
        return json.dumps(self.plain(), indent=2, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def parse(cls, document: bytes | str) -> Self:
        """Return the graph that `encode` wrote.

        :raises InvalidInputError: it is none
        """
        try:
            plain = json.loads(document)
            return cls(
                tuple(Node(**node) for node in plain["nodes"]), tuple(Edge(**edge) for edge in plain["edges"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(f"This is no lineage graph: {error}.") from error


def _neighbours(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node, neighbour in pairs:
        found.setdefault(node, []).append(neighbour)
    return found


def _reached(starts: Iterable[str], neighbours: dict[str, list[str]]) -> set[str]:
    return set(_walk(starts, neighbours))


def _walk(starts: Iterable[str], neighbours: dict[str, list[str]]) -> Iterator[str]:
    seen = set(starts)
    waiting = list(seen)
    while waiting:
        node = waiting.pop()
        yield node
        for neighbour in neighbours.get(node, ()):
            if neighbour not in seen:
                seen.add(neighbour)
                waiting.append(neighbour)
