"""Retention: policies, and collections now."""

from __future__ import annotations

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter

from kaos.retention import RetentionPolicy
from kaos.schema.retention import Collected, CollectRequest, RetentionInfo
from kaos_plugin import retention
from kaos_plugin.auth import Readable, Removable, User, catalog, require, require_admin

router = APIRouter(tags=["retention"])


@router.get("/workspaces/{workspace}/retention")
def get_retention(workspace: Readable) -> RetentionInfo:
    """Return a workspace's policy."""
    return retention.info(workspace)


@router.put("/workspaces/{workspace}/retention")
def set_retention(workspace: Removable, body: RetentionPolicy, user: User) -> RetentionInfo:
    """Let a policy hold from now on; one without rules keeps all models."""
    return retention.set_policy(workspace, body, user.get_name())


@router.post("/workspaces/{workspace}/collect")
def collect_workspace(
    workspace: Removable, body: CollectRequest, user: User, session: SessionDep
) -> Collected:
    """Remove what a workspace's policy lets go, and what nothing names; or say what that would be."""
    return retention.collect([workspace], body, user.get_name(), session)


@router.post("/store/collect")
def collect_all(body: CollectRequest, user: User, session: SessionDep) -> Collected:
    """Do so for all workspaces: for those who administer Airflow and may remove every workspace."""
    require_admin(user)
    found = catalog().workspaces()
    for each in found:
        require(user, "DELETE", each.name)
    workspaces = [catalog().workspace(each.name) for each in found]
    return retention.collect(workspaces, body, user.get_name(), session)
