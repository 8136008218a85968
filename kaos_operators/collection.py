"""Collect what neither the store nor this machine needs any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError

from kaos.catalog import Catalog
from kaos.collect import Order, collect_and_look
from kaos.errors import KaosError
from kaos.lineage import small
from kaos.machine import Needs, clean, clean_images, disk_usage
from kaos.needed import needed_builds
from kaos.removals import Removals
from kaos.schema.retention import Collected
from kaos_operators.containers import leftovers
from kaos_operators.hook import configured_store, work_directory

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.store import Store

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
    builds = needed_builds(found)
    needs = Needs(
        tree=lambda digest: digest in found.whole if order.dry_run else is_tree_needed(store, digest),
        job=lambda job_id: job_id not in ended and is_job_known(store, job_id),
        builds=builds.ids,
        busy=lambda: found.oldest_unfinished is not None or _begun(store) != begun,
    )
    cleaned = clean(work_directory(), needs, dry_run=order.dry_run)
    problems = list(report.problems)
    # An environment is made again from its lock; an image that was pushed nowhere is gone for good.
    if builds.known and (images := leftovers(store)) is not None:
        amount, more = clean_images(images, needs, dry_run=order.dry_run)
        cleaned, problems = [*cleaned, amount], [*problems, *more]
    after = None if order.dry_run else disk_usage(*roots)
    return report.model_copy(
        update={"machine": cleaned, "problems": problems, "disk_before": before, "disk_after": after}
    )


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


def _roots(store: Store) -> list[Path]:
    parts = urlsplit(store.url)
    return [Path(unquote(parts.path))] * (parts.scheme == "file") + [work_directory()]
