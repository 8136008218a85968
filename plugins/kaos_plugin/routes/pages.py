"""The pages: kaos' own records, as tabs in Airflow's UI."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from kaos.endpoint import SERVE
from kaos.errors import UnknownNameError
from kaos.schedules import Schedules
from kaos_plugin import endpoints, jobs
from kaos_plugin.auth import Readable, User, catalog, may, visible

router = APIRouter(prefix="/ui", include_in_schema=False)


@router.get("/workspaces")
def workspaces_page(user: User) -> HTMLResponse:
    """Show the workspaces."""
    return _page("workspaces.html.jinja2", workspaces=visible(user))


@router.get("/workspaces/{workspace}")
def workspace_page(workspace: Readable, session: SessionDep) -> HTMLResponse:
    """Show a workspace's inputs and jobs."""
    listed = jobs.list_jobs(workspace, 50, 0, session)
    served = endpoints.list_endpoints(workspace, session)
    inputs = workspace.inputs()
    return _page("workspace.html.jinja2", workspace=workspace, inputs=inputs, jobs=listed, endpoints=served)


@router.get("/workspaces/{workspace}/jobs/{job_id}")
def job_page(workspace: Readable, job_id: str, session: SessionDep) -> HTMLResponse:
    """Show a job's inputs, stages and models."""
    return _page("job.html.jinja2", job=jobs.job_info(workspace, job_id, None, False, 0, session))


@router.get("/workspaces/{workspace}/endpoints/{name}")
def endpoint_page(workspace: Readable, name: str, session: SessionDep) -> HTMLResponse:
    """Show an endpoint and its revisions."""
    return _page("endpoint.html.jinja2", endpoint=endpoints.endpoint_info(workspace, name, session))


@router.get("/runs/{dag_id}/{run_id}")
def run_page(dag_id: str, run_id: str, user: User, session: SessionDep) -> HTMLResponse:
    """Show the job of an Airflow run, or the endpoint that it deploys."""
    prefix, _, rest = dag_id.partition(".")
    name, _, definition = rest.rpartition(".")
    if prefix != "kaos" or not name or not may(user, "GET", name, DagAccessEntity.RUN):
        raise UnknownNameError("job of the run", f"{dag_id} {run_id}", next_step="This DAG is none of kaos.")
    workspace = catalog().workspace(name)
    if definition == SERVE:
        return endpoint_page(workspace, endpoints.name_of(workspace, run_id), session)
    pinned = Schedules(workspace).pinned(definition, run_id)  # by a schedule
    return job_page(workspace, pinned.job_id if pinned is not None else run_id, session)


def _page(name: str, **values: Any) -> HTMLResponse:
    return HTMLResponse(_template(name).render(**values))


@cache
def _template(name: str) -> Template:
    folder = files("kaos_plugin") / "pages"
    environment = Environment(
        loader=FunctionLoader(lambda asked: (folder / asked).read_text()),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
