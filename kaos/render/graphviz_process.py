"""The process that draws: Graphviz source on standard input, the picture on standard output."""

from __future__ import annotations

import json
import sys

from pygraphviz import AGraph  # type: ignore[import-untyped]

_DPI = 144


def main() -> None:
    """Draw what comes in the format of the first argument, at most so many pixels wide as the second says."""
    wanted, pixels = sys.argv[1], int(sys.argv[2])
    graph = AGraph(string=sys.stdin.buffer.read().decode())
    graph.layout(prog="dot")
    if wanted == "png":
        box = json.loads(graph.draw(format="json0"))["bb"].split(",")
        longest = max(float(box[2]), float(box[3])) / 72
        graph.graph_attr["dpi"] = str(max(20, min(_DPI, int(pixels / longest))))
    sys.stdout.buffer.write(graph.draw(format=wanted))


if __name__ == "__main__":
    main()
