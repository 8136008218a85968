"""The operations on endpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from kaos.names import check_endpoint, check_workspace
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
from kaos_cli.client import Client, Connection


class EndpointsClient(Client):
    """The endpoints of one workspace."""

    def __init__(self, connection: Connection, workspace: str) -> None:
        super().__init__(connection)
        self.workspace_name = workspace
        self._at = f"/workspaces/{check_workspace(workspace)}"

    def list(self) -> EndpointList:
        """Return them, the newest first."""
        return self._get(EndpointList, f"{self._at}/endpoints")

    def deploy(self, request: EndpointDeploy) -> EndpointDeployed:
        """Start the deploy of a new revision."""
        return self._call(EndpointDeployed, "POST", f"{self._at}/endpoints", body=request)

    def get(self, name: str) -> EndpointInfo:
        """Return everything about one."""
        return self._get(EndpointInfo, self._one(name))

    def revision(self, name: str, number: int) -> RevisionInfo:
        """Return everything about a revision."""
        return self._get(RevisionInfo, f"{self._one(name)}/revisions/{number}")

    def stages(self, name: str, number: int) -> Sequence[StageState]:
        """Return how far the deploy of a revision is."""
        path = f"/kaos/api/v1{self._one(name)}/revisions/{number}/stages"
        return [
            StageState.model_validate(each) for each in json.loads(self.connection.call("GET", path).data)
        ]

    def content(self, name: str, number: int | None) -> EndpointContent:
        """Return the tree of a revision."""
        return self._get(EndpointContent, f"{self._one(name)}/content", revision=number)

    def logs(self, name: str, kind: str, number: int | None, position: str) -> LogChunk:
        """Return lines of a revision's log; `kind` is ``logs`` or ``build-logs``."""
        return self._get(LogChunk, f"{self._one(name)}/{kind}", revision=number, position=position or None)

    def roll_back(self, name: str) -> EndpointTurned:
        """Return to the previous revision."""
        return self._call(EndpointTurned, "POST", f"{self._one(name)}/rollback")

    def promote(self, name: str) -> EndpointTurned:
        """Give the canary all of the traffic."""
        return self._call(EndpointTurned, "POST", f"{self._one(name)}/promote")

    def kill(self, name: str) -> None:
        """End one."""
        self.connection.call("DELETE", f"/kaos/api/v1{self._one(name)}")

    def _one(self, name: str) -> str:
        return f"{self._at}/endpoints/{quote(check_endpoint(name), safe='')}"
