"""Jobs that start by themselves: `train schedule`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from faults import FaultServer

from e2e.harness import TRAIN, Kaos, Server, until, until_gone, write_data, write_source
from e2e.test_manifest import write_manifest


@pytest.fixture
def remote() -> Iterator[FaultServer]:
    with FaultServer().running() as found:
        yield found


def last(kaos: Kaos, name: str = "scheduled") -> dict[str, Any] | None:
    """Return what the last run of a schedule came to."""
    rows = {row["name"]: row for row in kaos.json("train", "schedule", "list")}
    found: dict[str, Any] | None = rows[name]["last"]
    return found


def after(kaos: Kaos, before: dict[str, Any] | None, name: str = "scheduled") -> dict[str, Any]:
    """Return what the next run of a schedule came to, at its end."""

    def ended() -> dict[str, Any] | None:
        now = last(kaos, name)
        fresh = now is not None and (before is None or now["at"] > before["at"])
        return now if fresh and now and now["state"] not in ("JOB_STARTING", "JOB_RUNNING") else None

    return until(ended, 90, f"the next run of {name}", every=0.3)


def next_run(
    kaos: Kaos, server: Server, token: str, workspace: str, name: str = "scheduled"
) -> dict[str, Any]:
    """Trigger a schedule's DAG, and return what the run came to."""
    before = last(kaos, name)
    trigger(server, token, workspace, name)
    return after(kaos, before, name)


def skipped_tasks(answer: Any) -> set[str] | None:
    """Return the ids of a run's tasks if all of them were skipped."""
    tasks = answer["task_instances"]
    return {task["task_id"] for task in tasks} if {task["state"] for task in tasks} == {"skipped"} else None


def trigger(server: Server, token: str, workspace: str, name: str) -> str:
    """Trigger a schedule's DAG as Airflow's UI does, and return the run's id."""
    with server.http(token) as http:
        answer = http.post(f"/api/v2/dags/kaos.{workspace}.{name}/dagRuns", json={"logical_date": None})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["dag_run_id"])


def test_a_schedule_trains_once_and_again_when_something_changed(
    kaos: Kaos, server: Server, token: str, workspace: str, tmp_path: Path
) -> None:
    kaos.run("train", "schedule", "--every", "5s")
    nothing = after(kaos, None)
    assert (nothing["skipped"], nothing["job_id"]) == (True, None)
    assert "There is no source and no data yet" in nothing["reason"]
    nothing = after(kaos, nothing)  # by itself, once more

    # From here on the runs are triggered by hand.
    kaos.run("train", "schedule", "--cron", "0 3 * * *")
    source = write_source(tmp_path / "s", TRAIN)
    kaos.run("train", "deploy", "-s", source, "-d", write_data(tmp_path / "d"), "--no-run")
    trained = next_run(kaos, server, token, workspace)
    assert trained["state"] == "JOB_SUCCESS"
    job = kaos.info(trained["job_id"])
    (row,) = kaos.json("train", "schedule", "list")
    assert (job["schedule"], job["author"]) == ("scheduled", row["schedule"]["author"])
    shown = kaos.run("train", "info", "-j", job["job_id"]).stdout
    assert "Triggered by: schedule scheduled, which" in shown
    skipped = next_run(kaos, server, token, workspace)
    assert skipped["skipped"]
    assert skipped["reason"] == f"Nothing has changed since job {job['job_id']}, which succeeded."
    with server.http(token) as http:
        runs = http.get(f"/api/v2/dags/{job['dag_id']}/dagRuns", params={"order_by": "-run_after"}).json()
        run = runs["dag_runs"][0]["dag_run_id"]
        at = f"/api/v2/dags/{job['dag_id']}/dagRuns/{quote(run)}/taskInstances"
        tasks = until(lambda: skipped_tasks(http.get(at).json()), 20, "the end of the run")
        assert tasks == {"pin", "ingest", "build", "plan", "train", "register"}
        lines = http.get(f"{at}/pin/logs/1", headers={"Accept": "application/json"}).json()["content"]
        assert any(skipped["reason"] in str(line) for line in lines)
        page = http.get(f"/kaos/ui/runs/{job['dag_id']}/{quote(job['url'].rpartition('/')[2])}")
        assert page.status_code == 200
        assert "triggered by schedule" in page.text

    kaos.run("train", "deploy", "-d", write_data(tmp_path / "d2", "4,5\n"), "--no-run")
    again = next_run(kaos, server, token, workspace)
    assert again["state"] == "JOB_SUCCESS"
    assert kaos.info(again["job_id"])["data"] != job["data"]
    assert len(kaos.json("train", "list")) == 2

    kaos.run("train", "schedule", "pause")
    assert kaos.json("train", "schedule", "list")[0]["paused"]
    assert "paused" in kaos.run("train", "schedule", "list").stdout
    kaos.run("train", "rerun", "-j", again["job_id"], "--wait")
    rerun = kaos.info(kaos.json("train", "list")[0]["job_id"])
    assert (rerun["schedule"], rerun["dag_id"]) == (None, f"kaos.{workspace}.train")
    kaos.run("train", "schedule", "resume")
    assert not kaos.json("train", "schedule", "list")[0]["paused"]

    kaos.run("train", "schedule", "delete")
    assert kaos.json("train", "schedule", "list") == []
    with server.http(token) as http:
        until_gone(http, f"kaos.{workspace}.scheduled")
    assert kaos.info(again["job_id"])["models"][0]["model_id"]


def test_schedules_of_a_workspace_go_with_it(
    kaos: Kaos, server: Server, token: str, workspace: str, tmp_path: Path
) -> None:
    slow = f"import time\ntime.sleep(60)\n{TRAIN}"
    kaos.run(
        "train",
        "deploy",
        "-s",
        write_source(tmp_path / "s", slow),
        "-d",
        write_data(tmp_path / "d"),
        "--no-run",
    )
    kaos.run(
        "train",
        "schedule",
        "--cron",
        "0 3 * * *",
        "--timezone",
        "Europe/Berlin",
        "--job",
        "nightly",
        "--always",
    )
    kaos.run("train", "schedule", "--on-data", "--job", "fresh", "--check-every", "1h")
    rows = {row["name"]: row for row in kaos.json("train", "schedule", "list")}
    assert rows["nightly"]["when"] == "0 3 * * * (Europe/Berlin)"
    assert rows["nightly"]["next"].endswith(("T02:00:00Z", "T01:00:00Z"))
    assert (rows["fresh"]["when"], rows["fresh"]["next"]) == ("on new data", None)
    with server.http(token) as http:
        dag = http.get(f"/api/v2/dags/kaos.{workspace}.nightly").json()
        assert dag["timetable_summary"] == "0 3 * * *"
        assert dag["dag_display_name"] == f"{workspace}: nightly"
    trigger(server, token, workspace, "nightly")
    until(lambda: (now := last(kaos, "nightly")) and now["state"] == "JOB_RUNNING", 60, "the job")
    killed = kaos.run("workspace", "kill", "-n", workspace, "--yes")
    assert "1 " in killed.stderr + killed.stdout
    with server.http(token) as http:
        for name in ("train", "nightly", "fresh", "watch"):
            until_gone(http, f"kaos.{workspace}.{name}")
    kaos.run("workspace", "create", "-n", workspace)
    assert kaos.json("train", "schedule", "list") == []
    assert kaos.json("workspace", "info")["dags"] == [f"kaos.{workspace}.train"]


def test_new_data_starts_one_job_however_often_it_is_told(
    kaos: Kaos, server: Server, token: str, workspace: str, tmp_path: Path, remote: FaultServer
) -> None:
    """A manifest's file changes; two schedulers, and the same event many times: one job."""
    source = write_source(tmp_path / "s", '#!/bin/sh\ncat "$KAOS_DATA"/* > "$KAOS_OUTPUT/seen"\n')
    manifest = write_manifest(tmp_path / "features" / "data.mf", remote, {"a": b"a", "b": b"b"})
    first = kaos.deploy_and_wait("-s", source, "-m", manifest)
    kaos.run("train", "schedule", "--on-data", "--check-every", "5s")
    with second_scheduler(server):
        time.sleep(8)  # what the last job had is not new
        assert last(kaos) is None
        remote.files["b"] = b"changed"
        fresh = after(kaos, None)
        assert fresh["state"] == "JOB_SUCCESS"
        job = kaos.info(fresh["job_id"])
        assert job["manifest"]["digest"] == kaos.info(first)["manifest"]["digest"]
        assert job["data"]["digest"] != kaos.info(first)["data"]["digest"]
        with server.http(token) as http:
            (asset,) = http.get("/api/v2/assets", params={"uri_pattern": f"kaos://{workspace}/data"}).json()[
                "assets"
            ]
            body = {"asset_id": asset["id"], "extra": {}}

            def tell(_: int) -> int:
                return http.post("/api/v2/assets/events", json=body).status_code

            with ThreadPoolExecutor(4) as pool:
                assert set(pool.map(tell, range(8))) == {200}
        assert after(kaos, fresh)["reason"] == f"Nothing has changed since job {job['job_id']}."
        kaos.run("train", "deploy", "-d", write_data(tmp_path / "d"), "--no-run")
        deployed = until(
            lambda: (now := last(kaos)) and now["state"] == "JOB_SUCCESS" and now["at"] > fresh["at"] and now,
            60,
            "a job on the deployed data",
        )
        assert kaos.info(deployed["job_id"])["manifest"] is None
    assert len(kaos.json("train", "list")) == 3


class second_scheduler:
    """Another `airflow scheduler` on the same database, as a second machine has one."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> None:
        pid = self._server.pid("scheduler")
        environment = dict(
            pair.split("=", 1) for pair in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in pair
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs"],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with self._server.http(self._server.owner_token()) as http:
            jobs = "/api/v2/jobs?job_type=SchedulerJob&is_alive=true"
            until(lambda: len(http.get(jobs).json()["jobs"]) == 2, 60, "the second scheduler", every=0.5)

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, 15)
        self._process.wait(60)


def test_refusals(kaos: Kaos) -> None:
    for options, said in (
        ([], "When?"),
        (["--cron", "0 25 * * *"], "'0 25 * * *' cannot be used"),
        (["--cron", "0 3 31 2 *"], "such a day never comes"),
        (["--cron", "* * * * * *"], "no cron expression of five fields"),
        (["--cron", "@daily", "--timezone", "Mars"], "There is no time zone 'Mars'"),
        (["--cron", "@daily", "--every", "6h"], "one kind of time"),
        (["--cron", "0," * 300 + "0 * * * *"], "has 609 characters"),
        (["--every", "1s"], "out of bounds"),
        (["--on-data", "--always"], "never always"),
        (["--cron", "@daily", "--job", "train"], "cannot name a schedule"),
        (["--cron", "@daily", "--job", "A b"], "not a valid job name"),
        (["--cron", "@daily", "list"], "do not go with a command"),
        (["--every", "1h", "--cpu", "4096"], "asks for 4096 cores"),
    ):
        assert said in kaos.run("train", "schedule", *options, code=2).stderr
    missing = kaos.run("train", "schedule", "pause", "--job", "nothing", code=3)
    assert "There is no schedule 'nothing'" in missing.stderr
    assert kaos.json("train", "schedule", "list") == []
