"""From `kaos train deploy` to the script's first line, beside a DAG of the same shape that does nothing."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.home import Home, source_bundle
from bench.measure import Figure, Sizes, median, p95, python_profile, say, spread

_SCRIPT = "import time\nprint(time.time(), flush=True)\n"
_WORKSPACE = "latency"
_DAG = "bench_noop"
_NOOP = '''"""A DAG of the same shape as those that kaos generates, whose tasks do nothing."""

import time
from pathlib import Path

from airflow.sdk import DAG, get_current_context, task

with DAG(dag_id="bench_noop", schedule=None, catchup=False, max_active_runs=1000, max_active_tasks=1000):

    @task
    def ingest():
        return {"seconds": 0}

    @task
    def build():
        return {"seconds": 0}

    @task
    def plan():
        return [{"index": 0}]

    @task(max_active_tis_per_dagrun=4)
    def train(trial, environment):
        now = time.time()
        Path(get_current_context()["dag_run"].conf["file"]).write_text(str(now))

    @task(trigger_rule="all_done")
    def register():
        return {"models": []}

    trained = train.partial(environment=build()).expand(trial=plan())
    ingest() >> trained >> register()
'''


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figures of latency."""
    say(f"latency: {sizes.deploys} deploys")
    source = source_bundle(home.scratch / "latency-source", _SCRIPT)
    data = home.scratch / "latency-data"
    data.mkdir()
    (data / "data.csv").write_text("1,2\n")
    home.new_workspace(_WORKSPACE)
    (home.state / "airflow" / "dags" / f"{_DAG}.py").write_text(_NOOP)
    home.wait_for_dag(_DAG)
    chain = _Noop(home)
    deploys = _Deploys(home, source, data)
    for warm_up in range(2):
        deploys.run()
        chain.run()
        say(f"  warm-up {warm_up + 1}: {deploys.seconds.pop():.2f} s, no-op {chain.seconds.pop():.2f} s")
    deploys.jobs.clear()
    for _ in range(sizes.deploys):
        deploys.run()
        chain.run()
        say(f"  kaos {deploys.seconds[-1]:.2f} s, no-op {chain.seconds[-1]:.2f} s")
    mine, peer = p95(deploys.seconds), p95(chain.seconds)
    ratio = mine / peer
    timeline = deploys.timeline() + "\n\n" + chain.timeline()
    if max(mine / 2, ratio / 1.2) > 1:
        env = home.env
        timeline += "\n\n" + python_profile(["train", "deploy", "-s", str(source), "-d", str(data)], env, 10)
    middle, peer_middle = median(deploys.seconds), median(chain.seconds)
    medians = f"medians {middle:.2f} and {peer_middle:.2f} s, {middle / peer_middle:.2f}x"
    what = f"deploy to the first line of `train`, warm, p95 of {sizes.deploys}"
    peer_text = f"no-op chain: {peer:.2f} s"
    return [
        Figure(what, "2 s", f"{mine:.2f} s", peer_text, "", mine <= 2, spread(deploys.seconds), timeline),
        Figure(
            "the same, beside a chain of no-op tasks",
            "1.2x",
            f"{mine:.2f} s",
            f"{peer_text}; {medians}",
            f"{ratio:.2f}x",
            ratio <= 1.2,
            f"no-op {spread(chain.seconds)}",
            "See the timeline above." if mine > 2 or ratio <= 1.2 else timeline,
        ),
    ]


class _Deploys:
    def __init__(self, home: Home, source: Path, data: Path) -> None:
        self._home, self._source, self._data = home, source, data
        self.seconds: list[float] = []
        self.jobs: list[tuple[float, float, str]] = []

    def run(self) -> None:
        """Deploy, wait for the end of the job, and read what the script printed."""
        start = time.time()
        ended = self._home.kaos("train", "deploy", "-s", self._source, "-d", self._data, "-o", "json")
        job = str(json.loads(ended.stdout)["job_id"])
        self._home.wait(job)
        first = float(self._home.kaos("train", "logs", "-j", job).stdout.split()[0])
        self.seconds.append(first - start)
        self.jobs.append((start, first, job))
        time.sleep(0.5)

    def timeline(self) -> str:
        """Return the stations of the deploy in the middle, in seconds from the start of the command."""
        start, first, job = sorted(self.jobs, key=lambda each: each[1] - each[0])[len(self.jobs) // 2]
        stations = _stations(self._home, f"kaos.{_WORKSPACE}.train", job)
        return _table(
            "kaos train deploy (the median one)", start, [*stations, (first, "first line of the script")]
        )


class _Noop:
    def __init__(self, home: Home) -> None:
        self._home = home
        self.seconds: list[float] = []
        self.runs: list[tuple[float, float, str]] = []

    def run(self) -> None:
        """Trigger the chain by one request, wait for its end, and read when the mapped task ran."""
        file = self._home.scratch / "noop-time"
        file.unlink(missing_ok=True)
        start = time.time()
        body = {"conf": {"file": str(file)}, "logical_date": None}
        run = self._home.api("POST", f"/api/v2/dags/{_DAG}/dagRuns", body)["dag_run_id"]
        while self._home.api("GET", f"/api/v2/dags/{_DAG}/dagRuns/{run}")["state"] in ("queued", "running"):
            time.sleep(0.2)
        first = float(file.read_text())
        self.seconds.append(first - start)
        self.runs.append((start, first, run))
        time.sleep(0.5)

    def timeline(self) -> str:
        """Return the stations of the run in the middle, in seconds from the request."""
        start, first, run = sorted(self.runs, key=lambda each: each[1] - each[0])[len(self.runs) // 2]
        stations = _stations(self._home, _DAG, run)
        return _table(
            "no-op chain (the median one)", start, [*stations, (first, "function of the mapped task")]
        )


def _stations(home: Home, dag: str, run: str) -> list[tuple[float, str]]:
    """Return when the run was queued and started, and each task was scheduled, queued, started and ended."""
    at = f"/api/v2/dags/{dag}/dagRuns/{run}"
    record = home.api("GET", at)
    found = [(record["queued_at"], "run created"), (record["start_date"], "run started")]
    task: dict[str, Any]
    for task in home.api("GET", f"{at}/taskInstances")["task_instances"]:
        for key, word in (
            ("scheduled_when", "scheduled"),
            ("queued_when", "queued"),
            ("start_date", "started"),
            ("end_date", "ended"),
        ):
            found.append((task.get(key), f"{task['task_id']} {word}"))
    return [(datetime.fromisoformat(moment).timestamp(), what) for moment, what in found if moment]


def _table(title: str, start: float, stations: list[tuple[float, str]]) -> str:
    lines = [f"{moment - start:7.3f} s  {what}" for moment, what in sorted(stations)]
    return "\n".join([title, *lines])
