"""Hear from Airflow what becomes of deploys: one that it ends without its tasks leaves no service behind.

A task that fails, or is ended, gives its revision up itself. Nobody does where somebody marks the run between
two tasks, or where Airflow gives up a task whose worker was lost too often: such a run ends without a word.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from kaos.endpoint import ServeDocument
from kaos.errors import KaosError

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

log = logging.getLogger(__name__)

_SERVE = "serve"
_STOPPED = "Its deploy was stopped in Airflow."


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:
    """Give the revision of a failed deploy up, unless it has traffic, or an end of its own."""
    _ended(
        dag_run, _STOPPED if "manually" in msg else "Airflow failed its deploy; the log is in Airflow's UI."
    )


@hookimpl
def on_dag_run_success(dag_run: DagRun, msg: str) -> None:
    """Give the revision of a deploy up that somebody marked as a success before it was one."""
    _ended(dag_run, "Its deploy was marked as a success in Airflow before it was one.")


def _ended(dag_run: DagRun, reason: str) -> None:
    conf: dict[str, Any] = dag_run.conf or {}
    if _SERVE not in conf or not dag_run.dag_id.startswith("kaos."):
        return
    # Here, and not above: every process of Airflow loads this module.
    from kaos.catalog import Catalog
    from kaos.serving import prepare
    from kaos.serving.records import Endpoints
    from kaos_operators.hook import configured_store, work_directory

    try:
        store = configured_store()
        document = ServeDocument.parse(store.objects.get(conf[_SERVE]))
        if (document.dag_id, document.run_id) != (dag_run.dag_id, dag_run.run_id):
            return
        records = Endpoints(Catalog(store).workspace(document.workspace))
        found = records.find(document.endpoint)
        if found is None or document.revision in (found.current, found.canary, found.previous):
            return
        if records.outcome(document.endpoint, document.revision) is None:
            prepare.record_failure(records, document, work_directory(), reason)
            log.info("%s, revision %d: %s", document.endpoint, document.revision, reason)
    except KaosError as error:
        log.warning("Deploy %s ended, and that could not be recorded: %s", dag_run.run_id, error)
