"""About the server."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from kaos import __version__
from kaos.schema.server import ServerInfo
from kaos.store import identity
from kaos_operators.hook import configured_store, runtimes
from kaos_plugin.auth import User

router = APIRouter(tags=["server"])


@router.get("/info")
def info(user: User) -> ServerInfo:
    """Return what a client has to know, and who the server takes the user for."""
    store = configured_store()
    return ServerInfo(
        version=__version__,
        user=user.get_name(),
        store=store.url,
        instance=identity(store),
        runtimes=runtimes(),
    )


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> dict[str, Any]:
    """Return the OpenAPI document of this API."""
    return dict(request.app.openapi())
