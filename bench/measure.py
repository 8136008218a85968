"""What every measurement shares: figures, timed commands, alternating runs, profiles."""

from __future__ import annotations

import os
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Timed = Callable[[int], float]
"""Prepare and do the run with this number, and return the seconds that count."""


class CommandError(Exception):
    """A command that was to be measured failed."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured: the full set, or one that ends within two minutes and says little.

    :param files: files of 10 KiB
    :param large: bytes of the one large file
    :param remote: bytes of each of the eight large files of a manifest
    :param deploys: deploys whose latency is taken
    :param jobs: jobs in the list
    :param trials: of a job, and as many mapped tasks
    :param many_trials: of another one
    :param nodes: of a lineage graph
    :param runs: of everything else
    """

    files: int = 10_000
    large: int = 5 << 30
    remote: int = 256 << 20
    deploys: int = 20
    jobs: int = 10_000
    trials: int = 1_000
    many_trials: int = 10_000
    nodes: int = 10_000
    runs: int = 5
    large_runs: int = 3


QUICK = Sizes(
    files=1_000,
    large=256 << 20,
    remote=32 << 20,
    deploys=3,
    jobs=500,
    trials=250,
    many_trials=500,
    nodes=1_000,
    runs=2,
    large_runs=1,
)


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    :param what: what was measured
    :param goal: what it has to reach, in words
    :param figure: what it is
    :param peer: who else was measured, and that one's figure
    :param ratio: the figure beside the peer's
    :param reached: whether the goal is reached; None for a line that has none
    :param runs: the single measurements, in words
    :param why: what stands in the way, with a profile; for a goal that is not reached
    """

    what: str
    goal: str
    figure: str
    peer: str = ""
    ratio: str = ""
    reached: bool | None = None
    runs: str = ""
    why: str = ""


@dataclass
class Ended:
    """A command that ended well: seconds, and what it printed."""

    seconds: float
    stdout: str
    stderr: str = field(repr=False)


def say(text: str) -> None:
    """Print progress to stderr."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    watch: Callable[[int], None] | None = None,
) -> Ended:
    """Run a command to its end; measured from before its start until it is gone.

    :param watch: called with the process' id again and again while it runs

    :raises CommandError: it failed; the text has what it printed
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        if watch is not None:
            while process.poll() is None:
                watch(process.pid)
                time.sleep(0.02)
        process.wait()
        seconds = time.perf_counter() - start
        printed = [_content(stream) for stream in (out, err)]
    if process.returncode:
        words = " ".join(str(word) for word in command)
        raise CommandError(
            f"{words} ended with {process.returncode}:\n{printed[0][-2000:]}{printed[1][-2000:]}"
        )
    return Ended(seconds, *printed)


def _content(stream: object) -> str:
    stream.seek(0)  # type: ignore[attr-defined]
    return stream.read().decode(errors="replace")  # type: ignore[attr-defined,no-any-return]


def alternate(ways: Mapping[str, Timed], runs: int) -> dict[str, list[float]]:
    """Do every way `runs` times, in turn (A B A B), the disk's queue empty before each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(runs):
        for name, timed in ways.items():
            os.sync()
            seconds[name].append(timed(number))
            say(f"  {name}: {seconds[name][-1]:.3f} s")
    return seconds


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """Return the value that 95% do not exceed (nearest rank)."""
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def spread(values: Sequence[float], unit: str = "s") -> str:
    """Return all the values, in the order in which they were measured."""
    return ", ".join(f"{value:.3g}" for value in values) + f" {unit}"


def python_profile(
    command: Sequence[str],
    env: Mapping[str, str],
    lines: int = 14,
    prepare: Callable[[], object] = lambda: None,
) -> str:
    """Return what a command of `kaos` takes of the processors, and its functions with the most own time.

    :param prepare: called before each of the two runs
    """
    prepare()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = run([sys.executable, "-m", "kaos_cli", *command], env=env).seconds
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    head = f"once more: {seconds:.2f} s; processors {user:.2f} s in the program, {system:.2f} s in the kernel"
    prepare()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "profile"
        run([sys.executable, "-m", "cProfile", "-o", file, "-m", "kaos_cli", *command], env=env)
        stats = pstats.Stats(str(file))
    rows: list[tuple[float, float, int, str]] = []
    for (path, line, name), (_, calls, own, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        place = name if path == "~" else f"{'/'.join(Path(path).parts[-2:])}:{line} {name}"
        rows.append((own, cumulative, calls, place))
    rows.sort(reverse=True)
    # The profile is the main thread's: where others read, hash and write, it shows as waiting for a lock.
    table = [head, f"{'own s':>7} {'all s':>7} {'calls':>8}  function of the main thread (cProfile)"]
    table += [f"{own:7.3f} {all_:7.3f} {calls:8d}  {place}" for own, all_, calls, place in rows[:lines]]
    return "\n".join(table)


def import_profile(command: Sequence[str], env: Mapping[str, str], lines: int = 14) -> str:
    """Run a command of `kaos` under -X importtime and return the imports with the most time of their own."""
    ended = run([sys.executable, "-X", "importtime", "-m", "kaos_cli", *command], env=env)
    rows = []
    for line in ended.stderr.splitlines():
        if line.startswith("import time:") and "self [us]" not in line:
            own, cumulative, name = line.removeprefix("import time:").split("|")
            rows.append((int(own), int(cumulative), name.strip()))
    rows.sort(reverse=True)
    table = [f"{'own ms':>7} {'all ms':>7}  import (-X importtime)"]
    table += [f"{own / 1000:7.1f} {all_ / 1000:7.1f}  {name}" for own, all_, name in rows[:lines]]
    return "\n".join(table)
