"""The one door to what Airflow does not promise to keep; written for 3.3, and nothing else imports these."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow.api.common.delete_dag import delete_dag
from airflow.api.common.mark_tasks import set_dag_run_state_to_failed
from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
from airflow.assets.manager import asset_manager
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.exceptions import AirflowTimetableInvalid, DagNotFound
from airflow.models.asset import AssetModel
from airflow.models.dag import DagModel
from airflow.models.dagbag import DagPriorityParsingRequest, DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.timetables.base import TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable
from airflow.utils.log.log_reader import TaskLogReader
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select, tuple_, update
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import joinedload
from sqlalchemy.orm.exc import StaleDataError

from kaos.errors import InvalidScheduleError

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
    from sqlalchemy.orm import Session

    from kaos_dags.dag_bundle import KaosDagBundle, PublishedFile

log = logging.getLogger(__name__)

_SYNC_ATTEMPTS = 5
_SETTLED = 3.0
_LONGEST_CRON = 500
"""Characters; all numbers of all fields, one by one, have fewer."""
_KEYS = 500
"""Pairs in one query: PostgreSQL refuses thousands as too deep."""

_loading = threading.Lock()
"""The DAG of a `with` is one stack for the whole process: files loaded at once get each other's tasks."""

_FROM_NOW = TimeRestriction(earliest=None, latest=None, catchup=False)

BUNDLE = "kaos"
"""The name under which `KaosDagBundle` is configured."""


@dataclass(frozen=True)
class Run:
    """A DAG run: its state is Airflow's word; times are UTC."""

    dag_id: str
    run_id: str
    state: str
    started: datetime | None
    ended: datetime | None
    version: str | None


@dataclass(frozen=True)
class Timing:
    """When a DAG runs next by itself, None if no time is known."""

    paused: bool
    next: datetime | None


@dataclass(frozen=True)
class Task:
    """A task instance: its state is Airflow's word, None before it is scheduled; duration in seconds."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    duration: float | None


@contextmanager
def session() -> Iterator[Session]:
    """Yield a database session that is committed at the end."""
    with create_session() as opened:
        yield opened


def sync_dag(file_name: str, db: Session) -> None:
    """Write the DAG of a published file into the database at once, as the DAG processor would within a
    second.

    Only files that kaos generated itself come here: the file is imported into this process. The processor is
    asked to parse it too, so that it stays the one that decides in the end.
    """
    bundle = cast("KaosDagBundle", DagBundlesManager().get_bundle(BUNDLE))  # type: ignore[no-untyped-call]
    published = bundle.newest(file_name)
    dag = load_dag(published)
    for attempt in range(_SYNC_ATTEMPTS):
        try:
            update_dag_parsing_results_in_db(
                BUNDLE,
                published.version,
                [dag],
                {},
                0.0,
                set(),
                db,
                files_parsed=set(),
            )
            db.commit()
            break
        except SQLAlchemyError:
            # The DAG processor has found the file too, and both write the same rows, such as the asset's.
            db.rollback()
            log.warning(
                "The DAG processor writes %s at the same time; trying again", file_name, exc_info=True
            )
            if attempt == _SYNC_ATTEMPTS - 1:
                raise
            time.sleep(0.2)
    try:
        db.add(DagPriorityParsingRequest(bundle_name=BUNDLE, relative_fileloc=file_name))
        db.commit()
    except IntegrityError:  # it has been asked already and has not begun
        db.rollback()


def load_dag(published: PublishedFile) -> LazyDeserializedDAG:
    """Return the DAG of a file that kaos generated, in the form in which the database has it."""
    # Not by an import: that would keep bytecode, which is told from a newer one by second and size only.
    path = published.path
    namespace: dict[str, Any] = {"__name__": f"kaos_generated_{path.stem}", "__file__": str(path)}
    code = compile(published.source, path, "exec")
    with _loading:
        exec(code, namespace)  # noqa: S102 (kaos wrote it)
        dag = namespace["dag"]
        dag.fileloc, dag.relative_fileloc = str(path), path.name
        dag.validate()
        dag.check_cycle()
        return LazyDeserializedDAG.from_dag(dag)


def has_dag(dag_id: str, db: Session) -> bool:
    """Tell whether the database has this DAG, and it is not stale."""
    return db.scalar(select(DagModel.is_stale).where(DagModel.dag_id == dag_id)) is False


def start_run(
    dag_id: str,
    run_id: str,
    conf: dict[str, Any],
    user: str,
    caps: dict[str, int],
    tasks: Set[str],
    has_file: Callable[[str], bool],
    db: Session,
) -> bool:
    """Create a run of the newest version of a DAG, if that version is the one that is wanted.

    A DAG processor that read the file before it was published writes what it read after us: that version
    would be the run's for good. And what it read after it, while it still takes the bundle for the version
    before, it writes down under that version: workers would look for the tasks in the file as it was then.
    The lock on the DAG's row is the one it takes to write, so that what is looked at here is what the run
    gets.

    :param caps: how many instances of a task a run may have at a time, by task id
    :param tasks: ids of the tasks that it must have, no others
    :param has_file: tells of a version of the DAG bundle whether the DAG's file in it is the published one
    :returns: whether the run was created; if not, the newest version is another or there is none
    """
    version = db.scalar(select(DagModel.bundle_version).where(DagModel.dag_id == dag_id).with_for_update())
    dag = DBDagBag().get_latest_version_of_dag(dag_id, session=db)
    if (
        dag is None
        or version is None
        or not has_file(version)
        or tasks != set(dag.task_ids)
        or any(dag.get_task(task).max_active_tis_per_dagrun != cap for task, cap in caps.items())
    ):
        db.rollback()
        return False
    from airflow.utils.timezone import utcnow

    dag.create_dagrun(
        run_id=run_id,
        logical_date=None,
        data_interval=None,
        run_after=utcnow(),
        conf=conf,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.REST_API,
        triggering_user_name=user,
        state=DagRunState.QUEUED,
        session=db,
    )
    db.commit()
    return True


def runs(keys: Sequence[tuple[str, str]], db: Session) -> dict[tuple[str, str], Run]:
    """Return those runs (DAG id and run id) that Airflow still has."""
    columns = (
        DagRun.dag_id,
        DagRun.run_id,
        DagRun.state,
        DagRun.start_date,
        DagRun.end_date,
        DagRun.bundle_version,
    )
    found: dict[tuple[str, str], Run] = {}
    for start in range(0, len(keys), _KEYS):
        query = select(*columns).where(tuple_(DagRun.dag_id, DagRun.run_id).in_(keys[start : start + _KEYS]))
        for row in db.execute(query):
            found[row.dag_id, row.run_id] = Run(
                row.dag_id, row.run_id, str(row.state), row.start_date, row.end_date, row.bundle_version
            )
    return found


def tasks(keys: Sequence[tuple[str, str]], db: Session) -> list[Task]:
    """Return the task instances of these runs, in the order in which they were made."""
    if not keys:
        return []
    query = (
        select(
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.state,
            TaskInstance.start_date,
            TaskInstance.end_date,
        )
        .where(tuple_(TaskInstance.dag_id, TaskInstance.run_id).in_(keys))
        .order_by(TaskInstance.start_date, TaskInstance.task_id, TaskInstance.map_index)
    )
    return [
        Task(
            row.dag_id,
            row.run_id,
            row.task_id,
            row.map_index,
            str(row.state) if row.state else None,
            (row.end_date - row.start_date).total_seconds() if row.start_date and row.end_date else None,
        )
        for row in db.execute(query)
    ]


def log_events(
    dag_id: str, run_id: str, task_id: str, map_index: int, logger: str, db: Session
) -> list[str] | None:
    """Return the events that one logger wrote in the newest try of a task, or None before it has begun."""
    ti = db.scalar(
        select(TaskInstance)
        .where(
            TaskInstance.dag_id == dag_id,
            TaskInstance.run_id == run_id,
            TaskInstance.task_id == task_id,
            TaskInstance.map_index == map_index,
        )
        .options(joinedload(TaskInstance.dag_run), joinedload(TaskInstance.dag_model))
    )
    if ti is None or not ti.try_number or ti.start_date is None:
        return None
    stream, _ = TaskLogReader().read_log_chunks(ti, ti.try_number, {"end_of_log": False})
    return [message.event for message in stream if (message.model_extra or {}).get("logger") == logger]


def fail_run(dag_id: str, run_id: str, db: Session) -> None:
    """End a run now: running tasks are killed by their supervisors, the others skipped."""
    for attempt in range(_SYNC_ATTEMPTS):
        try:
            # Locked, it is passed over by the scheduler, which else goes on to queue its tasks.
            found = select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
            run = db.scalar(found.with_for_update(of=DagRun))
            if run is None:
                return
            dag = DBDagBag().get_dag_for_run(run, session=db)
            if dag is None:
                run.state = DagRunState.FAILED
            else:
                set_dag_run_state_to_failed(dag=dag, run_id=run_id, commit=True, session=db)
            db.commit()
            break
        except (OperationalError, StaleDataError):
            # Tasks that begin and end write the same rows, in another order.
            db.rollback()
            log.warning("Run %s is written by its tasks; trying again", run_id, exc_info=True)
            if attempt == _SYNC_ATTEMPTS - 1:
                raise
            time.sleep(0.1)


def active_runs(dag_id: str, db: Session) -> list[str]:
    """Return the ids of a DAG's runs that have not ended."""
    query = select(DagRun.run_id).where(
        DagRun.dag_id == dag_id, DagRun.state.in_([DagRunState.QUEUED, DagRunState.RUNNING])
    )
    return list(db.scalars(query))


def is_running(dag_id: str, run_id: str, db: Session) -> bool:
    """Tell whether Airflow has this run and it has not ended."""
    found = runs([(dag_id, run_id)], db).get((dag_id, run_id))
    return found is not None and found.state in (DagRunState.QUEUED, DagRunState.RUNNING)


def pinned_versions(db: Session) -> set[str]:
    """Return the versions of our DAG bundle that runs are pinned to."""
    query = (
        select(DagRun.bundle_version)
        .join(DagModel, DagModel.dag_id == DagRun.dag_id)
        .where(DagModel.bundle_name == BUNDLE, DagRun.bundle_version.is_not(None))
        .distinct()
    )
    return {str(version) for version in db.scalars(query)}


def timing(dag_id: str, db: Session) -> Timing | None:
    """Return whether a DAG is paused and when it runs next, or None if there is none."""
    query = select(DagModel.is_paused, DagModel.next_dagrun_create_after).where(DagModel.dag_id == dag_id)
    row = db.execute(query).first()
    return Timing(row.is_paused, row.next_dagrun_create_after) if row else None


def set_paused(dag_id: str, paused: bool, db: Session) -> None:
    """Let a DAG start no more runs by itself, or start them again."""
    db.execute(update(DagModel).where(DagModel.dag_id == dag_id).values(is_paused=paused))
    db.commit()


def emit(asset: str, extra: dict[str, Any], db: Session) -> None:
    """Give an asset an event; one that no DAG knows gets none."""
    known = db.scalar(select(AssetModel).where(AssetModel.uri == asset))
    if known is not None:
        asset_manager.register_asset_change(asset=known, extra=extra, session=db)
        db.commit()


def check_cron(cron: str, timezone: str) -> None:
    """Check that times can be told by a cron expression in a time zone.

    :raises InvalidScheduleError: they cannot
    """
    advice = "Give minute, hour, day, month and weekday, such as '0 3 * * *', or a word such as @daily."
    if len(cron) > _LONGEST_CRON:
        raise InvalidScheduleError(f"The cron expression has {len(cron)} characters.", advice)
    if len(cron.split()) != 5 and not re.fullmatch("@[a-z]+", cron):
        raise InvalidScheduleError(f"{cron!r} is no cron expression of five fields.", advice)
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidScheduleError(
            f"There is no time zone {timezone!r}.", "Give one such as UTC or Europe/Berlin."
        ) from None
    try:
        timetable = CronTriggerTimetable(cron, timezone=timezone)
        timetable.validate()
        timetable.next_dagrun_info(last_automated_data_interval=None, restriction=_FROM_NOW)
    except (AirflowTimetableInvalid, ValueError) as error:
        why = "such a day never comes" if "failed to find" in str(error) else str(error)
        raise InvalidScheduleError(f"{cron!r} cannot be used: {why.rstrip('.')}.", advice) from error


def waiting_runs(dag_id: str, task_id: str, db: Session) -> list[str]:
    """Return the ids of the runs whose task waits for a person, the oldest first."""
    query = select(TaskInstance.run_id).where(
        TaskInstance.dag_id == dag_id,
        TaskInstance.task_id == task_id,
        TaskInstance.state == TaskInstanceState.AWAITING_INPUT,
    )
    return list(db.scalars(query.order_by(TaskInstance.start_date)))


def answer(dag_id: str, run_id: str, task_id: str, choice: str, user: BaseUser, db: Session) -> None:
    """Answer for a task that waits for a person, as Airflow's own page does.

    A worker tells of the end of the process that asked up to a heartbeat after the task began to wait. A task
    that goes on by then is taken for a lost one: a program's answer comes no sooner than a person's.
    """
    asked = db.scalar(
        select(TaskInstance.updated_at).where(
            TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id
        )
    )
    if asked is not None:
        time.sleep(max(0.0, _SETTLED - (datetime.now(UTC) - asked).total_seconds()))
    payload = UpdateHITLDetailPayload(chosen_options=[choice], params_input={})
    update_hitl_detail(dag_id, run_id, task_id, payload, user, db)
    db.commit()


def is_known(dag_id: str, db: Session) -> bool:
    """Tell whether the database has a DAG."""
    return db.get(DagModel, dag_id) is not None


def remove_dag(dag_id: str, db: Session) -> None:
    """Remove a DAG and its history from the database; one that is not there is no error."""
    try:
        delete_dag(dag_id, session=db)
    except DagNotFound:
        log.info("The DAG %s was not there", dag_id)
    db.commit()
