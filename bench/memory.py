"""The memory of client and API server while a large file goes up and comes back over HTTP."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.home import KAOS, Home, source_bundle
from bench.large import make_file, show
from bench.measure import Figure, Sizes, run, say

_LIMIT = 200 << 20
_SMALL = 1 << 10


@dataclass(frozen=True)
class Transfer:
    """What a transfer took: seconds, and bytes of resident memory.

    :param client: the client's peak
    :param before: what the API server had before
    :param server: the API server's peak
    """

    seconds: float
    client: int
    before: int
    server: int


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figures of memory."""
    say(f"memory: {show(sizes.large)} over HTTP, up and back")
    home.new_workspace("memory")
    source = source_bundle(home.scratch / "memory-source", "print('trained')\n")
    small = make_file(home.scratch / "memory-small", _SMALL)
    large = make_file(home.scratch / "memory-large", sizes.large)
    home.kaos("train", "deploy", "-s", source)
    api = max(home.processes("api-server"), key=lambda process: process.memory_info().rss)
    jobs: dict[str, str] = {}
    up: dict[str, Transfer] = {}
    back: dict[str, Transfer] = {}
    for name, data in (("small", small), ("large", large)):
        up[name] = _transfer(home, api, "train", "deploy", "-d", data)
        say(f"  up, {name}: {up[name].seconds:.1f} s")
        jobs[name] = home.newest_job()
        home.wait(jobs[name])
    for name, job in jobs.items():
        out = home.scratch / f"memory-out-{name}"
        back[name] = _transfer(home, api, "train", "get", "-j", job, "-d", "-o", out)
        say(f"  back, {name}: {back[name].seconds:.1f} s")
        shutil.rmtree(out)
    for directory in (source, small, large, home.state / "work" / "trees"):
        shutil.rmtree(directory, ignore_errors=True)
    home.forget_objects(sizes.large)
    shutil.rmtree(home.scratch / "trash")
    size = show(sizes.large)
    return [*_figures(f"{size} up over HTTP", up), *_figures(f"{size} back over HTTP", back)]


def _figures(what: str, transfers: dict[str, Transfer]) -> list[Figure]:
    small, large = transfers["small"], transfers["large"]
    sides = {"client": (small.client, large.client), "API server": (large.before, large.server)}
    return [
        Figure(
            f"{what} ({large.seconds:.1f} s): memory of the {side}",
            "grows by less than 200 MiB",
            f"{max(0, most - before) / (1 << 20):.0f} MiB",
            reached=most - before < _LIMIT,
            runs=f"from {before / (1 << 20):.0f} to {most / (1 << 20):.0f} MiB",
        )
        for side, (before, most) in sides.items()
    ]


def _transfer(home: Home, api: psutil.Process, *arguments: str | Path) -> Transfer:
    """Run a command that moves bytes over HTTP, and read from the kernel the most that both sides had."""
    Path(f"/proc/{api.pid}/clear_refs").write_text("5")  # count the peak anew
    before, client = api.memory_info().rss, 0

    def watch(pid: int) -> None:
        nonlocal client
        client = _peak(pid) or client

    env = {**home.env, "KAOS_TRANSFER": "http"}
    seconds = run([KAOS, *arguments], env=env, watch=watch).seconds
    return Transfer(seconds, client, before, _peak(api.pid))


def _peak(pid: int) -> int:
    """Return the peak of a process' resident memory in bytes, 0 once it has gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
