"""Models: all of them, those from elsewhere, and the tags."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from kaos.model import ImportRecord, TagMove
from kaos.models import Models
from kaos.schema.model import ModelImport, ModelList, ModelTags, TagChange
from kaos_plugin.auth import Deployable, Readable, User

router = APIRouter(prefix="/workspaces/{workspace}", tags=["models"])

Tag = Annotated[str, Path(description="name of the tag")]


@router.get("/models")
def list_models(
    workspace: Readable,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> ModelList:
    """Return models with their tags, the newest first."""
    models = Models(workspace)
    tags: dict[str, list[str]] = {}
    for move in models.tags():
        tags.setdefault(move.model_id or "", []).append(move.name)
    return ModelList(
        models=[
            each.model_copy(update={"tags": tags.get(each.model_id, [])})
            for each in islice(models.newest(), offset, offset + limit)
        ]
    )


@router.post("/imports", status_code=status.HTTP_201_CREATED)
def import_model(workspace: Deployable, body: ModelImport, user: User) -> ImportRecord:
    """Record a committed bundle as a model."""
    return Models(workspace).add_import(body.name, workspace.tree(body.digest), user.get_name())


@router.get("/tags")
def list_tags(workspace: Readable) -> ModelTags:
    """Return the tags, each with its last move."""
    return ModelTags(moves=Models(workspace).tags())


@router.get("/tags/{tag}")
def list_tag_moves(workspace: Readable, tag: Tag) -> ModelTags:
    """Return the models that a tag has named, the newest first."""
    return ModelTags(moves=Models(workspace).tag_moves(tag))


@router.put("/tags/{tag}")
def tag_model(workspace: Deployable, tag: Tag, body: TagChange, user: User) -> TagMove:
    """Let a tag name a model."""
    return Models(workspace).move_tag(tag, body.model_id, user.get_name(), body.why)


@router.delete("/tags/{tag}")
def untag_model(
    workspace: Deployable,
    tag: Tag,
    user: User,
    why: Annotated[str, Query(max_length=500, description="for people")] = "",
) -> TagMove:
    """Take a tag away; what it has named stays known."""
    return Models(workspace).move_tag(tag, None, user.get_name(), why)
