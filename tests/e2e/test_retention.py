"""Retention on a real server: what goes, what stays, and what happens to those who work meanwhile."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx

from e2e.harness import TRAIN, Kaos, Server, until, write_data, write_source

MODEL = (
    TRAIN
    + """
data = (Path(os.environ["KAOS_DATA"]) / "table.csv").read_text()
(output / "model" / "weights").write_text(data + {extra!r})
(output / "metrics" / "metrics.json").write_text(json.dumps({{"accuracy": 0.5}}))
print("trained on", data.split()[0], flush=True)
"""
)


def source(root: Path, extra: str = "") -> Path:
    return write_source(root, MODEL.format(extra=extra))


def model_of(kaos: Kaos, job_id: str) -> str:
    return str(kaos.info(job_id)["models"][0]["model_id"])


def test_old_models_go_and_say_so(
    server: Server, kaos: Kaos, workspace: str, eve: Kaos, tmp_path: Path
) -> None:
    code = source(tmp_path / "s")
    jobs = [
        kaos.deploy_and_wait("-s", code, "-d", write_data(tmp_path / f"d{number}", f"{number}\n" * 200_000))
        for number in range(3)
    ]
    models = [model_of(kaos, job_id) for job_id in jobs]
    kaos.run("model", "tag", models[0], "production")
    # A policy, and what it would do.
    table = kaos.run("workspace", "retention", "--keep-last", "1").stdout
    assert "keep the models of the newest job" in table
    assert kaos.json("workspace", "retention")["policy"] == {"keep_last": 1, "keep_days": None}
    plan = kaos.json("gc", "--dry-run")
    assert [each["model_id"] for each in plan["workspaces"][0]["models"]] == [models[1]]
    assert plan["workspaces"][0]["reasons"] == {"among the newest 1": 1, "tag production": 1}
    assert plan["discarded"]["bytes"] > 400_000  # the data, and the weights that are a copy of it
    shown = kaos.run("gc", "--dry-run").stdout
    assert all(len(line) <= 80 for line in shown.splitlines())
    # Asked, and answered with no: nothing goes.
    assert "Remove 1 model and" in kaos.run("gc", stdin="n\n", code=130).stderr
    assert kaos.info(jobs[1])["models"][0]["removed"] is None
    done = kaos.json("gc", "--yes")
    assert [each["model_id"] for each in done["workspaces"][0]["models"]] == [models[1]]
    assert done["before"]["bytes"] - done["after"]["bytes"] >= 0
    assert not kaos.damage(workspace)
    # The model says what happened to it, wherever it is asked for.
    info = kaos.info(jobs[1])
    assert "removed by retention on" in info["models"][0]["removed"]
    assert info["models"][0]["metrics"] == {"accuracy": 0.5}
    assert info["state"] == "JOB_SUCCESS"
    for command in (
        ("train", "get", "-j", jobs[1], "-m"),
        ("train", "get", "-j", jobs[1], "-d"),
        ("train", "logs", "-j", jobs[1]),
        ("model", "tag", models[1], "other"),
        ("train", "rerun", "-j", jobs[1]),
    ):
        refused = kaos.run(*command, code=3).stderr
        assert "removed by retention on" in refused
    # Its lineage answers, and can be drawn.
    path = kaos.run("train", "provenance", "-m", models[1], "--format", "json").stdout.strip()
    drawn = {node["label"]: node for node in json.loads((kaos.directory / path).read_text())["nodes"]}
    assert "removed by retention on" in drawn[models[1]]["attributes"]["removed"]
    assert "data" in kaos.run("lineage", "diff", models[1], models[2]).stdout.lower()
    # The others are whole: the tagged one with its data and log.
    kaos.run("train", "get", "-j", jobs[0])
    assert kaos.log(jobs[0]) == ["trained on 0"]
    got = kaos.directory / workspace / jobs[0]
    assert next(got.glob("data/*/table.csv")).read_text() == "0\n" * 200_000
    # Who may only look may not collect.
    assert "may not remove" in eve.run("gc", "-w", workspace, "--yes", code=5).stderr
    assert "does not administer" in eve.run("gc", "--all", "--yes", code=5).stderr
    # The same training makes it again.
    again = kaos.deploy_and_wait("-s", code, "-d", tmp_path / "d1")
    assert model_of(kaos, again) == models[1]
    assert kaos.info(jobs[1])["models"][0]["removed"] is None
    kaos.run("train", "get", "-j", again, "-m")


def test_deploys_and_trainings_beside_collections(kaos: Kaos, workspace: str, tmp_path: Path) -> None:
    kaos.run("workspace", "retention", "--keep-last", "1")
    stop = Event()

    def collect() -> int:
        rounds = 0
        while not stop.is_set():
            kaos.run("gc", "--yes", "--grace", "0", seconds=60)
            rounds += 1
        return rounds

    with ThreadPoolExecutor(3) as pool:
        collecting = [pool.submit(collect) for _ in range(2)]
        try:
            jobs = []
            for number in range(4):
                # Bundles that come back after they were collected, over HTTP and straight into the store.
                given = (
                    "-s",
                    source(tmp_path / f"s{number}", f"# {number % 2}"),
                    "-d",
                    write_data(tmp_path / f"d{number}", f"{number % 2}\n" * 1000),
                )
                way = "http" if number % 2 else ""
                done = kaos.run("train", "deploy", *given, "--wait", "-o", "json", KAOS_TRANSFER=way)
                jobs.append(json.loads(done.stdout)["job_id"])
                assert kaos.info(jobs[-1])["state"] == "JOB_SUCCESS"
        finally:
            stop.set()
        rounds = sum(each.result() for each in collecting)
    assert rounds >= 4
    kaos.run("gc", "--yes")
    kaos.run("train", "get", "-j", jobs[-1])
    assert kaos.log(jobs[-1]) == ["trained on 1"]
    assert not kaos.damage(workspace)


def test_maintenance_dag_applies_policies(server: Server, token: str, kaos: Kaos, tmp_path: Path) -> None:
    code = source(tmp_path / "s")
    jobs = [
        kaos.deploy_and_wait("-s", code, "-d", write_data(tmp_path / f"d{number}", f"m{number}\n"))
        for number in range(2)
    ]
    kaos.run("workspace", "retention", "--keep-last", "1")
    at = "/api/v2/dags/kaos.maintenance"
    with server.http(token) as http:
        found = http.get(at).json()
        assert (found["is_paused"], found["timetable_summary"]) == (False, "17 4 * * *")
        run = http.post(f"{at}/dagRuns", json={"logical_date": None}).json()["dag_run_id"]
        state = until(lambda: ended(http, f"{at}/dagRuns/{run}"), 60, "the end of the maintenance")
        assert state == "success"
        task = f"{at}/dagRuns/{run}/taskInstances/collect/xcomEntries/return_value"
        value = http.get(task).json()["value"]
        assert model_of(kaos, jobs[0]) in json.dumps(value)
    assert "by kaos (keep the models of the newest job)" in kaos.info(jobs[0])["models"][0]["removed"]
    assert kaos.info(jobs[1])["models"][0]["removed"] is None
    kaos.run("workspace", "retention", "--keep-all")
    assert kaos.json("workspace", "retention")["policy"] == {"keep_last": None, "keep_days": None}


def ended(http: httpx.Client, path: str) -> str | None:
    state = str(http.get(path).json()["state"])
    return state if state in ("success", "failed") else None
