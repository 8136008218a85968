"""Models that are made again, and what came of it."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Query, status

from kaos.reproduction import Reproduction
from kaos.reproductions import Reproductions
from kaos.schema.reproduction import ReproductionList, ReproductionRequest, ReproductionStarted
from kaos_plugin import reproductions
from kaos_plugin.auth import Deployable, Readable, User

router = APIRouter(prefix="/workspaces/{workspace}/reproductions", tags=["reproductions"])


@router.post("", status_code=status.HTTP_201_CREATED)
def reproduce(
    workspace: Deployable, body: ReproductionRequest, user: User, session: SessionDep
) -> ReproductionStarted:
    """Start a job that makes a model again, of exactly what made it, and compares."""
    return reproductions.reproduce(workspace, body, user.get_name(), session)


@router.get("")
def list_reproductions(
    workspace: Readable, model: Annotated[str, Query(description="id of the model")]
) -> ReproductionList:
    """Return what came of making a model again, the oldest first."""
    return ReproductionList(reproductions=list(Reproductions(workspace).of_model(model)))


@router.get("/{job_id}")
def get_reproduction(workspace: Readable, job_id: str) -> Reproduction:
    """Return what came of a job that makes a model again; a conflict before its end."""
    return reproductions.reproduction_of(workspace, job_id)
