"""The routes, a module per noun."""

from __future__ import annotations

from fastapi import APIRouter

from kaos_plugin.routes import (
    bundles,
    deploys,
    endpoints,
    jobs,
    lineage,
    models,
    pages,
    reproductions,
    retention,
    schedules,
    server,
    workspaces,
)

api_router = APIRouter(prefix="/api/v1")
for module in (
    server,
    workspaces,
    bundles,
    deploys,
    jobs,
    models,
    endpoints,
    reproductions,
    lineage,
    retention,
    schedules,
):
    api_router.include_router(module.router)

ui_router = pages.router

__all__ = ["api_router", "ui_router"]
