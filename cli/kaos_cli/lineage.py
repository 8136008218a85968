"""The operations on lineage."""

from __future__ import annotations

import json
import re
from typing import NamedTuple
from urllib.parse import quote

from kaos.errors import ServerUnreachableError
from kaos.names import check_endpoint, check_workspace
from kaos.schema.lineage import LineageAnswer, ModelDifference, Rebuilt
from kaos_cli.client import Client, Connection, segment

_FILE = re.compile(r'filename="([A-Za-z0-9][A-Za-z0-9._:-]*)"')


class Picture(NamedTuple):
    """A picture, the name of its file, and what in Airflow's history contradicts it."""

    content: bytes
    name: str
    notes: list[str]


class QuestionClient(Client):
    """The lineage of all workspaces that one may read."""

    _at = ""

    def upstream(self, ref: str, limit: int | None) -> LineageAnswer:
        """Return everything that had a part in something."""
        return self._get(LineageAnswer, f"{self._at}/lineage/upstream", ref=ref, limit=limit)

    def downstream(self, ref: str, limit: int | None) -> LineageAnswer:
        """Return everything that came of something."""
        return self._get(LineageAnswer, f"{self._at}/lineage/downstream", ref=ref, limit=limit)


class RebuildClient(Client):
    """A server as a whole, and its store."""

    def rebuild(self) -> Rebuilt:
        """Let the server know what is in its store."""
        return self._call(Rebuilt, "POST", "/lineage/rebuild")


class LineageClient(QuestionClient):
    """The lineage of one workspace."""

    def __init__(self, connection: Connection, workspace: str) -> None:
        super().__init__(connection)
        self.workspace_name = workspace
        self._at = f"/workspaces/{check_workspace(workspace)}"

    def of_model(self, model_id: str, wanted: str) -> Picture:
        """Return everything that made a model, drawn."""
        model = segment("model or tag", model_id, "See kaos train info, kaos model list.")
        return self._picture(f"models/{model}", format=wanted)

    def of_endpoint(self, name: str, wanted: str, *, everything: bool) -> Picture:
        """Return everything that made an endpoint, drawn."""
        path = f"endpoints/{quote(check_endpoint(name), safe='')}"
        return self._picture(path, format=wanted, all_revisions=everything)

    def difference(self, one: str, other: str) -> ModelDifference:
        """Return in what two models differ."""
        return self._get(ModelDifference, f"{self._at}/lineage/difference", one=one, other=other)

    def _picture(self, of: str, **query: object) -> Picture:
        path = f"/kaos/api/v1{self._at}/{of}/provenance"
        response = self.connection.call("GET", path, query=query)
        name = _FILE.search(response.headers.get("Content-Disposition", ""))
        if name is None:
            raise ServerUnreachableError(
                f"{self.connection.url} did not answer with a picture.", "Is the server of this version?"
            )
        return Picture(response.data, name[1], json.loads(response.headers.get("Kaos-Notes", "[]")))
