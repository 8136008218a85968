"""`train kill` of a job in full swing: how long it takes until nothing of it is left."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from e2e.harness import Kaos, Server, until, write_data, write_source
from kaos.catalog import Catalog
from kaos.job import JobOutcome, JobState
from kaos.store import open_store

STUBBORN = """#!/bin/sh
# Neither it nor its children end when they are asked to; one of them leaves its session.
trap "" TERM INT HUP
sh -c 'trap "" TERM INT HUP; while :; do sleep 1; done' &
setsid sh -c 'trap "" TERM INT HUP; while :; do sleep 1; done' &
while :; do sleep 1; done
"""
AT_ONCE = 8
WAITING = 100
SECONDS = 10.0
"""What a busy machine is given; an idle one takes less than three."""


def scripts(server: Server, job_id: str) -> list[psutil.Process]:
    """Return all processes of a job's scripts."""
    found = []
    for process in server.processes():
        try:
            if process.environ().get("KAOS_JOB") == job_id:
                found.append(process)
        except psutil.Error:
            continue
    return found


def busy(server: Server, token: str, workspace: str, job_id: str) -> list[Any]:
    """Return the task instances of the job's run that hold or wait for a slot."""
    with server.http(token) as http:
        answer = http.get(
            f"/api/v2/dags/kaos.{workspace}.train/dagRuns/{job_id}/taskInstances", params={"limit": 200}
        )
        pool = http.get("/api/v2/pools/default_pool").json()
    active = ("running", "queued", "scheduled", "restarting", "deferred", "up_for_retry")
    tasks = [task for task in answer.json()["task_instances"] if task["state"] in active]
    return tasks + [pool] * bool(pool["occupied_slots"])


def test_killed_job_is_gone_within_seconds(
    server: Server, kaos: Kaos, token: str, workspace: str, tmp_path: Path
) -> None:
    params = tmp_path / "params.json"
    params.write_text(json.dumps({"x": list(range(AT_ONCE + WAITING))}))
    source, data = write_source(tmp_path / "source", STUBBORN), write_data(tmp_path / "data")
    job_id = kaos.deploy("-s", source, "-d", data, "-h", params, "-p", str(AT_ONCE))
    # A shell, the two that it started, and what each of the three sleeps in.
    until(lambda: len(scripts(server, job_id)) >= 3 * AT_ONCE, 120, "eight scripts")
    time.sleep(1)
    began = time.monotonic()
    kill = kaos.start("train", "kill", "-j", job_id)
    until(lambda: not scripts(server, job_id), 60, "the end of the scripts", every=0.05)
    processes = time.monotonic() - began
    until(lambda: not busy(server, token, workspace, job_id), 60, "the end of the tasks", every=0.05)
    tasks = time.monotonic() - began
    assert kill.communicate(timeout=60)[1] == f"Successfully killed job {job_id}\n"
    command = time.monotonic() - began
    print(f"killed: processes {processes:.1f} s, tasks and slots {tasks:.1f} s, command {command:.1f} s")
    assert max(processes, tasks, command) < SECONDS
    time.sleep(3)
    assert scripts(server, job_id) == []
    assert busy(server, token, workspace, job_id) == []
    job = kaos.info(job_id)
    assert (job["state"], job["live"]) == ("JOB_KILLED", [])
    runs = server.home / "work" / "runs" / job_id
    assert not [path for path in runs.glob("*/run/process.json") if not path.with_name("exit.json").exists()]
    again = kaos.run("train", "kill", "-j", job_id, code=4).stderr
    assert "has ended already, as JOB_KILLED" in again
    assert "There is no job" in kaos.run("train", "kill", "-j", "0" * 32, code=3).stderr


def test_kill_that_was_cut_short_can_be_repeated(
    server: Server, kaos: Kaos, workspace: str, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source", "#!/bin/sh\necho begun\nsleep 600\n")
    job_id = kaos.deploy("-s", source, "-d", write_data(tmp_path / "data"))
    until(lambda: kaos.log(job_id), 60, "the script's first line")
    # What a server leaves that ends between the job's record and its run.
    killed = JobOutcome(job_id=job_id, state=JobState.KILLED, ended_at=datetime.now(UTC))
    store = open_store((server.home / "store").as_uri())
    Catalog(store).workspace(workspace).set_outcome(killed)
    assert scripts(server, job_id)
    assert "Successfully killed" in kaos.run("train", "kill", "-j", job_id).stderr
    assert scripts(server, job_id) == []
    assert "has ended already" in kaos.run("train", "kill", "-j", job_id, code=4).stderr
