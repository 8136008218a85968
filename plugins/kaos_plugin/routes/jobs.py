"""Jobs: listed, shown, followed, given back."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Query, status

from kaos.bundle import Tree
from kaos.catalog import WorkspaceCatalog
from kaos.errors import InvalidInputError, UnknownNameError
from kaos.job import JobDocument, JobOutcome
from kaos.model import JobSummary
from kaos.removals import Removals
from kaos.schema.job import JobContent, JobCurves, JobInfo, JobList, JobSource, LogChunk
from kaos_dags.publish import head
from kaos_plugin import airflow_internals, curves, jobs
from kaos_plugin.auth import Deployable, Readable, User

router = APIRouter(prefix="/workspaces/{workspace}/jobs", tags=["jobs"])

Position = Annotated[int, Query(ge=0, description="lines that the client has")]


@router.get("")
def list_jobs(
    workspace: Readable,
    session: SessionDep,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 30,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> JobList:
    """Return jobs, the newest first."""
    return jobs.list_jobs(workspace, limit, offset, session)


@router.get("/{job_id}")
def get_job(
    workspace: Readable,
    job_id: str,
    session: SessionDep,
    metric: Annotated[str | None, Query(description="sort the models by this metric")] = None,
    ascending: bool = False,
    page: Annotated[int, Query(ge=0)] = 0,
) -> JobInfo:
    """Return everything about a job."""
    return jobs.job_info(workspace, job_id, metric, ascending, page, session)


@router.get("/{job_id}/summary")
def get_summary(workspace: Readable, job_id: str, session: SessionDep) -> JobSummary:
    """Return all trials of a job that have ended or run, with their numeric metrics."""
    document, _ = workspace.job(job_id)
    return jobs.shown_summary(workspace, document, session)


@router.get("/{job_id}/curves")
def get_curves(
    workspace: Readable,
    job_id: str,
    metric: Annotated[list[str] | None, Query(description="these metrics first, others up to six")] = None,
) -> JobCurves:
    """Return the learning curves of a job's models, with few points each."""
    document, _ = workspace.job(job_id)
    summary = jobs.job_summary(workspace, document, workspace.outcome(document.job_id))
    return curves.job_curves(workspace, document, summary, metric or [])


@router.post("/{job_id}/kill")
def kill_job(workspace: Deployable, job_id: str, user: User, session: SessionDep) -> JobOutcome:
    """End a running job with all that it started, and keep it as killed."""
    document, _ = workspace.job(job_id)
    return jobs.kill_job(workspace, document, user.get_name(), session)


@router.post("/{job_id}/rerun", status_code=status.HTTP_201_CREATED)
def rerun_job(
    workspace: Deployable,
    job_id: str,
    user: User,
    session: SessionDep,
    failed: Annotated[bool, Query(description="only the trials that failed")] = False,
) -> JobDocument:
    """Start a job on exactly the inputs of another."""
    document, _ = workspace.job(job_id)
    return jobs.rerun_job(workspace, document, user.get_name(), failed=failed, db=session)


@router.get("/{job_id}/content")
def get_content(workspace: Readable, job_id: str) -> JobContent:
    """Return the trees that `train get` writes."""
    return jobs.job_content(workspace, job_id)


@router.get("/{job_id}/logs")
def get_logs(
    workspace: Readable, job_id: str, session: SessionDep, position: Position = 0, trial: Position = 0
) -> LogChunk:
    """Return lines that the user's script printed."""
    document, _ = workspace.job(job_id)
    record = workspace.trial(document.job_id, trial)
    if record is not None:
        return _stored(Removals(workspace).content(document.job_id, record.log), position)
    chunk = _live(workspace, document, "train", trial, "kaos.script", position, session)
    if chunk.ended:
        return chunk
    progress = None if document.data is not None else workspace.progress(document.job_id)
    return chunk.model_copy(
        update={
            "progress": progress.shown if progress else None,
            "live": workspace.live_trial(document.job_id, trial),
        }
    )


@router.get("/{job_id}/build-logs")
def get_build_logs(workspace: Readable, job_id: str, session: SessionDep, position: Position = 0) -> LogChunk:
    """Return lines of the environment's build."""
    document, _ = workspace.job(job_id)
    log = workspace.build_log_digest(document.job_id)
    if log is not None:
        return _stored(Removals(workspace).content(document.job_id, log), position)
    return _live(workspace, document, "build", -1, "kaos.build", position, session)


@router.get("/{job_id}/dag")
def get_dag(workspace: Readable, job_id: str, session: SessionDep) -> JobSource:
    """Return the generated source that a job ran on."""
    document, _ = workspace.job(job_id)
    key = (document.dag_id, document.run_id)
    run = airflow_internals.runs([key], session).get(key)
    version = run.version if run and run.version else head(workspace.store).digest
    file = Tree.decode(workspace.store.objects.get(version)).file(f"{document.dag_id}.py")
    if file is None:
        raise UnknownNameError(
            "generated source of job", job_id, next_step="It ran in a DAG of your own, whose source is there."
        )
    source = workspace.store.objects.get(file.digest).decode()
    return JobSource(dag_id=document.dag_id, version=version, source=source)


def _stored(log: bytes, position: int) -> LogChunk:
    lines = log.decode(errors="replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return LogChunk(lines=lines[position:], position=str(len(lines)), ended=True)


def _live(
    workspace: WorkspaceCatalog,
    document: JobDocument,
    task_id: str,
    map_index: int,
    logger: str,
    position: int,
    session: SessionDep,
) -> LogChunk:
    key = (document.dag_id, document.run_id)
    lines = airflow_internals.log_events(*key, task_id, map_index, logger, session) or []
    run = airflow_internals.runs([key], session).get(key)
    ended = workspace.outcome(document.job_id) is not None or (
        run is not None and run.state in ("success", "failed")
    )
    if position > len(lines) and ended:
        raise InvalidInputError(f"This log has {len(lines)} lines, fewer than {position}.")
    return LogChunk(lines=lines[position:], position=str(max(position, len(lines))), ended=ended)
