"""The operations of retention."""

from __future__ import annotations

from kaos.names import check_workspace
from kaos.retention import RetentionPolicy
from kaos.schema.retention import Collected, CollectRequest, RetentionInfo
from kaos_cli.client import Client


class RetentionClient(Client):
    """Policies, and collections."""

    def get(self, workspace: str) -> RetentionInfo:
        """Return a workspace's policy."""
        return self._get(RetentionInfo, f"/workspaces/{check_workspace(workspace)}/retention")

    def set(self, workspace: str, policy: RetentionPolicy) -> RetentionInfo:
        """Let a policy hold from now on."""
        path = f"/workspaces/{check_workspace(workspace)}/retention"
        return self._call(RetentionInfo, "PUT", path, body=policy)

    def collect(self, workspace: str | None, request: CollectRequest) -> Collected:
        """Collect in a workspace, or in all of them."""
        path = f"/workspaces/{check_workspace(workspace)}/collect" if workspace else "/store/collect"
        return self._call(Collected, "POST", path, body=request)
