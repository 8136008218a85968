"""A lineage graph as a picture: as Graphviz source, and drawn.

It reads from the left, causes, to the right, effects. Each node is a box that says what it is; many nodes
that have the same causes and effects, such as the models of a grid, share one box.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kaos.errors import InvalidInputError, KaosError
from kaos.graph import Edge, Graph, Node
from kaos.render.lines import lines, one_line, plural

if TYPE_CHECKING:
    from graphviz import Digraph  # type: ignore[import-untyped]

FORMATS = ("pdf", "svg", "png", "dot")

_FONT = "Source Sans Pro"
_FONTS = f"{_FONT},Helvetica,Arial,sans-serif"
_TOGETHER = 8
"""Nodes with the same causes and effects up to which each has a box of its own."""
_DETAILED = 40
"""Boxes up to which each says all that is known."""
_WIDE = 60
"""Characters of a row in a box, at most."""
_FOLDS = 5
"""Rows of one thing that is known, at most."""
_MOST = 3000
"""Boxes that are drawn at most."""
_SECONDS = 120
_PIXELS = 20_000
_INK, _FAINT, _LINE = "#1f2933", "#616e7c", "#9aa5b1"
_COLOURS = {
    "manifest": "#7b5ea7",
    "source": "#2f6fb3",
    "data": "#1d8a7a",
    "hyperparams": "#9a6b1f",
    "image": "#5b6b7b",
    "job": "#334e68",
    "model": "#b4481e",
    "tag": "#8a3b66",
    "decision": "#7a5c00",
    "revision": "#476b2f",
    "endpoint": "#2d7d32",
}
_OTHER = "#52606d"


class _Box(NamedTuple):
    """What is drawn as one: a node, or several with the same causes and effects."""

    id: str
    nodes: tuple[Node, ...]


def draw(graph: Graph, wanted: str, focus: Iterable[str] = ()) -> bytes:
    """Return the picture of a graph.

    :param wanted: one of `FORMATS`
    :param focus: ids of the nodes that it is about, drawn with a thicker line
    :raises InvalidInputError: the graph is too large for a picture
    """
    dot = source(graph, focus)
    return dot.encode() if wanted == "dot" else _drawn(dot, wanted)


def source(graph: Graph, focus: Iterable[str] = ()) -> str:
    """Return the Graphviz source of a graph."""
    from graphviz import Digraph

    about = set(focus)
    boxes = _boxes(graph, about)
    if len(boxes) > _MOST:
        raise InvalidInputError(
            f"A picture of {len(boxes)} boxes could not be read.", "Ask for --format json, or for less."
        )
    box_of = {node.id: box.id for box in boxes for node in box.nodes}
    detailed = len(boxes) <= _DETAILED
    dot = Digraph("lineage")
    dot.attr(rankdir="LR", bgcolor="white", pad="0.3", nodesep="0.28", ranksep="0.6", fontname=_FONTS)
    dot.attr("node", shape="plain", fontname=_FONTS, fontsize="11", fontcolor=_INK)
    dot.attr("edge", color=_LINE, fontname=_FONTS, fontsize="9", fontcolor=_FAINT, arrowsize="0.7")
    for box in boxes:
        thick = any(node.id in about for node in box.nodes)
        dot.node(box.id, label=_label(box, detailed=detailed, thick=thick))
    _edges(dot, graph.edges, box_of, labelled=detailed)
    return str(dot.source)


def _boxes(graph: Graph, about: set[str]) -> list[_Box]:
    """Return what is drawn: where more than a few nodes have the same causes and effects, they together."""
    around: dict[str, list[tuple[str, str, str]]] = {node.id: [] for node in graph.nodes}
    for edge in graph.edges:
        around[edge.source].append((">", edge.target, edge.role))
        around[edge.target].append(("<", edge.source, edge.role))
    alike: dict[object, list[Node]] = {}
    for node in graph.nodes:
        apart = node.id if node.id in about or not around[node.id] else ""
        alike.setdefault((node.kind, apart, tuple(sorted(around[node.id]))), []).append(node)
    boxes: list[_Box] = []
    for nodes in alike.values():
        if len(nodes) > _TOGETHER:
            boxes.append(_Box(f"n{len(boxes)}", tuple(nodes)))
        else:
            boxes += [_Box(f"n{len(boxes) + place}", (node,)) for place, node in enumerate(nodes)]
    return boxes


def _edges(dot: Digraph, edges: Sequence[Edge], box_of: dict[str, str], *, labelled: bool) -> None:
    together: dict[tuple[str, str, str], list[Edge]] = {}
    for edge in edges:
        together.setdefault((box_of[edge.source], box_of[edge.target], edge.role), []).append(edge)
    for (start, end, role), several in together.items():
        details = {edge.detail for edge in several if edge.detail}
        words = [role, *(_short(detail, 30) for detail in details if len(details) == 1)]
        dot.edge(start, end, label=_break(words) if labelled else "")


def _label(box: _Box, *, detailed: bool, thick: bool) -> str:
    """Return a box as Graphviz' table: a coloured head with the kind, the name, and what is known."""
    node = box.nodes[0]
    colour = _COLOURS.get(node.kind, _OTHER)
    if len(box.nodes) > 1:
        return _table(plural(len(box.nodes), node.kind), _cells(box.nodes), colour, thick=thick)
    rows = [f'<TR><TD ALIGN="LEFT"><B>{_text(_short(node.label, 48))}</B></TD></TR>']
    told = lines(node) if detailed else []
    for line in (row for each in told for row in _folded(each)):
        shown = f'<FONT POINT-SIZE="10" COLOR="{_FAINT}">{_text(line)}</FONT>'
        rows.append(f'<TR><TD ALIGN="LEFT">{shown}</TD></TR>')
    return _table(node.kind, rows, colour, thick=thick)


def _cells(nodes: Sequence[Node]) -> list[str]:
    """Return the nodes of a shared box side by side, in columns that make it a little wider than high."""
    columns = max(1, round(math.sqrt(len(nodes) / 6)))
    rows = math.ceil(len(nodes) / columns)
    nodes = sorted(nodes, key=lambda node: (node.attributes.get("trial") or 0, node.label))
    found: list[str] = []
    for row in range(rows):
        cells = ""
        for node in nodes[row::rows]:
            more = _text(_begin(one_line(node), 50))
            small = f'<BR ALIGN="LEFT"/><FONT POINT-SIZE="8.5" COLOR="{_FAINT}">{more}</FONT>' if more else ""
            name = _text(_short(node.label, 40))
            cells += f'<TD ALIGN="LEFT" BALIGN="LEFT">{name}{small}<BR ALIGN="LEFT"/></TD>'
        found.append(f"<TR>{cells}</TR>")
    return [
        '<TR><TD><TABLE BORDER="0" CELLBORDER="0" CELLSPACING="2" CELLPADDING="3">'
        + "".join(found)
        + "</TABLE></TD></TR>"
    ]


def _table(head: str, rows: list[str], colour: str, *, thick: bool) -> str:
    return (
        f'<<TABLE BORDER="{3 if thick else 1}" COLOR="{colour}" CELLBORDER="0" CELLSPACING="0" '
        f'CELLPADDING="0" BGCOLOR="white"><TR><TD BGCOLOR="{colour}" ALIGN="LEFT" CELLPADDING="4">'
        f'<FONT COLOR="white" POINT-SIZE="9.5">{_text(head)}</FONT></TD></TR>'
        '<TR><TD ALIGN="LEFT" CELLPADDING="3">'
        '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">'
        f"{''.join(rows)}</TABLE></TD></TR></TABLE>>"
    )


def _break(words: Iterable[str]) -> str:
    """Return words on lines of their own, as a label that is no table: a backslash means nothing in it."""
    return "\n".join(word.replace("\\", "\\\\") for word in words)


def _text(text: str) -> str:
    plain = "".join(char if char.isprintable() else "�" for char in text)
    # A backslash means something in tables too: Graphviz puts the id of the node in the place of "\N".
    return escape(plain, quote=False).replace("\\", "\\\\")


def _begin(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _folded(text: str) -> list[str]:
    """Return text as the rows of a box: why something was decided, or removed, is longer than one."""
    rows = textwrap.wrap(text, _WIDE, break_long_words=False)
    if len(rows) > _FOLDS:
        rows = [*rows[: _FOLDS - 1], " ".join(rows[_FOLDS - 1 :])]
    return [_short(row, _WIDE) for row in rows]


def _short(text: str, most: int) -> str:
    """Return text with its middle left out, where it is longer."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[: most - 1 - half]}…{text[-half:]}"


def _drawn(dot: str, wanted: str) -> bytes:
    """Draw in a process of its own: Graphviz is a library that takes one thread, and keeps what it leaks."""
    with tempfile.TemporaryDirectory(prefix="kaos-picture-") as scratch:
        fonts = Path(scratch) / "fonts.conf"
        fonts.write_text(_font_configuration(scratch))
        # Its own fonts alone: the same picture on every machine, those that have no font among them.
        environment = {**os.environ, "FONTCONFIG_FILE": str(fonts), "FONTCONFIG_PATH": scratch}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "kaos.render.graphviz_process", wanted, str(_PIXELS)],
                input=dot.encode(),
                capture_output=True,
                timeout=_SECONDS,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InvalidInputError(
                f"The picture was not ready within {_SECONDS} s.", "Ask for --format json, or for less."
            ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise KaosError(f"Graphviz could not draw this: {said[-1]}.", "The graph itself: --format json")
    return done.stdout


def _font_configuration(scratch: str) -> str:
    spec = find_spec("font_source_sans_pro")
    places = spec.submodule_search_locations if spec is not None else None
    directory = Path(next(iter(places))) / "files" if places else Path(scratch)
    return (
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        f"<dir>{escape(str(directory))}</dir><cachedir>{escape(scratch)}/cache</cachedir>"
        '<match target="font"><edit name="hinting" mode="assign"><bool>false</bool></edit></match>'
        "</fontconfig>"
    )
