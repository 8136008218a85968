"""Policies, and collections that somebody asked for."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from kaos.catalog import WorkspaceCatalog
from kaos.collect import Order
from kaos.removals import Removals
from kaos.retention import RetentionPolicy
from kaos.schema.retention import Collected, CollectRequest, RetentionInfo
from kaos_dags.publish import head, keep_versions, publish
from kaos_dags.render import MAINTENANCE, render_maintenance
from kaos_operators.collection import run
from kaos_operators.hook import configured_store
from kaos_plugin import airflow_internals


def info(workspace: WorkspaceCatalog) -> RetentionInfo:
    """Return a workspace's policy."""
    removals = Removals(workspace)
    change = removals.change()
    return RetentionInfo(
        workspace=workspace.workspace.name,
        policy=removals.policy(),
        set=change,
        removed=sum(1 for key in removals.models() if workspace.removed_model(key) is not None),
    )


def set_policy(workspace: WorkspaceCatalog, policy: RetentionPolicy, user: str) -> RetentionInfo:
    """Let a policy hold from now on."""
    Removals(workspace).set_policy(policy, user)
    return info(workspace)


def collect(workspaces: list[WorkspaceCatalog], body: CollectRequest, user: str, db: Session) -> Collected:
    """Collect in these workspaces: by the policy of the request, or by their own."""
    store = configured_store()
    policies = {
        workspace.workspace.name: body.policy or Removals(workspace).policy() for workspace in workspaces
    }
    if not body.dry_run:
        keep_versions(store, airflow_internals.pinned_versions(db))
    order = Order(
        policies=policies,
        by=user,
        running=lambda dag_id, run_id: airflow_internals.is_running(dag_id, run_id, db),
        grace=timedelta(hours=body.grace_hours),
        dry_run=body.dry_run,
    )
    return run(store, order)


def publish_maintenance() -> None:
    """Publish the DAG that applies the policies, if it is not there as it should be.

    The DAG processor finds it; trees of DAGs that runs are pinned to are kept from now on.
    """
    store = configured_store()
    with airflow_internals.session() as db:
        keep_versions(store, airflow_internals.pinned_versions(db))
    source = render_maintenance()
    file = head(store).file(MAINTENANCE)
    if file is None or store.objects.get(file.digest) != source.encode():
        publish(store, {MAINTENANCE: source})
