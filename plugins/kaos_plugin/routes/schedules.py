"""Schedules: set, listed, paused, removed."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Depends, Path, Query

from kaos.names import check_definition
from kaos.schema.schedule import ScheduleDeleted, ScheduleList, ScheduleRow, ScheduleSet
from kaos_plugin import schedules
from kaos_plugin.auth import Deployable, Readable, User, require

router = APIRouter(prefix="/workspaces/{workspace}/schedules", tags=["schedules"])


def _name(name: Annotated[str, Path(description="name of the schedule")]) -> str:
    return check_definition(name)


Name = Annotated[str, Depends(_name)]


@router.get("")
def list_schedules(workspace: Readable, session: SessionDep) -> ScheduleList:
    """Return the schedules, by name."""
    return schedules.list_schedules(workspace, session)


@router.put("/{name}")
def set_schedule(
    workspace: Deployable, name: Name, body: ScheduleSet, user: User, session: SessionDep
) -> ScheduleRow:
    """Let jobs start by themselves; a schedule of that name is changed."""
    return schedules.set_schedule(workspace, name, body, user.get_name(), session)


@router.post("/{name}/pause")
def pause_schedule(workspace: Deployable, name: Name, session: SessionDep) -> ScheduleRow:
    """Let a schedule start no more jobs."""
    return schedules.pause(workspace, name, session, paused=True)


@router.post("/{name}/resume")
def resume_schedule(workspace: Deployable, name: Name, session: SessionDep) -> ScheduleRow:
    """Let a schedule start jobs again."""
    return schedules.pause(workspace, name, session, paused=False)


@router.post("/{name}/answer")
def answer(
    workspace: Deployable,
    name: Name,
    user: User,
    session: SessionDep,
    approved: Annotated[bool, Query(description="whether the model shall be deployed")],
) -> ScheduleRow:
    """Say whether the model shall be deployed that waits for it."""
    require(user, "PUT", workspace.workspace.name, DagAccessEntity.HITL_DETAIL)
    return schedules.answer(workspace, name, user, session, approved=approved)


@router.delete("/{name}")
def delete_schedule(workspace: Deployable, name: Name, user: User, session: SessionDep) -> ScheduleDeleted:
    """Remove a schedule with its DAG, and end what runs of it."""
    return schedules.delete(workspace, name, user.get_name(), session)
