"""Where models and endpoints come from, what came of a file, and how two models differ."""

from __future__ import annotations

import json
from typing import Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query, Response
from sqlalchemy.orm import Session

from kaos.catalog import WorkspaceCatalog
from kaos.graph import Graph
from kaos.provenance.answers import answer
from kaos.provenance.difference import difference
from kaos.schema.lineage import LineageAnswer, ModelDifference, Rebuilt
from kaos_plugin import lineage
from kaos_plugin.auth import AllReadable, Readable, User
from kaos_plugin.lineage import MEDIA, PictureFormat
from kaos_plugin.rebuild import rebuild

router = APIRouter(tags=["lineage"])

Format = Annotated[
    PictureFormat, Query(description="of the picture; json: the graph itself; openlineage: events")
]
Ref = Annotated[
    str, Query(min_length=1, max_length=4000, description="digest, /bundle:abcde/path, URL, id or name")
]
Limit = Annotated[int | None, Query(ge=1, description="rows at most; all by default")]


def _asked(workspace: Readable, background: BackgroundTasks) -> WorkspaceCatalog:
    """Let what is read of the workspace be kept, once the answer is on its way."""
    background.add_task(lineage.keep, workspace)
    return workspace


def _all_asked(workspaces: AllReadable, background: BackgroundTasks) -> list[WorkspaceCatalog]:
    for each in workspaces:
        background.add_task(lineage.keep, each)
    return workspaces


AskedWorkspace = Annotated[WorkspaceCatalog, Depends(_asked)]
AllAsked = Annotated[list[WorkspaceCatalog], Depends(_all_asked)]
_PICTURE: dict[int | str, dict[str, object]] = {
    200: {"content": {media: {} for media in sorted(MEDIA.values())}, "description": "The picture"}
}


@router.get(
    "/workspaces/{workspace}/models/{model_id}/provenance", response_class=Response, responses=_PICTURE
)
def get_model_provenance(
    workspace: AskedWorkspace,
    model_id: Annotated[str, Path(description="id of the model, or a tag")],
    session: SessionDep,
    format: Format = "pdf",
) -> Response:
    """Return everything that made a model, drawn."""
    graph, focus = lineage.of_model(workspace, model_id)
    return _picture(workspace, graph, focus, format, f"model-{graph.by_id[focus].label}", session)


@router.get(
    "/workspaces/{workspace}/endpoints/{name}/provenance", response_class=Response, responses=_PICTURE
)
def get_endpoint_provenance(
    workspace: AskedWorkspace,
    name: Annotated[str, Path(description="name of the endpoint")],
    session: SessionDep,
    format: Format = "pdf",
    all_revisions: Annotated[bool, Query(description="not only those that have its traffic")] = False,
) -> Response:
    """Return everything that made an endpoint, drawn."""
    graph, focus = lineage.of_served(workspace, name, everything=all_revisions)
    return _picture(workspace, graph, focus, format, name, session)


@router.get("/workspaces/{workspace}/lineage/upstream")
def get_upstream(workspace: AskedWorkspace, ref: Ref, limit: Limit = None) -> LineageAnswer:
    """Return everything that had a part in something."""
    return answer([lineage.read(workspace)], ref, upstream=True, limit=limit)


@router.get("/workspaces/{workspace}/lineage/downstream")
def get_downstream(workspace: AskedWorkspace, ref: Ref, limit: Limit = None) -> LineageAnswer:
    """Return everything that came of something."""
    return answer([lineage.read(workspace)], ref, upstream=False, limit=limit)


@router.get("/lineage/upstream")
def get_upstream_of_all(workspaces: AllAsked, ref: Ref, limit: Limit = None) -> LineageAnswer:
    """Return everything that had a part in something, of all workspaces that the user may read."""
    return answer(list(map(lineage.read, workspaces)), ref, upstream=True, limit=limit)


@router.get("/lineage/downstream")
def get_downstream_of_all(workspaces: AllAsked, ref: Ref, limit: Limit = None) -> LineageAnswer:
    """Return everything that came of something, in all workspaces that the user may read."""
    return answer(list(map(lineage.read, workspaces)), ref, upstream=False, limit=limit)


@router.get("/workspaces/{workspace}/lineage/difference")
def get_difference(
    workspace: Readable,
    one: Annotated[str, Query(description="id of a model, or a tag")],
    other: Annotated[str, Query(description="id of a model, or a tag")],
) -> ModelDifference:
    """Return in what two models differ, down to files, parameters and packages."""
    return difference(workspace, one, other)


@router.post("/lineage/rebuild")
def rebuild_from_store(user: User, session: SessionDep) -> Rebuilt:
    """Let a fresh server know what is in its store: DAGs, jobs, endpoints."""
    return rebuild(user, session)


def _picture(
    workspace: WorkspaceCatalog, graph: Graph, focus: str, wanted: PictureFormat, name: str, db: Session
) -> Response:
    """Return a picture with the name that a file of it shall have, and what Airflow's history contradicts."""
    content = lineage.rendered(graph, focus, wanted)
    headers = {"Content-Disposition": f'attachment; filename="{lineage.file_name(name, wanted)}"'}
    notes = lineage.contradictions(workspace.workspace.name, graph, db)
    if notes:
        headers["Kaos-Notes"] = json.dumps(notes)
    return Response(content, media_type=MEDIA[wanted], headers=headers)
