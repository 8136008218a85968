"""The example DAG, run once by an Airflow of its own for all who look at what came of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import write_tree

from kaos.catalog import Catalog
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
    """What Airflow made of two runs of the example: the states of the runs, the store, and the events that
    the openlineage provider emitted.
    """

    states: list[str]
    catalog: Catalog
    events: list[dict[str, Any]]


def run_example(root: Path) -> Example:
    """Run the example in an Airflow of its own on SQLite, in workspace `digits` and, failing, in `broken`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment = {
        **inherited,
        "AIRFLOW_HOME": str(root / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root / 'airflow.db'}",
        "AIRFLOW__KAOS__STORE": (root / "store").as_uri(),
        "AIRFLOW__KAOS__WORK_DIR": str(root / "work"),
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {"type": "file", "log_file_path": str(root / "events.jsonl"), "append": True}
        ),
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
    events = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    return Example(json.loads(states.read_text()), Catalog(open_file_store(root / "store")), events)


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
