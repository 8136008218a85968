"""A job as Airflow's own API and UI show it."""

from __future__ import annotations

import json
from pathlib import Path

from e2e.harness import TRAIN, Kaos, Server, write_data, write_source

NAMES = {
    "ingest": "Ingest code and data",
    "build": "Build environment",
    "plan": "Plan trials",
    "train": "Train",
    "register": "Register models",
}
METRICS = f"{TRAIN}\n(output / 'metrics' / 'metrics.json').write_text(json.dumps(dict(accuracy=0.5)))\n"


def test_the_dag_is_there_before_the_first_deploy(server: Server, token: str, kaos: Kaos, workspace: str):
    dag_id = f"kaos.{workspace}.train"
    with server.http(token) as http:
        dag = http.get(f"/api/v2/dags/{dag_id}").json()
        assert dag["dag_display_name"] == f"{workspace}: train"
        assert {tag["name"] for tag in dag["tags"]} == {"kaos", workspace}
        assert not dag["is_paused"]
        assert dag["bundle_name"] == "kaos"
        assert not dag["has_import_errors"]
        tasks = http.get(f"/api/v2/dags/{dag_id}/tasks").json()["tasks"]
        assert {task["task_id"]: task["task_display_name"] for task in tasks} == NAMES
        assert http.get("/api/v2/importErrors").json()["import_errors"] == []
    assert kaos.json("workspace", "info")["dags"] == [dag_id]


def test_a_run_is_not_pinned_to_a_version_without_its_tasks(
    server: Server, token: str, kaos: Kaos, workspace: str, tmp_path: Path
):
    """What a DAG processor does that reads a new file and still takes the bundle for the version before."""
    code, data = write_source(tmp_path / "s", TRAIN), write_data(tmp_path / "d")
    first = kaos.info(kaos.deploy_and_wait("-s", code, "-d", data))
    manifest = tmp_path / "m" / "data.mf"
    manifest.parent.mkdir()
    manifest.write_text('{"url": "http://127.0.0.1:9/none", "path": "none"}\n')
    kaos.deploy_and_wait("-m", manifest, code=1)
    server.sql(
        "UPDATE dag SET bundle_version = %s WHERE dag_id = %s RETURNING dag_id",
        first["dag_version"],
        f"kaos.{workspace}.train",
    )
    failed = kaos.info(kaos.deploy_and_wait("-m", manifest, code=1))
    assert "could not be downloaded" in failed["reason"]
    assert failed["dag_version"] != first["dag_version"]


def test_a_run_carries_small_records_of_what_was_done(
    server: Server, token: str, kaos: Kaos, workspace: str, tmp_path: Path
):
    made = kaos.json(
        "train", "deploy", "-s", write_source(tmp_path / "s", METRICS), "-d", write_data(tmp_path / "d")
    )
    job = kaos.ended(made["job_id"])
    model = job["models"][0]
    at = f"/api/v2/dags/kaos.{workspace}.train/dagRuns/{job['job_id']}"
    with server.http(token) as http:
        run = http.get(at).json()
        assert (run["state"], run["dag_run_id"]) == ("success", job["job_id"])
        assert run["bundle_version"] == job["dag_version"]
        assert run["conf"]["workspace"] == workspace
        assert run["triggering_user_name"] == job["author"]
        instances = http.get(f"{at}/taskInstances").json()["task_instances"]
        assert {one["task_id"]: one["task_display_name"] for one in instances} == NAMES
        assert next(one["rendered_map_index"] for one in instances if one["task_id"] == "train") == "train"
        records = {}
        for entry in http.get(f"{at}/taskInstances/~/xcomEntries", params={"limit": 100}).json()[
            "xcom_entries"
        ]:
            query = {"map_index": entry["map_index"], "deserialize": "true"}
            found = http.get(
                f"{at}/taskInstances/{entry['task_id']}/xcomEntries/{entry['key']}", params=query
            )
            assert len(found.content) < 100_000
            records[entry["task_id"], entry["key"]] = found.json()["value"]
        for task_id in NAMES:
            query = {"map_index": 0} if task_id == "train" else {}
            links = http.get(f"{at}/taskInstances/{task_id}/links", params=query).json()["extra_links"]
            page = links["kaos job"]
            assert page == f"/kaos/ui/workspaces/{workspace}/jobs/{job['job_id']}"
            assert http.get(page).status_code == 200
        events = http.get("/api/v2/assets/events", params={"source_dag_id": f"kaos.{workspace}.train"}).json()
        assert [event["extra"]["models"] for event in events["asset_events"]] == [[model["model_id"]]]
        assert events["asset_events"][0]["uri"] == f"kaos://{workspace}/model"
    ingest = records["ingest", "return_value"]
    assert ingest["job_digest"] == run["conf"]["job"]
    assert (ingest["source"], ingest["data"]) == (made["source_digest"], made["data_digest"])
    build = records["build", "return_value"]
    assert build["runtime"] == "process"
    assert all(len(build[key]) == 64 for key in ("environment", "lock", "log"))
    train = records["train", "return_value"]
    train = train[0] if isinstance(train, list) else train
    assert (train["model"], train["succeeded"], train["exit_code"]) == (model["model_digest"], True, 0)
    assert records["register", "return_value"] == {"models": [model["model_id"]]}
    assert "TRAIN" not in json.dumps(list(records.values()))


def test_the_code_tab_shows_what_train_dag_prints(
    server: Server, token: str, kaos: Kaos, workspace: str, tmp_path: Path
):
    job_id = kaos.deploy_and_wait("-s", write_source(tmp_path / "s", TRAIN), "-d", write_data(tmp_path / "d"))
    printed = kaos.run("train", "dag", "-j", job_id).stdout
    with server.http(token) as http:
        answer = http.get(
            f"/api/v2/dagSources/kaos.{workspace}.train", headers={"Accept": "application/json"}
        )
        assert answer.json()["content"] == printed


def test_the_log_tab_shows_the_scripts_lines(
    server: Server, token: str, kaos: Kaos, workspace: str, tmp_path: Path
):
    script = f"{TRAIN}\nprint('a line of the script')\n"
    job_id = kaos.deploy_and_wait(
        "-s", write_source(tmp_path / "s", script), "-d", write_data(tmp_path / "d")
    )
    with server.http(token) as http:
        answer = http.get(
            f"/api/v2/dags/kaos.{workspace}.train/dagRuns/{job_id}/taskInstances/train/logs/1",
            params={"map_index": 0},
            headers={"Accept": "application/json"},
        )
    assert "a line of the script" in [line["event"] for line in answer.json()["content"]]
