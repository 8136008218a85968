"""Metrics of trials that still run: in `train info`, while following, and of the model at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.harness import Kaos, Server, until, write_data, write_source

TRAIN = """
import json, os, sys, time
from pathlib import Path
x = json.loads(Path(os.environ["KAOS_PARAMS"]).read_text())["x"]
folder = Path(os.environ["KAOS_OUTPUT"]) / "metrics"
folder.mkdir()
step = 0
while not Path({flag!r}).exists():
    step += 1
    with (folder / "train.jsonl").open("a") as file:
        print(json.dumps({{"step": step, "loss": x + 1 / step, "note": "text"}}), file=file)
    time.sleep(0.3)
print("last", x)
with (folder / "train.jsonl").open("a") as file:
    file.write(json.dumps({{"step": step + 1, "loss": -x, "worst": float("nan")}}))
"""


def test_metrics_of_running_trials_show_and_the_last_ones_stay(
    server: Server, kaos: Kaos, tmp_path: Path, workspace: str
) -> None:
    flag, params = tmp_path / "flag", tmp_path / "params.json"
    params.write_text('{"x": [3, 5]}')
    source = write_source(tmp_path / "source", TRAIN.format(flag=str(flag)))
    data = write_data(tmp_path / "data")
    deploy = kaos.start("train", "deploy", "-s", source, "-d", data, "-h", params, "-p", "2", "--wait")
    try:
        job_id = until(lambda: [job["job_id"] for job in kaos.json("train", "list")], 60, "the job")[0]

        def both_run() -> Any:
            job = kaos.json("train", "info", "-j", job_id, "-s", "loss")
            return job if len(job["live"]) == 2 else None

        job = until(both_run, 60, "metrics of both trials")
        assert job["metrics"] == ["loss"]
        assert [row["hyperparams"] for row in job["models"]] == [{"x": 5}, {"x": 3}]
        for row in job["models"]:
            assert row["state"] == "JOB_RUNNING"
            assert row["score"] == row["metrics"]["loss"] == row["hyperparams"]["x"] + 1 / row["step"]
        table = kaos.run("train", "info", "-j", job_id).stdout
        assert "JOB_RUNNING" in table
        assert "loss=" in table
        assert [row["reason"] for row in kaos.json("train", "compare", "-j", job_id)] == [
            "running",
            "running",
        ]
        followed = kaos.start("train", "logs", "-j", job_id, "--follow")
        assert followed.stderr is not None
        lines = [followed.stderr.readline() for _ in range(2)]
        assert all(line.startswith("metrics: loss=") and " step=" in line for line in lines)
        assert lines[0] != lines[1]
    finally:
        flag.touch()
    _, err = deploy.communicate(timeout=60)
    assert deploy.returncode == 0, err
    assert "x=3 metrics: loss=" in err
    assert "x=5 metrics: loss=" in err
    assert followed.communicate(timeout=60)[0] == "last 3\n"  # metrics are no part of the script's lines
    ended = kaos.info(job_id)
    assert ended["live"] == []
    assert [row["metrics"]["loss"] for row in ended["models"]] == [-3, -5]
    assert ended["metrics"] == ["loss", "worst"]
    picture = tmp_path / "curves.svg"
    kaos.run("train", "compare", "-j", job_id, "-s", "loss", "--plot", picture)
    shown = picture.read_text()
    assert all(f"<!-- {text} -->" in shown for text in ("step", "x=3", "x=5", "2 trials"))
    refs = server.home / "store" / "refs" / "workspaces" / workspace / "live"
    assert [path for path in refs.rglob("*") if path.is_file()] == []


def test_a_script_that_writes_nonsense_is_trained_all_the_same(kaos: Kaos, tmp_path: Path) -> None:
    script = """
import os, time
from pathlib import Path
folder = Path(os.environ["KAOS_OUTPUT"]) / "metrics"
folder.mkdir()
(folder / "nonsense.jsonl").write_bytes(bytes(range(256)) * 40_000)
(folder / "names.jsonl").write_text("{" + ", ".join(f'"m{i}": {i}' for i in range(3000)) + "}\\n")
time.sleep(2.5)
"""
    source, data = write_source(tmp_path / "source", script), write_data(tmp_path / "data")
    job = kaos.info(kaos.deploy_and_wait("-s", source, "-d", data))
    assert len(job["models"][0]["metrics"]) == 100
