"""A thousand trials that do nothing, beside as many plainly mapped tasks; and ten thousand of them."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.home import DOCKERFILE, Home
from bench.measure import Figure, Sizes, median, say, spread

_CAP = 8
_WORKSPACE = "fanout"
_DAG = "bench_mapped"
_MAPPED = f'''"""As many tasks that do nothing as the configuration says, mapped plainly."""

from airflow.sdk import DAG, task

with DAG(dag_id="{_DAG}", schedule=None, catchup=False, max_active_runs=1000, max_active_tasks=1000):

    @task
    def plan(dag_run=None):
        return list(range(dag_run.conf["trials"]))

    @task(max_active_tis_per_dagrun={_CAP})
    def train(trial):
        return trial

    train.expand(trial=plan())
'''


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figures of the fan-out."""
    say(f"fanout: {sizes.trials} trials that do nothing, {_CAP} at a time")
    (home.state / "airflow" / "dags" / f"{_DAG}.py").write_text(_MAPPED)
    home.wait_for_dag(_DAG)
    source, data = _bundles(home.scratch)
    home.new_workspace(_WORKSPACE)
    _kaos(home, source, data, 2)  # the environment, and the DAG with this many at a time
    mine, peaks = [], []
    for _ in range(2):
        seconds, peak = _kaos(home, source, data, sizes.trials)
        mine.append(seconds)
        peaks.append(peak)
    plain = _plain(home, sizes.trials)
    many, peak = _kaos(home, source, data, sizes.many_trials)
    peaks.append(peak)
    own, ratio = median(mine), plain / median(mine)
    return [
        Figure(
            f"{sizes.trials:,} trials that do nothing, `-p {_CAP}`, deploy to JOB_SUCCESS",
            "5x faster than plainly mapped tasks",
            f"{own:.1f} s",
            f"{sizes.trials:,} mapped tasks that do nothing: {plain:.1f} s",
            f"{ratio:.1f}x",
            ratio >= 5,
            spread(mine),
            "See the notes on the cost of a trial in docs/decisions/fanout.md.",
        ),
        Figure(
            f"{sizes.many_trials:,} trials that do nothing",
            "all of them end well",
            f"{many:.1f} s, {many / sizes.many_trials * 1000:.0f} ms a trial",
            reached=True,
        ),
        Figure(
            "scripts that ran at the same moment, of all those jobs",
            f"never more than {_CAP}",
            f"at most {max(peaks)}",
            reached=max(peaks) <= _CAP,
        ),
    ]


def _bundles(scratch: Path) -> tuple[Path, Path]:
    """Write a source bundle whose `train` does nothing at all, and a data bundle."""
    model, data = scratch / "fanout-source" / "noop" / "model", scratch / "fanout-data"
    model.mkdir(parents=True)
    data.mkdir()
    (model.parent / "Dockerfile").write_text(DOCKERFILE)
    (model / "requirements.txt").touch()
    (model / "train").write_text("#!/bin/sh\nexit 0\n")
    (model / "train").chmod(0o755)
    (data / "data.csv").write_text("1,2\n")
    return model.parent.parent, data


def _kaos(home: Home, source: Path, data: Path, trials: int) -> tuple[float, int]:
    """Return the seconds of a job from its deploy to its end, and how many scripts ran at once, at most."""
    params = home.scratch / "params.json"
    params.write_text(json.dumps({"x": list(range(trials))}))
    start = time.perf_counter()
    deploy = ("train", "deploy", "-s", source, "-d", data, "-h", params, "-p", str(_CAP), "-o", "json")
    job = str(json.loads(home.kaos(*deploy).stdout)["job_id"])
    while (state := _state(home)) in ("JOB_STARTING", "JOB_RUNNING"):
        time.sleep(0.5)
    seconds = time.perf_counter() - start
    records = _records(home, job)
    if state != "JOB_SUCCESS" or len(records) != trials or not all(each["succeeded"] for each in records):
        raise RuntimeError(f"Job {job} ended as {state} with {len(records)} trials of {trials}.")
    peak = _at_once(records)
    say(f"  kaos, {trials} trials: {seconds:.1f} s, at most {peak} scripts at once")
    return seconds, peak


def _state(home: Home) -> str:
    """Return the state of the newest job; by a request that costs the server little."""
    jobs = home.api("GET", f"/kaos/api/v1/workspaces/{_WORKSPACE}/jobs?limit=1")["jobs"]
    return str(jobs[0]["state"])


def _records(home: Home, job: str) -> list[dict[str, Any]]:
    """Return what the store has of a job's trials."""
    directory = home.state / "store" / "refs" / "workspaces" / _WORKSPACE / "trials" / job
    return [json.loads(path.read_text()) for path in sorted(directory.iterdir())]


def _at_once(records: list[dict[str, Any]]) -> int:
    """Return how many of these intervals overlap, at most: from before a script begins to after its end."""
    edges: list[tuple[datetime, int]] = []
    for record in records:
        edges.append((datetime.fromisoformat(record["started_at"]), 1))
        edges.append((datetime.fromisoformat(record["ended_at"]), -1))
    most = now = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


def _plain(home: Home, trials: int) -> float:
    """Return the seconds of a run of mapped tasks from the request to its end."""
    start = time.perf_counter()
    body = {"conf": {"trials": trials}, "logical_date": None}
    run = home.api("POST", f"/api/v2/dags/{_DAG}/dagRuns", body)["dag_run_id"]
    while (state := home.api("GET", f"/api/v2/dags/{_DAG}/dagRuns/{run}")["state"]) in ("queued", "running"):
        time.sleep(0.5)
    seconds = time.perf_counter() - start
    if state != "success":
        raise RuntimeError(f"The run of mapped tasks ended as {state}.")
    say(f"  plainly mapped, {trials} tasks: {seconds:.1f} s")
    return seconds
