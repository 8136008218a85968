"""Schedules as the store has them and as Airflow runs them, put together."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from sqlalchemy.orm import Session

from kaos.catalog import WorkspaceCatalog
from kaos.endpoint import SERVE
from kaos.errors import ConflictError, InvalidScheduleError, UnknownNameError
from kaos.job import TRAIN, WATCH, Definition, Inputs
from kaos.names import data_asset
from kaos.runtime.capacity import machine_capacity
from kaos.schedule import Schedule
from kaos.schedules import Schedules, Tick, Told
from kaos.schema.schedule import LastRun, ScheduleDeleted, ScheduleList, ScheduleRow, ScheduleSet
from kaos.serving.records import Endpoints
from kaos_dags.publish import publish
from kaos_dags.render import file_name
from kaos_operators import ApproveOperator
from kaos_operators.environment import CONTAINER, PROCESS, check_allowed, check_network
from kaos_operators.hook import network_by_default
from kaos_plugin import airflow_internals
from kaos_plugin.airflow_internals import Timing
from kaos_plugin.jobs import job_state, kill_job, promoted, publish_dags, runtime_of_jobs
from kaos_plugin.removal import remove_dags

APPROVE = "approve"
"""The task that asks a person."""

RESERVED = (TRAIN, SERVE, WATCH)
"""Names of definitions that are no schedule's."""


def set_schedule(
    workspace: WorkspaceCatalog, name: str, body: ScheduleSet, user: str, db: Session
) -> ScheduleRow:
    """Let jobs start by themselves from now on; a schedule of that name is changed."""
    if body.promotion is not None:
        Endpoints(workspace).alive(body.promotion.endpoint)
    if name in RESERVED:
        raise InvalidScheduleError(f"{name!r} cannot name a schedule.", "Give another name: --job NAME")
    schedule = Schedule(
        **{field: getattr(body, field) for field in ScheduleSet.model_fields},
        author=user,
        created_at=datetime.now(UTC),
    )
    if schedule.cron is not None:
        airflow_internals.check_cron(schedule.cron, schedule.timezone)
    schedule = schedule.model_copy(update={"job": _settings(workspace, schedule)})
    records = Schedules(workspace)
    if schedule.on_data and records.told() is None:
        records.tell(Told.of(workspace.inputs()))
    workspace.set_definition(
        Definition(
            workspace=workspace.workspace.name,
            name=name,
            schedule=schedule,
            parallelism=schedule.job.parallelism,
        )
    )
    _watch(workspace, db)
    publish_dags(workspace, db)
    airflow_internals.set_paused(_definition(records, name).dag_id, False, db)
    return _row(records, _definition(records, name), db)


def list_schedules(workspace: WorkspaceCatalog, db: Session) -> ScheduleList:
    """Return the schedules of a workspace, by name."""
    records = Schedules(workspace)
    return ScheduleList(schedules=[_row(records, each, db) for each in records.definitions()])


def pause(workspace: WorkspaceCatalog, name: str, db: Session, *, paused: bool) -> ScheduleRow:
    """Let a schedule start no more jobs, or start them again."""
    records = Schedules(workspace)
    definition = _definition(records, name)
    if definition.schedule is not None:
        changed = definition.schedule.model_copy(update={"paused": paused})
        workspace.set_definition(definition.model_copy(update={"schedule": changed}))
        if changed.on_data and not paused:
            records.tell(None)  # events that came meanwhile went past it: look anew
    publish_dags(workspace, db)
    airflow_internals.set_paused(definition.dag_id, paused, db)
    return _row(records, _definition(records, name), db)


def answer(
    workspace: WorkspaceCatalog, name: str, user: BaseUser, db: Session, *, approved: bool
) -> ScheduleRow:
    """Answer for a model that waits; return the schedule as it was before.

    :raises ConflictError: none waits
    """
    records = Schedules(workspace)
    definition = _definition(records, name)
    row = _row(records, definition, db)
    for run_id in airflow_internals.waiting_runs(definition.dag_id, APPROVE, db):
        choice = ApproveOperator.APPROVE if approved else ApproveOperator.REJECT
        airflow_internals.answer(definition.dag_id, run_id, APPROVE, choice, user, db)
        return row
    raise ConflictError(f"No model of {name} waits for approval.", "See kaos train schedule list.")


def delete(workspace: WorkspaceCatalog, name: str, user: str, db: Session) -> ScheduleDeleted:
    """Remove a schedule with its DAG, and end what runs of it; its jobs and models stay."""
    records = Schedules(workspace)
    definition = _definition(records, name)
    airflow_internals.set_paused(definition.dag_id, True, db)
    stopped = running_jobs(workspace, definition, db)
    for job_id in stopped:
        kill_job(workspace, workspace.job(job_id)[0], user, db)
    _remove(workspace, definition, db)
    records.forget(name)
    _watch(workspace, db)
    return ScheduleDeleted(name=name, stopped_jobs=stopped)


def running_jobs(workspace: WorkspaceCatalog, definition: Definition, db: Session) -> list[str]:
    """Return the ids of the jobs that active runs of a definition's DAG are at."""
    records, known = Schedules(workspace), set(workspace.job_ids())
    found: list[str] = []
    for run_id in airflow_internals.active_runs(definition.dag_id, db):
        pinned = records.pinned(definition.name, run_id)
        job_id = pinned.job_id if pinned is not None else run_id
        if job_id in known and workspace.outcome(job_id) is None:
            found.append(job_id)
    return sorted(found)


def tell_of_data(workspace: WorkspaceCatalog, before: Inputs, now: Inputs, db: Session) -> None:
    """Give the asset of a workspace's data an event, if a deploy has brought other data."""
    told = Told.of(now)
    if told == Told.of(before) or (told.data is None and told.manifest is None):
        return
    records = Schedules(workspace)
    extra = {"data": told.data, "manifest": told.manifest}
    airflow_internals.emit(data_asset(workspace.workspace.name), extra, db)
    if any(each.schedule is not None and each.schedule.on_data for each in records.definitions()):
        records.tell(told)


def _settings(workspace: WorkspaceCatalog, schedule: Schedule) -> object:
    """Return what the jobs run with, filled up with what holds now, and checked."""
    settings = schedule.job
    runtime = settings.runtime or runtime_of_jobs(workspace)
    check_allowed(runtime)
    check_network(runtime, settings.network)
    if runtime in (PROCESS, CONTAINER):  # on this machine
        settings.resources.check(machine_capacity())
    network = network_by_default() if settings.network is None else settings.network
    return settings.model_copy(update={"runtime": runtime, "network": network})


def _watch(workspace: WorkspaceCatalog, db: Session) -> None:
    """Let the DAG that looks for new data run as often as schedules on data want it; none if none does."""
    wanted = [
        each.schedule
        for each in Schedules(workspace).definitions()
        if each.schedule is not None and each.schedule.on_data
    ]
    found = next((each for each in workspace.definitions() if each.kind == WATCH), None)
    if not wanted:
        if found is not None:
            _remove(workspace, found, db)
            Schedules(workspace).tell(None)
        return
    every = min(each.check_every for each in wanted)
    if found is None or found.schedule is None or found.schedule.every != every:
        schedule = Schedule(every=every, author=wanted[0].author, created_at=wanted[-1].created_at)
        workspace.set_definition(
            Definition(workspace=workspace.workspace.name, name=WATCH, kind="watch", schedule=schedule)
        )
        publish_dags(workspace, db)


def _remove(workspace: WorkspaceCatalog, definition: Definition, db: Session) -> None:
    """Remove a definition: first its DAG, so that a removal that was cut short can be repeated."""
    publish(workspace.store, {file_name(definition.dag_id): None})
    for run_id in airflow_internals.active_runs(definition.dag_id, db):
        airflow_internals.fail_run(definition.dag_id, run_id, db)
    remove_dags(workspace.store, [definition], db)
    workspace.remove_definition(definition.name)


def _definition(records: Schedules, name: str) -> Definition:
    known = {each.name: each for each in records.definitions()}
    if name not in known:
        raise UnknownNameError("schedule", name, known, "See kaos train schedule list.")
    return known[name]


def _row(records: Schedules, definition: Definition, db: Session) -> ScheduleRow:
    schedule = definition.schedule
    if schedule is None:
        raise UnknownNameError("schedule", definition.name)
    timing = airflow_internals.timing(definition.dag_id, db) or Timing(schedule.paused, None)
    last = records.state(definition.name).last
    waiting = [
        pinned.job_id
        for run_id in airflow_internals.waiting_runs(definition.dag_id, APPROVE, db)
        if (pinned := records.pinned(definition.name, run_id)) is not None
    ]
    return ScheduleRow(
        name=definition.name,
        when=schedule.when,
        paused=timing.paused,
        next=None if timing.paused else timing.next,
        last=_last(records, definition.name, last, db) if last is not None else None,
        waiting=waiting[0] if waiting else None,
        dag_id=definition.dag_id,
        url=f"/dags/{definition.dag_id}",
        schedule=schedule,
    )


def _last(records: Schedules, name: str, tick: Tick, db: Session) -> LastRun:
    state, reason, workspace = None, tick.reason, records.workspace
    if tick.job_id is not None and records.pinned(name, tick.run_id) is not None:
        state, reason = job_state(workspace, workspace.job(tick.job_id)[0], db)
        reason = ". ".join(filter(None, (promoted(workspace, tick.job_id), reason)))
    return LastRun(
        at=tick.at,
        job_id=tick.job_id,
        state=state,
        skipped=tick.job_id is None and not tick.failed,
        reason=reason,
    )
