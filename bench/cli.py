"""The start of the command line, and the list of many jobs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench.home import Home
from bench.measure import Figure, Sizes, alternate, import_profile, median, python_profile, run, say, spread

_WORKSPACE = "many"
_SEED = Path(__file__).with_name("seed.py")


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figures of the command line."""
    runs = max(sizes.runs, 7)
    say("cli: help")
    airflow = Path(sys.executable).with_name("airflow")
    env = {**home.env, "AIRFLOW_HOME": str(home.state / "airflow")}
    seconds = alternate({"kaos --help": lambda _: home.kaos("--help").seconds}, runs)["kaos --help"]
    peer = run([airflow, "--help"], env=env).seconds
    figures = [
        Figure(
            "`kaos --help`",
            "0.15 s",
            f"{median(seconds):.2f} s",
            f"`airflow --help`: {peer:.2f} s",
            f"{peer / median(seconds):.0f}x",
            median(seconds) <= 0.15,
            spread(seconds),
            import_profile(["--help"], home.env) if median(seconds) > 0.15 else "",
        )
    ]
    say(f"cli: {sizes.jobs:,} jobs")
    home.new_workspace(_WORKSPACE)
    start = time.perf_counter()
    run([sys.executable, _SEED, home.state / "store", _WORKSPACE, str(sizes.jobs)], env=env)
    say(f"  made in {time.perf_counter() - start:.0f} s")
    listed = json.loads(home.kaos("train", "list", "-n", "10000", "-o", "json").stdout)
    states = {row["state"] for row in listed}
    assert len(listed) == sizes.jobs
    assert states == {"JOB_SUCCESS", "JOB_FAILURE"}, states
    ways = {
        "30 newest": lambda _: home.kaos("train", "list").seconds,
        "all of them": lambda _: home.kaos("train", "list", "-n", "10000").seconds,
    }
    found = alternate(ways, runs)
    dag = f"kaos.{_WORKSPACE}.train"
    peer = run([airflow, "dags", "list-runs", dag, "-o", "json"], env=env).seconds
    command = ["train", "list"]
    newest, everything = median(found["30 newest"]), median(found["all of them"])
    slow = newest > 0.3
    why = f"{import_profile(command, home.env)}\n\n{python_profile(command, home.env)}" if slow else ""
    peer_text = f"`airflow dags list-runs` (all): {peer:.2f} s"
    figures += [
        Figure(
            f"`kaos train list` with {sizes.jobs:,} jobs (the 30 newest)",
            "0.3 s",
            f"{newest:.2f} s",
            peer_text,
            f"{peer / newest:.0f}x",
            not slow,
            spread(found["30 newest"]),
            why,
        ),
        Figure(
            f"`kaos train list -n 10000`, all {sizes.jobs:,}",
            "",
            f"{everything:.2f} s",
            peer_text,
            f"{peer / everything:.1f}x",
            runs=spread(found["all of them"]),
        ),
    ]
    return figures
