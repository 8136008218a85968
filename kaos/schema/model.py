"""Models from elsewhere, and tags."""

from __future__ import annotations

from pydantic import Field

from kaos.model import ListedModel, TagMove
from kaos.value import Value


class ModelImport(Value):
    """A directory of a model that was not trained here, already committed as a bundle."""

    name: str
    digest: str


class ModelList(Value):
    """Models of a workspace, the newest first."""

    models: list[ListedModel]


class TagChange(Value):
    """A model that a tag shall name.

    :param model_id: its id, or another tag that names it
    :param why: for people
    """

    model_id: str
    why: str = Field(default="", max_length=500)


class ModelTags(Value):
    """Moves of tags: the last of each, or all of one."""

    moves: list[TagMove]
