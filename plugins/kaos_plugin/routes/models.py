"""Models: those from elsewhere, and the tags."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from kaos.model import ImportRecord, TagMove
from kaos.models import Models
from kaos.schema.model import ImportedModels, ModelImport, ModelTags, TagChange
from kaos_plugin.auth import Deployable, Readable, User

router = APIRouter(prefix="/workspaces/{workspace}", tags=["models"])

Tag = Annotated[str, Path(description="name of the tag")]


@router.get("/imports")
def list_imports(workspace: Readable) -> ImportedModels:
    """Return the models that were not trained here."""
    return ImportedModels(models=list(Models(workspace).imports()))


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
