"""Run the measurements: all of them and write docs/benchmarks.md, or some and print their table."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

from bench import report
from bench.home import Home, server
from bench.measure import QUICK, CommandError, Figure, Sizes, say

PARTS = ("latency", "data", "large", "memory", "cli", "fanout", "serve", "lineage")
ALONE = ("manifest", "container")
"""Parts that need no server of kaos, or one of their own: another one takes nothing from them."""


def main() -> int:
    """Return 0 once everything was measured, whether the goals are reached or not."""
    options = _options()
    sizes = QUICK if options.quick else Sizes()
    busy = os.getloadavg()[0]
    figures: list[Figure] = []
    chosen = options.parts or [*PARTS, *ALONE]
    if parts := [part for part in PARTS if part in chosen]:
        with server(options.directory) as home:
            for part in parts:
                figures += _measure(part, home, sizes)
    for part in ALONE:
        if part in chosen:
            with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as scratch:
                figures += _measure(part, Path(scratch), sizes)
    print(report.table(figures))
    for one in figures:
        if one.reached is False:
            print(f"\nNot reached: {one.what}: {one.figure}; the goal is {one.goal}.\n{one.why}")
    if not options.quick and not options.parts:
        report.DOCUMENT.write_text(report.document(figures, busy))
        say(f"wrote {report.DOCUMENT}")
    return 0


def _measure(part: str, where: Home | Path, sizes: Sizes) -> list[Figure]:
    try:
        figures: list[Figure] = importlib.import_module(f"bench.{part}").measure(where, sizes)
    except CommandError as error:  # the other parts still count
        say(str(error))
        figures = [Figure(f"{part}: a command failed", "", "", reached=False, why=str(error))]
    return figures


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [*PARTS, *ALONE]
    parser.add_argument("parts", nargs="*", choices=[*names, []], help=f"only these: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the bench itself")
    parser.add_argument("--directory", type=Path, help="where the temporary directory is made, 25 GB free")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
