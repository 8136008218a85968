"""The start of the command line, and the list of many jobs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.home import Home
from bench.measure import (
    CommandError,
    Figure,
    Sizes,
    alternate,
    import_profile,
    median,
    python_profile,
    run,
    say,
    spread,
)

_WORKSPACE = "many"
_AIRFLOW = Path(sys.executable).with_name("airflow")
_SEED = Path(__file__).with_name("seed.py")


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figures of the command line."""
    runs = max(sizes.runs, 7)
    return [_help(home, runs), *_lists(home, sizes.jobs, runs)]


def _help(home: Home, runs: int) -> Figure:
    say("cli: help")
    seconds = alternate({"kaos --help": lambda _: home.kaos("--help").seconds}, runs)["kaos --help"]
    peer = run([_AIRFLOW, "--help"], env=_server_environment(home)).seconds
    return Figure(
        "`kaos --help`",
        "0.15 s",
        f"{median(seconds):.2f} s",
        f"`airflow --help`: {peer:.2f} s",
        f"{peer / median(seconds):.0f}x",
        median(seconds) <= 0.15,
        spread(seconds),
        import_profile(["--help"], home.env) if median(seconds) > 0.15 else "",
    )


def _lists(home: Home, jobs: int, runs: int) -> list[Figure]:
    say(f"cli: {jobs:,} jobs")
    home.new_workspace(_WORKSPACE)
    env = _server_environment(home)
    made = run([sys.executable, _SEED, home.state / "store", _WORKSPACE, str(jobs)], env=env)
    say(f"  made in {made.seconds:.0f} s")
    states = {row["state"] for row in json.loads(home.kaos("train", "list", "-o", "json").stdout)}
    assert states == {"JOB_SUCCESS", "JOB_FAILURE"}, states
    peer = run([_AIRFLOW, "dags", "list-runs", f"kaos.{_WORKSPACE}.train", "-o", "json"], env=env).seconds
    what = f"`kaos train list` with {jobs:,} jobs (the 30 newest)"
    figures = [_list(home, what, ["train", "list"], 0.3, peer, runs)]
    everything = ["train", "list", "-n", "10000"]
    try:
        figures.append(_list(home, f"`kaos train list -n 10000`, all {jobs:,}", everything, None, peer, runs))
    except CommandError as error:
        figures.append(
            Figure(f"`kaos train list -n 10000`, all {jobs:,}", "", "fails", why=str(error), reached=False)
        )
    return figures


def _list(home: Home, what: str, command: list[str], limit: float | None, peer: float, runs: int) -> Figure:
    seconds = alternate({" ".join(command): lambda _: home.kaos(*command).seconds}, runs).popitem()[1]
    found = median(seconds)
    slow = limit is not None and found > limit
    return Figure(
        what,
        f"{limit} s" if limit else "",
        f"{found:.2f} s",
        f"`airflow dags list-runs` (all): {peer:.2f} s",
        f"{peer / found:.1f}x",
        not slow if limit else None,
        spread(seconds),
        f"{import_profile(command, home.env)}\n\n{python_profile(command, home.env)}" if slow else "",
    )


def _server_environment(home: Home) -> dict[str, str]:
    return {**home.env, "AIRFLOW_HOME": str(home.state / "airflow")}
