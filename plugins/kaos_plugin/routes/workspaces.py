"""Workspaces."""

from __future__ import annotations

import time

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Query, status

from kaos.job import Definition
from kaos.schema.workspace import Workspace, WorkspaceCreate, WorkspaceInfo, WorkspaceKilled, WorkspaceList
from kaos_dags.publish import publish
from kaos_dags.render import file_name
from kaos_operators.environment import check_allowed
from kaos_operators.train import end_runs_here
from kaos_plugin import airflow_internals
from kaos_plugin.auth import Readable, Removable, User, catalog, require, visible
from kaos_plugin.endpoints import kill_all
from kaos_plugin.jobs import kill_job, publish_dags, runtime_of_jobs
from kaos_plugin.removal import remove_dags
from kaos_plugin.schedules import running_jobs

router = APIRouter(prefix="/workspaces", tags=["workspaces"])

_END_SECONDS = 15


@router.get("")
def list_workspaces(user: User) -> WorkspaceList:
    """Return the workspaces that the user may see."""
    return WorkspaceList(workspaces=[each.workspace for each in visible(user)])


@router.post("", status_code=status.HTTP_201_CREATED)
def create_workspace(body: WorkspaceCreate, user: User, session: SessionDep) -> WorkspaceInfo:
    """Create a workspace and its DAGs."""
    require(user, "POST", body.name)
    if body.runtime is not None:
        check_allowed(body.runtime)
    workspace = catalog().create_workspace(body.name, user.get_name())
    workspace.set_definition(Definition(workspace=body.name, runtime=body.runtime))
    publish_dags(workspace, session)
    return _info(workspace)


@router.get("/{workspace}")
def get_workspace(workspace: Readable) -> WorkspaceInfo:
    """Return what is in a workspace."""
    return _info(workspace)


@router.delete("/{workspace}")
def kill_workspace(
    workspace: Removable,
    user: User,
    session: SessionDep,
    keep_models: bool = Query(default=False, description="jobs and models stay readable"),
) -> WorkspaceKilled:
    """Stop what runs, remove the DAGs, and forget the workspace."""
    definitions = workspace.definitions()
    kill_all(workspace, user.get_name(), session)
    stopped = sorted(
        {job for definition in definitions for job in running_jobs(workspace, definition, session)}
    )
    for job_id in stopped:
        kill_job(workspace, workspace.job(job_id)[0], user.get_name(), session)
    publish(workspace.store, {file_name(definition.dag_id): None for definition in definitions})
    for definition in definitions:
        for run_id in airflow_internals.active_runs(definition.dag_id, session):
            airflow_internals.fail_run(definition.dag_id, run_id, session)
    deadline = time.monotonic() + _END_SECONDS
    while any([end_runs_here(job_id) for job_id in stopped]) and time.monotonic() < deadline:
        time.sleep(0.1)
    remove_dags(workspace.store, definitions, session)
    kept = len(workspace.model_ids()) if keep_models else 0
    workspace.kill(keep_models=keep_models)
    return WorkspaceKilled(
        stopped_jobs=stopped, removed_dags=[definition.dag_id for definition in definitions], kept_models=kept
    )


def _info(workspace: Readable) -> WorkspaceInfo:
    return WorkspaceInfo(
        workspace=Workspace.model_validate(workspace.workspace),
        runtime=runtime_of_jobs(workspace),
        inputs=workspace.inputs(),
        dags=[definition.dag_id for definition in workspace.definitions()],
        bundles=len(workspace.bundle_digests()),
        jobs=len(workspace.job_ids()),
        models=len(workspace.model_ids()),
    )
