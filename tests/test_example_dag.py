"""The example DAG, parsed and run by Airflow itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_tree

from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.job import JobState
from kaos.store import open_file_store

EXAMPLE = Path(__file__).parent.parent / "dags" / "kaos_example.py"
DOCKERFILE = f"FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim\n"
"""Asks for the Python that runs here: nothing has to be downloaded."""

TRAIN = """#!/usr/bin/env python3
import json, os
from pathlib import Path
rows = (Path(os.environ["KAOS_DATA"]) / "table.csv").read_text().split()
output = Path(os.environ["KAOS_OUTPUT"])
(output / "metrics").mkdir()
(output / "metrics" / "metrics.json").write_text(json.dumps({"rows": len(rows)}))
(output / "model.txt").write_text("a model")
print("trained on", len(rows), "rows")
"""

RUN = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag

folder = Path(sys.argv[1])
bag = DagBag(folder, bundle_path=folder, bundle_name="dags-folder")
assert not bag.import_errors, bag.import_errors
assert list(bag.dags) == ["kaos_example"], bag.dags
run = bag.dags["kaos_example"].test(run_conf=json.loads(sys.argv[2]))
print(run.state, run.run_id, file=sys.stderr)
sys.exit(run.state != "success")
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of an Airflow of its own on SQLite, with the example in its DAGs folder."""
    root = tmp_path_factory.mktemp("airflow")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment = {
        **inherited,
        "AIRFLOW_HOME": str(root / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root / 'airflow.db'}",
        "AIRFLOW__KAOS__STORE": (root / "store").as_uri(),
        "AIRFLOW__KAOS__WORK_DIR": str(root / "work"),
    }
    (root / "dags").mkdir()
    shutil.copy(EXAMPLE, root / "dags")
    migrated = run([sys.executable, "-m", "airflow", "db", "migrate"], environment)
    assert migrated.returncode == 0, migrated.stderr
    return environment


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Airflow in a process of its own, so that nothing of it stays in this one."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def train(airflow: dict[str, str], root: Path, workspace: str, script: str) -> tuple[int, str]:
    """Run the example; return its exit code and what it said."""
    source = write_tree(root / "code", {"Dockerfile": DOCKERFILE, "model/train": script})
    data = write_tree(root / "table", {"table.csv": "1,2\n3,4\n5,6\n"})
    conf = {"workspace": workspace, "source": str(source), "data": str(data)}
    dags = airflow["AIRFLOW__CORE__DAGS_FOLDER"]
    done = run([sys.executable, "-c", RUN, dags, json.dumps(conf)], airflow)
    return done.returncode, done.stdout + done.stderr


def workspace_of(airflow: dict[str, str], name: str) -> WorkspaceCatalog:
    store = open_file_store(Path(airflow["AIRFLOW__KAOS__STORE"].removeprefix("file://")))
    return Catalog(store).workspace(name)


def test_example_trains_a_model(airflow: dict[str, str], tmp_path: Path) -> None:
    code, said = train(airflow, tmp_path, "digits", TRAIN)
    assert code == 0, said
    workspace = workspace_of(airflow, "digits")
    (model_id,) = workspace.model_ids()
    (record,) = workspace.model_records(model_id)
    assert record.metrics == {"rows": 3}
    assert {file.path for file in workspace.tree(record.digest).files} == {
        "metrics/metrics.json",
        "model.txt",
    }
    assert (record.job.author, record.job.source.name, record.job.data.name) == ("ada", "code", "table")
    assert record.airflow.dag_id == record.job.dag_id == "kaos_example"
    assert record.job.resources.cpu == 1
    assert workspace.store.objects.get(record.run.log) == b"trained on 3 rows\n"
    outcome = workspace.outcome(record.job.job_id)
    assert outcome is not None
    assert outcome.state is JobState.SUCCESS
    # A later `kaos train deploy` needs the definition that a workspace's DAG is generated from.
    assert [definition.name for definition in workspace.definitions()] == ["train"]


def test_failing_script_fails_the_run_and_is_recorded(airflow: dict[str, str], tmp_path: Path) -> None:
    code, said = train(airflow, tmp_path, "broken", "#!/bin/sh\necho no such column\nexit 3\n")
    assert code == 1, said
    workspace = workspace_of(airflow, "broken")
    (job_id,) = workspace.job_ids()
    outcome = workspace.outcome(job_id)
    assert outcome is not None
    assert (outcome.state, outcome.reason) == (JobState.FAILURE, "train: exit code 3.")
    assert workspace.model_ids() == []
