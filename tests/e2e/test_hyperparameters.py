"""Grids, and what one does with a job of many trials: kill, rerun, reuse, retry."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.harness import Kaos, Server, until, write_data, write_source

pytestmark = pytest.mark.second

TRAIN = """#!/bin/sh
x=$(sed 's/.*"x": *\\([0-9]*\\).*/\\1/' "$KAOS_PARAMS")
case $x in
  7) [ -e {flag} ] || {{ echo "unlucky $x"; exit 3; }} ;;
  8) [ -e "$KAOS_CHECKPOINT/seen" ] || {{ touch "$KAOS_CHECKPOINT/seen"; exit 4; }} ;;
  99) sleep 600 ;;
esac
mkdir -p "$1/metrics"
date +%s.%N > "$1/began"
sleep 0.5
date +%s.%N > "$1/ended"
echo "{{\\"score\\": $x, \\"text\\": \\"no number\\", \\"nan\\": NaN}}" > "$1/metrics/metrics.json"
"""


def deploy(kaos: Kaos, tmp_path: Path, values: list[int], *options: str, code: int = 0) -> str:
    """Deploy a grid over x and wait for its end."""
    script = TRAIN.format(flag=tmp_path / "lucky")
    params = tmp_path / "params.json"
    params.write_text(json.dumps({"x": values, "constant": "a b"}))
    source, data = write_source(tmp_path / "source", script), write_data(tmp_path / "data")
    return kaos.deploy_and_wait("-s", source, "-d", data, "-h", params, *options, code=code)


def summary(kaos: Kaos, job_id: str) -> list[dict[str, Any]]:
    """Return the job's models, the best first."""
    return list(kaos.json("train", "compare", "-j", job_id, "-s", "score"))


def test_grid_trains_each_point_and_one_failure_does_not_sink_it(kaos: Kaos, tmp_path: Path) -> None:
    job_id = deploy(kaos, tmp_path, [1, 7, 3, 5], "-p", "2")
    job = kaos.info(job_id)
    assert job["state"] == "JOB_SUCCESS"
    assert job["metrics"] == ["nan", "score", "text"]
    rows = summary(kaos, job_id)
    assert [row["x"] for row in rows] == [5, 3, 1, 7]
    assert [row["reason"] for row in rows] == ["", "", "", "exit code 3"]
    assert all(row["model_id"].count("_") == 2 for row in rows[:3])
    best = kaos.run("train", "best", "-j", job_id, "-s", "score").stdout.strip()
    assert best == rows[0]["model_id"]
    lowest = kaos.run("train", "best", "-j", job_id, "-s", "score", "--ascending").stdout.strip()
    assert lowest == rows[2]["model_id"]
    for metric in ("text", "nan", "scroe"):
        assert kaos.run("train", "best", "-j", job_id, "-s", metric, code=3).stdout == ""
    table = kaos.run("train", "compare", "-j", job_id, "-o", "csv").stdout
    assert [row["x"] for row in csv.DictReader(io.StringIO(table))] == ["1", "7", "3", "5"]
    info = kaos.run("train", "info", "-j", job_id, "-s", "score").stdout
    assert "/constant=a-b_x=5.json" in info
    # Never more than two at a time: of the intervals that the scripts wrote, no three overlap.
    kaos.run("train", "get", "-j", job_id, "-m")
    intervals = [
        (float((path / "began").read_text()), float((path / "ended").read_text()))
        for path in kaos.directory.glob("*/*/models/*")
    ]
    assert len(intervals) == 3
    assert all(sum(begin <= moment < end for begin, end in intervals) <= 2 for moment, _ in intervals)


def test_only_failed_trials_run_again_on_the_same_inputs(kaos: Kaos, tmp_path: Path) -> None:
    job_id = deploy(kaos, tmp_path, [7, 2])
    write_data(tmp_path / "data", "changed\n")
    kaos.run("train", "deploy", "-d", tmp_path / "data")  # the workspace's inputs are others now
    (tmp_path / "lucky").touch()
    kaos.run("train", "rerun", "-j", job_id, "--failed", "--wait")
    again = kaos.json("train", "list")[0]["job_id"]
    assert [row["x"] for row in summary(kaos, again)] == [7]
    assert kaos.info(again)["models"][0]["data_digest"] == kaos.info(job_id)["models"][0]["data_digest"]
    assert "No trial" in kaos.run("train", "rerun", "-j", again, "--failed", code=4).stderr


def test_retry_keeps_the_checkpoint_and_reuse_trains_nothing(kaos: Kaos, tmp_path: Path) -> None:
    failed = deploy(kaos, tmp_path, [8], "--retries", "3", code=1)
    assert kaos.info(failed)["state"] == "JOB_FAILURE"  # an error of the script is final unless asked
    job_id = deploy(kaos, tmp_path, [8], "--retries", "1", "--retry-errors")
    first = summary(kaos, job_id)
    began = time.monotonic()
    reused = kaos.deploy_and_wait("--reuse")
    assert time.monotonic() - began < 60
    assert summary(kaos, reused)[0]["model_id"] == first[0]["model_id"]
    assert [row["reused_from"] for row in (*first, *summary(kaos, reused))] == [None, job_id]
    assert kaos.info(reused)["models"][0]["reused_from"] == job_id
    assert f"from job {job_id[:14]}" in kaos.run("train", "info", "-j", reused).stdout


def test_killed_job_leaves_no_process_and_stays_killed(server: Server, kaos: Kaos, tmp_path: Path) -> None:
    script = TRAIN.format(flag=tmp_path / "lucky")
    (tmp_path / "params.json").write_text('{"x": [99, 98]}')
    job_id = kaos.deploy(
        *("-s", write_source(tmp_path / "source", script), "-d", write_data(tmp_path / "data")),
        *("-h", tmp_path / "params.json"),
    )

    def scripts() -> list[psutil.Process]:
        found = []
        for process in server.processes():
            try:
                if process.environ().get("KAOS_JOB") == job_id:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    until(lambda: [process for process in scripts() if process.name() == "sleep"], 60, "the script")
    began = time.monotonic()
    assert "Successfully killed" in kaos.run("train", "kill", "-j", job_id).stderr
    until(lambda: not scripts(), 3, "the end of the script")
    print(f"killed within {time.monotonic() - began:.1f} s")
    assert kaos.info(job_id)["state"] == "JOB_KILLED"
    assert "has ended already, as JOB_KILLED" in kaos.run("train", "kill", "-j", job_id, code=4).stderr
    assert kaos.run("train", "kill", "-j", "f" * 32, code=3).stderr


def test_many_failures_stop_the_job_early(kaos: Kaos, tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps({"x": list(range(40))}))
    source = write_source(tmp_path / "source", "#!/bin/sh\nexit 5\n")
    kaos.deploy_and_wait(
        *("-s", source, "-d", write_data(tmp_path / "data"), "-h", tmp_path / "params.json"),
        *("-p", "2", "--max-failed", "3"),
        code=1,
    )
    job = kaos.json("train", "list")[0]
    assert job["state"] == "JOB_FAILURE"
    assert len(summary(kaos, job["job_id"])) < 12


def test_unusable_hyperparameters_start_nothing(kaos: Kaos, tmp_path: Path) -> None:
    source, data = write_source(tmp_path / "source", "#!/bin/sh\n"), write_data(tmp_path / "data")
    path = tmp_path / "params.json"
    for content, reason in (
        ('{"x": []}', "the list is empty"),
        ('{"x": NaN}', "NaN is no value"),
        ('{"x": {"min": 0, "max": 1}}', "--samples"),
        (json.dumps({name: list(range(100)) for name in "abc"}), "1000000 trials, this server allows 10000"),
    ):
        path.write_text(content)
        shown = kaos.run("train", "deploy", "-s", source, "-d", data, "-h", path, code=2)
        assert reason in shown.stderr
    assert kaos.json("train", "list") == []


def test_batched_trials_all_come_back(kaos: Kaos, tmp_path: Path) -> None:
    params = tmp_path / "params.json"
    params.write_text(json.dumps({"x": list(range(210))}))
    script = '#!/bin/sh\nmkdir "$1/metrics"; sed "s/x/score/" "$KAOS_PARAMS" > "$1/metrics/metrics.json"\n'
    source, data = write_source(tmp_path / "source", script), write_data(tmp_path / "data")
    job_id = kaos.deploy_and_wait("-s", source, "-d", data, "-h", params, "-p", "4")
    assert sorted(row["score"] for row in summary(kaos, job_id)) == list(range(210))
    tasks = [stage for stage in kaos.info(job_id)["stages"] if stage["task_id"].startswith("train")]
    assert len(tasks) == 16
    assert kaos.info(job_id)["pages"] == 21
