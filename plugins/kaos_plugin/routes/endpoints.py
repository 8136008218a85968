"""Endpoints: deployed, listed, shown, turned back, ended."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Path, Query, status

from kaos.schema.endpoint import (
    EndpointContent,
    EndpointDeploy,
    EndpointDeployed,
    EndpointInfo,
    EndpointList,
    EndpointTurned,
    RevisionInfo,
)
from kaos.schema.job import LogChunk, StageState
from kaos.serving.records import Endpoints
from kaos_plugin import endpoints
from kaos_plugin.auth import Deployable, Readable, User

router = APIRouter(prefix="/workspaces/{workspace}", tags=["endpoints"])

_PLACE = "[0-9]{1,9}@[0-9]{1,9}:[0-9]{1,18}"
_PLACES = f"^([0-9]{{1,9}}|{_PLACE}(,{_PLACE})*)?$"

Name = Annotated[str, Path(description="name of the endpoint")]
Revision = Annotated[int | None, Query(ge=1, description="its number; the one with the traffic by default")]


@router.get("/endpoints")
def list_endpoints(workspace: Readable, session: SessionDep) -> EndpointList:
    """Return the endpoints, the newest first, each with the state that it has now."""
    return EndpointList(endpoints=endpoints.list_endpoints(workspace, session))


@router.post("/endpoints", status_code=status.HTTP_201_CREATED)
def deploy_endpoint(
    workspace: Deployable, body: EndpointDeploy, user: User, session: SessionDep
) -> EndpointDeployed:
    """Start the deploy of a new revision, of a new endpoint or of one that is there."""
    return endpoints.deploy(workspace, body, user.get_name(), session)


@router.get("/endpoints/{name}")
def get_endpoint(workspace: Readable, name: Name, session: SessionDep) -> EndpointInfo:
    """Return everything about an endpoint."""
    return endpoints.endpoint_info(workspace, name, session)


@router.get("/endpoints/{name}/revisions/{revision}")
def get_revision(workspace: Readable, name: Name, revision: int, session: SessionDep) -> RevisionInfo:
    """Return everything about a revision."""
    return endpoints.revision_info(workspace, name, revision, session)


@router.get("/endpoints/{name}/revisions/{revision}/stages")
def get_stages(workspace: Readable, name: Name, revision: int, session: SessionDep) -> list[StageState]:
    """Return how far the deploy of a revision is."""
    return endpoints.stages(workspace, name, revision, session)


@router.get("/endpoints/{name}/content")
def get_endpoint_content(workspace: Readable, name: Name, revision: Revision = None) -> EndpointContent:
    """Return the tree that `serve get` writes."""
    return endpoints.content(workspace, name, revision)


@router.get("/endpoints/{name}/logs")
def get_endpoint_logs(
    workspace: Readable,
    name: Name,
    revision: Revision = None,
    position: Annotated[
        str, Query(pattern=_PLACES, max_length=400, description="as the last answer gave it")
    ] = "",
) -> LogChunk:
    """Return lines that a revision printed."""
    return endpoints.logs(workspace, name, revision, position)


@router.get("/endpoints/{name}/build-logs")
def get_endpoint_build_logs(
    workspace: Readable,
    name: Name,
    session: SessionDep,
    revision: Revision = None,
    position: Annotated[int, Query(ge=0, description="lines that the client has")] = 0,
) -> LogChunk:
    """Return lines of the build of a revision's environment."""
    return endpoints.build_logs(workspace, name, revision, position, session)


@router.post("/endpoints/{name}/rollback")
def roll_back_endpoint(workspace: Deployable, name: Name, user: User) -> EndpointTurned:
    """Return to the previous revision, or take the canary's traffic away."""
    return endpoints.roll_back(workspace, name, user.get_name())


@router.post("/endpoints/{name}/promote")
def promote_endpoint(workspace: Deployable, name: Name, user: User) -> EndpointTurned:
    """Give the canary all of the traffic."""
    return endpoints.promote(workspace, name, user.get_name())


@router.delete("/endpoints/{name}", status_code=status.HTTP_204_NO_CONTENT)
def kill_endpoint(workspace: Deployable, name: Name, user: User, session: SessionDep) -> None:
    """End an endpoint with all its revisions; its records stay."""
    endpoints.kill(Endpoints(workspace), name, user.get_name(), session)
