"""The end of a workspace, with a job in full run."""

from __future__ import annotations

from pathlib import Path

import psutil

from e2e.harness import TRAIN, Kaos, Server, until, until_gone, write_data, write_source

MODEL = f"{TRAIN}\n(output / 'model' / 'weights').write_text('42')\n"
ENDLESS = f"""{TRAIN}
import subprocess, time
child = subprocess.Popen(["sleep", "300"])
print(os.getpid(), child.pid, flush=True)
time.sleep(300)
"""


def run_forever(kaos: Kaos, tmp_path: Path) -> tuple[str, list[psutil.Process]]:
    """Start a job that never ends; return its id and its processes."""
    job_id = kaos.deploy(
        "-s", write_source(tmp_path / "endless", ENDLESS), "-d", write_data(tmp_path / "data")
    )
    line = until(lambda: kaos.log(job_id), 60, "the script's first line")[0]
    return job_id, [psutil.Process(int(pid)) for pid in line.split()]


def test_kill_ends_what_runs_and_removes_the_dags(
    server: Server, token: str, kaos: Kaos, workspace: str, tmp_path: Path
):
    job_id, processes = run_forever(kaos, tmp_path)
    with server.http(token) as http:
        assert http.get(f"/api/v2/dags/kaos.{workspace}.train").status_code == 200
        result = kaos.run("workspace", "kill", stdin="n\n", code=130)
        assert f"Kill workspace {workspace} with 1 job and 0 models " in result.stderr
        assert all(process.is_running() for process in processes)
        result = kaos.run("workspace", "kill", stdin="y\n")
        assert f"Successfully killed {workspace} workspace, 1 running job stopped\n" in result.stderr
        assert not [
            process
            for process in processes
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]
        until_gone(http, f"kaos.{workspace}.train")
        until(lambda: kaos_dag_is_gone(http, workspace), 15, "the DAG's end after the next parse")
        assert http.get(f"/kaos/api/v1/workspaces/{workspace}").status_code == 404
    assert workspace not in [row["name"] for row in kaos.json("workspace", "list")]
    assert "No workspace is set" in kaos.run("train", "list", code=2).stderr
    kaos.run("workspace", "create", "-n", workspace)
    assert kaos.json("train", "list") == []
    again = kaos.run("train", "info", "-j", job_id, code=3).stderr
    assert f"There is no job '{job_id}'" in again


def kaos_dag_is_gone(http: object, workspace: str) -> bool:
    """Tell whether Airflow lists no DAG of a workspace, active or not."""
    answer = http.get("/api/v2/dags", params={"exclude_stale": False, "limit": 1000})  # type: ignore[attr-defined]
    return f"kaos.{workspace}.train" not in [dag["dag_id"] for dag in answer.json()["dags"]]


def test_kept_models_stay_and_the_workspace_comes_back(
    server: Server, token: str, kaos: Kaos, workspace: str, tmp_path: Path
):
    job_id = kaos.deploy_and_wait("-s", write_source(tmp_path / "s", MODEL), "-d", write_data(tmp_path / "d"))
    before = kaos.info(job_id)["models"][0]
    stopped, processes = run_forever(kaos, tmp_path)
    result = kaos.run("workspace", "kill", "--keep-models", "-y")
    assert (
        f"Successfully killed {workspace} workspace, 1 running job stopped, 1 model kept\n" in result.stderr
    )
    assert not [
        process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]
    with server.http(token) as http:
        until_gone(http, f"kaos.{workspace}.train")
    assert kaos.info(job_id)["models"][0]["model_id"] == before["model_id"]
    assert kaos.info(job_id)["state"] == "JOB_SUCCESS"
    assert kaos.info(stopped)["state"] == "JOB_KILLED"
    assert kaos.info(stopped)["reason"].startswith("Killed by ")
    assert {job["job_id"]: job["state"] for job in kaos.json("train", "list")} == {
        job_id: "JOB_SUCCESS",
        stopped: "JOB_KILLED",
    }
    model = kaos.directory / kaos.run("train", "get", "-j", job_id, "-m").stdout.strip()
    assert (model / "model" / "weights").read_text() == "42"
    kaos.run("train", "get", "-j", job_id, "-c", "-d")
    assert kaos.run("train", "logs", "-j", job_id).returncode == 0
    refused = kaos.run("train", "deploy", "-s", tmp_path / "s", code=2)
    assert f"Bring it back: kaos workspace create -n {workspace}" in refused.stderr
    row = next(row for row in kaos.json("workspace", "list") if row["name"] == workspace)
    assert row["state"] == "killed"
    kaos.run("workspace", "create", "-n", workspace)
    again = kaos.deploy_and_wait("-s", tmp_path / "s", "-d", tmp_path / "d")
    assert kaos.info(again)["models"][0]["model_id"] == before["model_id"]
    assert len(kaos.json("train", "list")) == 3
