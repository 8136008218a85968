from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.errors import InvalidInputError
from kaos.graph import Edge, Graph, Node

IDS = st.integers(0, 15).map(str)


def graph(pairs: list[tuple[str, str]], extra: list[str]) -> Graph:
    ids = sorted({end for pair in pairs for end in pair} | set(extra))
    nodes = [Node(each, "kind", f"label {each}", {"n": int(each), "metrics": {"a": 1.5}}) for each in ids]
    return Graph.of(nodes, [Edge(one, two, "made") for one, two in pairs])


GRAPHS = st.builds(graph, st.lists(st.tuples(IDS, IDS), max_size=40), st.lists(IDS, max_size=4))
"""Graphs of every shape: with circles, with loops, with nodes on their own."""


def ids(found: Graph) -> set[str]:
    return {node.id for node in found.nodes}


@given(GRAPHS)
def test_upstream_of_one_is_downstream_of_the_other(given_graph: Graph) -> None:
    for node in given_graph.nodes:
        for cause in ids(given_graph.upstream([node.id])):
            assert node.id in ids(given_graph.downstream([cause]))


@given(GRAPHS)
def test_what_is_reached_is_closed_and_keeps_its_order(given_graph: Graph) -> None:
    order = [node.id for node in given_graph.nodes]
    for node in given_graph.nodes:
        found = given_graph.upstream([node.id])
        assert node.id in ids(found)
        assert found.upstream([node.id]) == found
        assert [each.id for each in found.nodes] == [each for each in order if each in ids(found)]
        # All edges into it are in it, with both their ends.
        into = [edge for edge in given_graph.edges if edge.target in ids(found)]
        assert set(into) <= set(found.edges)


@given(GRAPHS)
def test_a_graph_comes_back_from_json(given_graph: Graph) -> None:
    assert Graph.parse(given_graph.encode()) == given_graph


def test_of_two_nodes_with_one_id_the_first_stays_and_loose_edges_go() -> None:
    found = Graph.of(
        [Node("a", "k", "one"), Node("a", "k", "two")], [Edge("a", "b", "made"), Edge("a", "a", "made")] * 2
    )
    assert found == Graph((Node("a", "k", "one"),), (Edge("a", "a", "made"),))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"nodes": [1], "edges": []}', '{"nodes": [{}], "edges": []}']
)
def test_what_is_no_graph_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no lineage graph"):
        Graph.parse(text)
