"""The operations on models and tags."""

from __future__ import annotations

from urllib.parse import quote

from kaos.model import ImportRecord, TagMove
from kaos.names import check_tag, check_workspace
from kaos.schema.model import ModelImport, ModelList, ModelTags, TagChange
from kaos_cli.client import Client, Connection


class ModelsClient(Client):
    """The models of one workspace."""

    def __init__(self, connection: Connection, workspace: str) -> None:
        super().__init__(connection)
        self.workspace_name = workspace
        self._at = f"/workspaces/{check_workspace(workspace)}"

    def import_model(self, name: str, digest: str) -> ImportRecord:
        """Record a committed bundle as a model."""
        body = ModelImport(name=name, digest=digest)
        return self._call(ImportRecord, "POST", f"{self._at}/imports", body=body)

    def list(self, limit: int) -> ModelList:
        """Return the newest models."""
        return self._get(ModelList, f"{self._at}/models", limit=limit)

    def tags(self) -> ModelTags:
        """Return the tags, each with its last move."""
        return self._get(ModelTags, f"{self._at}/tags")

    def tag_moves(self, name: str) -> ModelTags:
        """Return the models that a tag has named, the newest first."""
        return self._get(ModelTags, self._tag(name))

    def tag(self, name: str, model_id: str, why: str) -> TagMove:
        """Let a tag name a model."""
        return self._call(TagMove, "PUT", self._tag(name), body=TagChange(model_id=model_id, why=why))

    def untag(self, name: str, why: str) -> TagMove:
        """Take a tag away."""
        return self._call(TagMove, "DELETE", self._tag(name), query={"why": why or None})

    def _tag(self, name: str) -> str:
        return f"{self._at}/tags/{quote(check_tag(name), safe='')}"
