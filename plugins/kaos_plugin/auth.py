"""Who is asking, and what they may: a workspace is guarded like its DAG, by Airflow's own auth manager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, Path

from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.errors import ForbiddenError
from kaos.job import TRAIN
from kaos.names import check_workspace, dag_id
from kaos_operators.hook import configured_store

Method = Literal["GET", "POST", "PUT", "DELETE"]

signed_in = Depends(get_user)
User = Annotated[BaseUser, signed_in]


def catalog() -> Catalog:
    """Return the catalog of the configured store."""
    return Catalog(configured_store())


def may(user: BaseUser, method: Method, workspace: str, entity: DagAccessEntity | None = None) -> bool:
    """Tell whether the user may do `method` to the DAG (or the runs) of a workspace."""
    return get_auth_manager().is_authorized_dag(
        method=method, access_entity=entity, details=DagDetails(id=dag_id(workspace, TRAIN)), user=user
    )


def require(user: BaseUser, method: Method, workspace: str, entity: DagAccessEntity | None = None) -> None:
    """Check that the user may do this.

    :raises ForbiddenError: the user may not
    """
    check_workspace(workspace)
    if not may(user, method, workspace, entity):
        verb = {"GET": "read", "POST": "deploy to", "PUT": "change", "DELETE": "remove"}[method]
        raise ForbiddenError(
            f"{user.get_name()} may not {verb} workspace {workspace!r}.",
            "Ask an administrator of this Airflow.",
        )


def require_admin(user: BaseUser) -> None:
    """Check that the user administers this Airflow: may change its connections.

    :raises ForbiddenError: the user does not
    """
    if not get_auth_manager().is_authorized_connection(method="DELETE", user=user):
        raise ForbiddenError(
            f"{user.get_name()} does not administer this Airflow.",
            "Collect in one workspace: kaos gc -w WORKSPACE",
        )


WorkspaceName = Annotated[str, Path(description="name of the workspace")]


def _readable(workspace: WorkspaceName, user: User) -> WorkspaceCatalog:
    require(user, "GET", workspace, DagAccessEntity.RUN)
    return catalog().workspace(workspace)


def visible(user: BaseUser, entity: DagAccessEntity | None = None) -> list[WorkspaceCatalog]:
    """Return the workspaces whose DAG the user may see, or whose runs; sorted by name."""
    found = catalog()
    return [
        WorkspaceCatalog(found.store, each)
        for each in found.workspaces()
        if may(user, "GET", each.name, entity)
    ]


def _all_readable(user: User) -> list[WorkspaceCatalog]:
    return visible(user, DagAccessEntity.RUN)


def _uploadable(workspace: WorkspaceName, user: User) -> WorkspaceCatalog:
    require(user, "POST", workspace, DagAccessEntity.RUN)
    found = catalog().workspace(workspace)
    found.check_alive()
    return found


def _deployable(workspace: WorkspaceName, user: User) -> Iterator[WorkspaceCatalog]:
    found = _uploadable(workspace, user)
    # What the request finds in the store stays until it has named it, or has failed.
    with found.store.uses.hold():
        yield found


def _removable(workspace: WorkspaceName, user: User) -> WorkspaceCatalog:
    require(user, "DELETE", workspace)
    return catalog().workspace(workspace)


Readable = Annotated[WorkspaceCatalog, Depends(_readable)]
"""The workspace of the path, for one who may see its runs."""

AllReadable = Annotated[list[WorkspaceCatalog], Depends(_all_readable)]
"""All workspaces whose runs the user may see, sorted by name."""

Uploadable = Annotated[WorkspaceCatalog, Depends(_uploadable)]
"""The same for requests that bring objects and name none: they may take hours."""

Deployable = Annotated[WorkspaceCatalog, Depends(_deployable)]
"""The living workspace of the path, for one who may start runs in it."""

Removable = Annotated[WorkspaceCatalog, Depends(_removable)]
"""The workspace of the path, for one who may delete its DAG."""
