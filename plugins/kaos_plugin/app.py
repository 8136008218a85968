"""The FastAPI app: routes, one shape for every error, nothing anonymous."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Thread

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from kaos import __version__
from kaos.errors import ForbiddenError, KaosError, UnauthenticatedError
from kaos.schema.error import ErrorBody
from kaos_plugin.auth import signed_in
from kaos_plugin.endpoints import start_forgotten
from kaos_plugin.jobs import start_forgotten_jobs
from kaos_plugin.lineage import warm
from kaos_plugin.retention import publish_maintenance
from kaos_plugin.routes import api_router, ui_router

log = logging.getLogger(__name__)


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    start_forgotten_jobs()
    start_forgotten()
    publish_maintenance()
    # Airflow's modules stay: to look through them for garbage takes half a second, amid a question.
    gc.freeze()
    Thread(target=warm, name="kaos-lineage", daemon=True).start()
    yield


def create_app() -> FastAPI:
    """Return the app that Airflow's API server mounts under ``/kaos``."""
    app = FastAPI(
        title="kaos",
        version=__version__,
        description="Reproducible machine learning on Apache Airflow",
        servers=[{"url": "/kaos"}],
        # These would be open to everybody; `/api/v1/openapi.json` asks who it is.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
        dependencies=[signed_in],
        responses={"4XX": {"model": ErrorBody, "description": "What was wrong, and what to do now"}},
    )
    app.include_router(api_router)
    app.include_router(ui_router)
    app.add_exception_handler(KaosError, _kaos_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(404, _no_route)
    app.add_exception_handler(405, _no_route)
    return app


def _answer(status: int, code: str, message: str, next_step: str = "") -> JSONResponse:
    body = ErrorBody(code=code, message=message, next_step=next_step)
    return JSONResponse(body.model_dump(), status_code=status)


def _kaos_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, KaosError):
        raise error
    if error.status >= 500:
        log.error("%s: %s", error.code, error)
    return _answer(error.status, error.code, error.message, error.next_step)


def _invalid_request(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()
    )
    return _answer(
        422, "invalid_input", f"The request is not valid: {problems}.", "Is the client of this version?"
    )


def _http_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    # Airflow answers 403 to a token that it cannot read; what a user may not do is a ForbiddenError of ours.
    if error.status_code in (UnauthenticatedError.status, ForbiddenError.status):
        return _answer(
            401, UnauthenticatedError.code, "No valid token came with the request.", "Sign in: kaos init"
        )
    codes = {404: "unknown_name", 405: "invalid_input"}
    return _answer(error.status_code, codes.get(error.status_code, "error"), str(error.detail))


def _no_route(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, KaosError):
        return _kaos_error(request, error)
    status = getattr(error, "status_code", 404)
    return _answer(
        status,
        "unknown_name",
        f"There is no {request.method} {request.url.path}.",
        "Is the client of this version?",
    )
