"""What supervisor runs: `python -m kaos_cli.server.launch COMPONENT` becomes a component of the instance.

It ends what a killed predecessor left behind, waits for the database, and ties its forked children to itself.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
import time
from typing import Any

from kaos.errors import LocalServerError
from kaos_cli.server import processes, serving
from kaos_cli.server.deathsignal import die_with_parent, forked_children_die_with_us
from kaos_cli.server.instance import load
from kaos_cli.server.layout import SERVING_COMPONENTS, Layout
from kaos_cli.server.postgres import Database, exec_server

# The log servers of scheduler and triggerer would listen on all interfaces.
_ARGUMENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "migrate": ["db", "migrate"],
}


# Workers are forked from the scheduler: a task that finds these in memory starts a second sooner.
_PRELOADED = (
    "kaos_dags.dag_bundle",
    "kaos_operators.warm",
)


def main(component: str) -> None:
    """Become a component."""
    layout = Layout.current()
    instance = load(layout)
    if instance is None:
        raise LocalServerError(f"{layout.instance} is not there.", "Start the server with: kaos up")
    database = Database.of(layout, instance)
    if component == "postgres":
        exec_server(database)
    die_with_parent(signal.SIGKILL)
    if component in SERVING_COMPONENTS:
        processes.end(processes.marked(instance.id, component), grace=0)
        serving.become(component, layout, instance)
    if component != "migrate":
        processes.end(processes.marked(instance.id, component), grace=0)
        _wait_for(database)
    forked_children_die_with_us()
    if component == "scheduler":
        _end_tasks_with_the_scheduler()
        for module in _PRELOADED:
            importlib.import_module(module)
    sys.argv = ["airflow", *_ARGUMENTS[component]]
    runpy.run_module("airflow", run_name="__main__", alter_sys=True)


def _end_tasks_with_the_scheduler() -> None:
    """Keep a scheduler that ends, as one does that lost its database, from waiting hours for its tasks.

    What they started goes on, and their next try, under the next scheduler, finds it again.
    Airflow is imported by name because this process is Airflow's; the client never gets here.
    """
    importlib.import_module("airflow.configuration")  # first, as in airflow.__main__: the others depend on it
    executor = importlib.import_module("airflow.executors.local_executor").LocalExecutor
    finish = executor.end

    def end(self: Any) -> None:
        for worker in self.workers.values():
            worker.kill()
        finish(self)

    executor.end = end


def _wait_for(database: Database) -> None:
    deadline = time.monotonic() + 120
    while not database.is_ready():
        if time.monotonic() > deadline:
            raise LocalServerError("PostgreSQL did not answer for 120 s.", "See its log: kaos logs postgres")
        time.sleep(0.1)


if __name__ == "__main__":
    # Supervisor's pipe is the log: a line must not wait there for the next four kilobytes.
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main(sys.argv[1])
