"""The example DAG, parsed and run by Airflow itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import write_tree

from kaos.catalog import Catalog
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

FAILING = "#!/bin/sh\necho no such column\nexit 3\n"

RUN = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag

folder = Path(sys.argv[1])
bag = DagBag(folder, bundle_path=folder, bundle_name="dags-folder")
assert not bag.import_errors, bag.import_errors
assert list(bag.dags) == ["kaos_example"], bag.dags
states = [str(bag.dags["kaos_example"].test(run_conf=conf).state) for conf in json.loads(sys.argv[2])]
Path(sys.argv[3]).write_text(json.dumps(states))
"""


@dataclass
class Example:
    """What Airflow made of two runs of the example: the states of the runs, and the store."""

    states: list[str]
    catalog: Catalog


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Run the example in an Airflow of its own on SQLite, in workspace `digits` and, failing, in `broken`."""
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
    data = write_tree(root / "table", {"table.csv": "1,2\n3,4\n5,6\n"})
    confs = []
    for workspace, script in (("digits", TRAIN), ("broken", FAILING)):
        source = write_tree(root / workspace / "code", {"Dockerfile": DOCKERFILE, "model/train": script})
        confs.append({"workspace": workspace, "source": str(source), "data": str(data)})
    run(["-m", "airflow", "db", "migrate"], environment)
    states = root / "states.json"
    run(["-c", RUN, str(root / "dags"), json.dumps(confs), str(states)], environment)
    return Example(json.loads(states.read_text()), Catalog(open_file_store(root / "store")))


def run(arguments: list[str], environment: dict[str, str]) -> None:
    """Run Airflow in a process of its own, so that nothing of it stays in this one."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_example_trains_a_model(example: Example) -> None:
    assert example.states[0] == "success"
    workspace = example.catalog.workspace("digits")
    (model_id,) = workspace.model_ids()
    (record,) = workspace.model_records(model_id)
    assert record.metrics == {"rows": 3}
    files = {file.path for file in workspace.tree(record.digest).files}
    assert files == {"metrics/metrics.json", "model.txt"}
    assert (record.job.author, record.job.source.name, record.job.data.name) == ("ada", "code", "table")
    assert record.airflow.dag_id == record.job.dag_id == "kaos_example"
    assert (record.job.resources.cpu, record.job.resources.memory) == (1, 2 << 30)
    assert workspace.store.objects.get(record.run.log) == b"trained on 3 rows\n"
    outcome = workspace.outcome(record.job.job_id)
    assert outcome is not None
    assert outcome.state is JobState.SUCCESS


def test_workspace_that_the_example_made_can_be_deployed_to(example: Example) -> None:
    # `kaos train deploy` generates the workspace's DAG from this.
    definitions = example.catalog.workspace("digits").definitions()
    assert [definition.dag_id for definition in definitions] == ["kaos.digits.train"]


def test_failing_script_fails_the_run_and_is_recorded(example: Example) -> None:
    assert example.states[1] == "failed"
    workspace = example.catalog.workspace("broken")
    (job_id,) = workspace.job_ids()
    outcome = workspace.outcome(job_id)
    assert outcome is not None
    assert (outcome.state, outcome.reason) == (JobState.FAILURE, "train: exit code 3.")
    assert workspace.model_ids() == []
