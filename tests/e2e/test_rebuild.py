"""The same lineage after Airflow's history is cleaned, its DAGs are deleted, its database is a new one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.harness import Kaos, Server, free_port, until, write_data, write_source
from e2e.serving import Endpoint, write_serve
from e2e.test_lineage import SCRIPT
from kaos.job import new_job_id
from kaos_cli.server.instance import load
from kaos_cli.server.layout import Layout
from kaos_cli.server.settings import environment

Told = dict[str, Any]


def told(kaos: Kaos, workspace: str, name: str, models: list[str], file: str) -> Told:
    """Return all that the commands tell of two models, an endpoint and a file."""
    place = kaos.directory / workspace / "provenance"
    shutil.rmtree(place, ignore_errors=True)
    assert not kaos.run("train", "provenance", "-m", models[1], "--format", "json").stderr
    kaos.run("serve", "provenance", "-e", name, "--all", "--format", "dot")
    return {
        "pictures": {path.name: path.read_text() for path in sorted(place.iterdir())},
        "downstream": kaos.json("lineage", "downstream", file),
        "difference": kaos.json("lineage", "diff", *models),
    }


def airflow(server: Server, *arguments: str) -> None:
    """Run a command of Airflow's own against a server's database."""
    layout = Layout(server.home)
    instance = load(layout)
    assert instance is not None
    subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        env=environment(layout, instance),
        cwd=layout.home,
        check=True,
        capture_output=True,
        timeout=120,
    )


def dags(server: Server, workspace: str) -> set[str]:
    """Return the DAGs of a workspace that Airflow knows and would run."""
    with server.http(server.owner_token()) as http:
        rows = http.get("/api/v2/dags", params={"limit": 1000}).json()["dags"]
    return {row["dag_id"] for row in rows if row["dag_id"].startswith(f"kaos.{workspace}.")}


def take(store: Path, workspace: str, endpoint: str, target: Path) -> None:
    """Bring what is of a workspace to another store, and nothing of Airflow's: not even the DAGs."""
    shutil.copytree(store / "objects", target / "objects", copy_function=os.link)
    shutil.copytree(store / "refs" / "workspaces" / workspace, target / "refs" / "workspaces" / workspace)
    (target / "refs" / "endpoints").mkdir()
    shutil.copy(store / "refs" / "endpoints" / endpoint, target / "refs" / "endpoints" / endpoint)
    shutil.copy(store / "refs" / "instance", target / "refs" / "instance")


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Return a server that was never started."""
    root = tmp_path_factory.mktemp("fresh")
    (root / ".kaos").mkdir(mode=0o700)
    return Server(Kaos(root / ".kaos", root, {"HOME": str(root)}), free_port())


def test_the_same_lineage_whatever_becomes_of_airflows_database(
    kaos: Kaos, server: Server, fresh: Server, workspace: str, tmp_path: Path
) -> None:
    data, content = write_data(tmp_path / "data", f"{workspace}\n"), tmp_path / "grid.json"
    content.write_text('{"degree": [1, 2]}')
    job = kaos.deploy_and_wait("-s", write_source(tmp_path / "code", SCRIPT), "-d", data, "-h", content)
    models = [row["model_id"] for row in kaos.info(job)["models"]]
    kaos.run("model", "tag", models[0], "production")
    name = f"{workspace[:30]}-e"
    Endpoint.deploy(kaos, write_serve(tmp_path / "serve"), "-m", models[0], "-n", name)
    shown = kaos.json("lineage", "upstream", models[0])["rows"]
    file = next(f"{row['name']}/table.csv" for row in shown if row["kind"] == "data")
    before = told(kaos, workspace, name, models, file)
    assert before["downstream"]["rows"][0]["live"]

    # A new metadata database: another server, that has nothing but the store.
    take(server.home / "store", workspace, name, fresh.home / "store")
    bad = fresh.home / "store" / "refs" / "workspaces" / workspace / "jobs" / new_job_id()
    bad.write_text("0" * 64)
    owner = fresh.owner
    try:
        owner.run("up", "--port", str(fresh.port), seconds=280)
        owner.run("init")
        owner.run("workspace", "set", "-n", workspace)
        found = owner.json("lineage", "rebuild")
        assert found["workspaces"] == [workspace]
        assert set(found["dags"]) == {f"kaos.{workspace}.train", f"kaos.{workspace}.serve"}
        assert (found["jobs"], found["models"], found["started"]) == (1, 2, [])
        assert found["endpoints"] == [name]
        assert [line.partition(": ")[0].rpartition("/")[2] for line in found["damaged"]] == [bad.name]
        assert bad.name in owner.run("lineage", "upstream", name).stderr
        bad.unlink()
        assert dags(fresh, workspace) == set(found["dags"])
        assert told(owner, workspace, name, models, file) == before
        [row] = owner.json("train", "list")
        assert (row["job_id"], row["state"]) == (job, "JOB_SUCCESS")
        url = owner.json("serve", "info", "-e", name)["url"]
        Endpoint(owner, name, url).answers_within(120)

        # A history of this server's own: it is cleaned, then its DAGs are deleted.
        owner.deploy_and_wait("--no-hyperparams")
        here = told(owner, workspace, name, models, file)
        assert here["downstream"]["counts"]["job"] == 2
        airflow(fresh, "db", "clean", "--clean-before-timestamp", "2100-01-01", "--yes", "--skip-archive")
        with fresh.http(fresh.owner_token()) as http:
            runs = http.get(f"/api/v2/dags/kaos.{workspace}.train/dagRuns").json()
        assert not runs.get("dag_runs")  # perhaps the DAG is gone too
        assert told(owner, workspace, name, models, file) == here
        owner.run("lineage", "rebuild")
        airflow(fresh, "dags", "delete", "--yes", f"kaos.{workspace}.train")
        assert told(owner, workspace, name, models, file) == here
        assert set(owner.json("lineage", "rebuild")["dags"]) == set(found["dags"])
        until(lambda: dags(fresh, workspace) == set(found["dags"]), 30, "the DAG that was deleted")
    finally:
        owner.run("down", "--purge", "--yes", seconds=120)
    assert json.dumps(here) != json.dumps(before)
