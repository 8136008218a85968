"""Collect what neither the store nor this machine needs any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError

from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.collect import Order, collect_and_look
from kaos.errors import CorruptObjectError, KaosError, UnknownNameError
from kaos.lineage import small
from kaos.machine import Needs, clean, disk_usage
from kaos.removals import Removals
from kaos.schema.retention import Collected
from kaos.serving.records import Endpoints
from kaos_operators.hook import configured_store, work_directory

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.store import Store
    from kaos.survey import Survey, WorkspaceView

_SHOWN = 100


class CollectOperator(BaseOperator):
    """Apply the policy of every workspace that has one, and remove uploads that no deploy finished.

    Of machines it cleans the one that it runs on.

    :param grace_hours: how old what nothing names has to be
    """

    template_fields: Sequence[str] = ()
    ui_color = "#f3efe6"

    def __init__(self, *, grace_hours: float = 24, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grace_hours = grace_hours

    def execute(self, context: Context) -> Any:
        """Return a `Collected`, with the first hundred models that went of each workspace."""
        ti = context["ti"]

        def running(dag_id: str, run_id: str) -> bool:
            try:
                return ti.get_dagrun_state(dag_id, run_id) in ("queued", "running")
            except AirflowRuntimeError:  # there is no such run
                return False

        store = configured_store()
        policies = {}
        for found in Catalog(store).workspaces():
            policy = Removals(Catalog(store).workspace(found.name)).policy()
            if policy.is_set:
                policies[found.name] = policy
        try:
            report = run(store, Order(policies, "kaos", running, timedelta(hours=self.grace_hours)))
        except KaosError as error:
            raise AirflowFailException(str(error)) from error
        for each in report.workspaces:
            self.log.info("%s: models removed: %d, kept: %d", each.workspace, len(each.models), each.kept)
            for model in each.models[:_SHOWN]:
                self.log.info("Removed %s, %d bytes", model.model_id, model.size)
        self.log.info("%d bytes before, %d after", report.before.bytes, report.after.bytes)
        shown = [
            each.model_copy(update={"models": each.models[:_SHOWN]}) for each in report.workspaces[:_SHOWN]
        ]
        return small(report.model_copy(update={"workspaces": shown}))


def run(store: Store, order: Order) -> Collected:
    """Collect in the store and clean this machine; return what that was."""
    roots, begun = _roots(store), _begun(store)
    before = disk_usage(*roots)
    report, found = collect_and_look(store, order)
    ended = {job_id for view in found.views for job_id in view.ended}
    needs = Needs(
        tree=lambda digest: digest in found.whole if order.dry_run else is_tree_needed(store, digest),
        job=lambda job_id: job_id not in ended and is_job_known(store, job_id),
        environments=environments(found),
        busy=lambda: found.oldest_unfinished is not None or _begun(store) != begun,
    )
    cleaned = clean(work_directory(), needs, dry_run=order.dry_run)
    after = None if order.dry_run else disk_usage(*roots)
    return report.model_copy(update={"machine": cleaned, "disk_before": before, "disk_after": after})


def is_job_known(store: Store, job_id: str) -> bool:
    """Tell whether a workspace has this job."""
    names = (f"workspaces/{found.name}/jobs/{job_id}" for found in Catalog(store).workspaces())
    return any(store.refs.get(name) is not None for name in names)


def _begun(store: Store) -> set[str]:
    """Return what names the jobs and the deploys of revisions that there ever were."""
    return {
        name
        for found in Catalog(store).workspaces()
        for family in ("jobs", "revisions")
        for name in store.refs.names(f"workspaces/{found.name}/{family}")
    }


def is_tree_needed(store: Store, digest: str) -> bool:
    """Tell whether a workspace has a tree that was not removed."""
    catalog = Catalog(store)
    return any(
        ref is not None and not ref.value
        for found in catalog.workspaces()
        if (ref := store.refs.get(f"workspaces/{found.name}/trees/{digest}"))
    )


def environments(found: Survey) -> set[str]:
    """Return the digests of all environments that kept models and live endpoints were made in."""
    return {digest for view in found.views for digest in _environments(view)}


def _environments(view: WorkspaceView) -> set[str]:
    catalog, refs = view.catalog, view.catalog.store.refs
    at = f"workspaces/{view.name}/images"
    digests = {ref.value.decode() for name in refs.names(at) if (ref := refs.get(name))}
    for key in view.decision.kept:
        digests |= {record.build.environment for record in _records(catalog, key)}
    records = Endpoints(catalog)
    for name in records.names():
        for number in records.revision_numbers(name):
            if (name, number) not in view.dead and (record := records.record(name, number)) is not None:
                digests.add(record.build.environment)
    return digests


def _records(catalog: WorkspaceCatalog, key: str) -> list[Any]:
    try:
        return list(catalog.model_records(key))
    except (UnknownNameError, CorruptObjectError):
        return []


def _roots(store: Store) -> list[Path]:
    parts = urlsplit(store.url)
    return [Path(unquote(parts.path))] * (parts.scheme == "file") + [work_directory()]
