"""Run the measurements: all of them and write docs/benchmarks.md, or some and print their table."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from bench import report
from bench.home import server
from bench.measure import QUICK, CommandError, Figure, Sizes, say

PARTS = ("latency", "data", "large", "memory", "cli", "fanout")


def main() -> int:
    """Return 0 once everything was measured, whether the goals are reached or not."""
    options = _options()
    sizes = QUICK if options.quick else Sizes()
    busy = os.getloadavg()[0]
    figures: list[Figure] = []
    with server(options.directory) as home:
        for part in options.parts or PARTS:
            try:
                figures += importlib.import_module(f"bench.{part}").measure(home, sizes)
            except CommandError as error:  # the other parts still count
                say(str(error))
                figures.append(Figure(f"{part}: a command failed", "", "", reached=False, why=str(error)))
    print(report.table(figures))
    for one in figures:
        if one.reached is False:
            print(f"\nNot reached: {one.what}: {one.figure}; the goal is {one.goal}.\n{one.why}")
    if not options.quick and not options.parts:
        report.DOCUMENT.write_text(report.document(figures, busy))
        say(f"wrote {report.DOCUMENT}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the bench itself")
    parser.add_argument("--directory", type=Path, help="where the temporary directory is made, 25 GB free")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
