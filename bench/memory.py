"""The memory of client and API server while a large file goes up and comes back over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.home import Home, source_bundle
from bench.large import make_file, show
from bench.measure import Ended, Figure, Sizes, say

_LIMIT = 200 << 20
_SMALL = 1 << 10


@dataclass
class Peak:
    """What a process had before, and the most it had meanwhile, in bytes of resident memory."""

    before: int
    most: int

    @property
    def growth(self) -> int:
        """Return the difference."""
        return self.most - self.before


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figures of memory."""
    say(f"memory: {show(sizes.large)} over HTTP, up and back")
    home.new_workspace("memory")
    source = source_bundle(home.scratch / "memory-source", "print('trained')\n")
    small = make_file(home.scratch / "memory-small", _SMALL)
    large = make_file(home.scratch / "memory-large", sizes.large)
    home.kaos("train", "deploy", "-s", source)
    api = max(home.processes("api-server"), key=lambda process: process.memory_info().rss)
    figures: list[Figure] = []
    jobs: dict[str, str] = {}
    ended: dict[str, tuple[Ended, Peak]] = {}
    for name, data in (("small", small), ("large", large)):
        with watched(api) as peak:
            ended[name] = home.kaos("train", "deploy", "-d", data, http=True), peak
        home.forget_cache()
        say(f"  up, {name}: {ended[name][0].seconds:.1f} s")
        jobs[name] = home.newest_job()
        home.wait(jobs[name])
    figures += _figures(f"{show(sizes.large)} up over HTTP", ended)
    for name in ("small", "large"):
        out = home.scratch / f"memory-out-{name}"
        with watched(api) as peak:
            ended[name] = home.kaos("train", "get", "-j", jobs[name], "-d", "-o", out, http=True), peak
        say(f"  back, {name}: {ended[name][0].seconds:.1f} s")
        shutil.rmtree(out)
    figures += _figures(f"{show(sizes.large)} back over HTTP", ended)
    for directory in (source, small, large, home.state / "work" / "trees"):
        shutil.rmtree(directory, ignore_errors=True)
    home.forget_objects(sizes.large)
    return figures


def _figures(what: str, ended: dict[str, tuple[Ended, Peak]]) -> list[Figure]:
    command, server = ended["large"]
    base = ended["small"][0].peak
    grown = {"client": Peak(base, command.peak), "API server": server}
    return [
        Figure(
            f"{what} ({command.seconds:.1f} s): memory of the {who}",
            "grows by less than 200 MiB",
            f"{peak.growth / (1 << 20):.0f} MiB",
            reached=peak.growth < _LIMIT,
            runs=f"from {peak.before / (1 << 20):.0f} to {peak.most / (1 << 20):.0f} MiB",
        )
        for who, peak in grown.items()
    ]


@contextmanager
def watched(process: psutil.Process) -> Iterator[Peak]:
    """Let the kernel count the process' peak of resident memory anew, and read it after the body."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    rss = process.memory_info().rss
    peak = Peak(rss, rss)
    yield peak
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            peak.most = int(line.split()[1]) * 1024
