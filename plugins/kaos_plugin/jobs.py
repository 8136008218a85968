"""Jobs as the store pins them and as Airflow runs them, put together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import Any

from sqlalchemy.orm import Session

from kaos import __version__
from kaos.catalog import WorkspaceCatalog
from kaos.errors import ConflictError, KaosError
from kaos.job import TRAIN, JobDocument, JobOutcome, JobState, Stage, new_job_id, trials
from kaos.lineage import ImageRecord
from kaos.model import JobSummary, TrialSummary, short_model, sort_key
from kaos.names import dag_id
from kaos.parameters import point_path
from kaos.reproductions import Reproductions
from kaos.schema.job import (
    DownloadProgress,
    JobContent,
    JobInfo,
    JobList,
    JobModel,
    JobRow,
    ModelRow,
    ReproducedRow,
    StageState,
)
from kaos.serving.promotions import Promotions
from kaos_dags.publish import head, holds, publish
from kaos_dags.render import file_name, render, task_ids
from kaos_operators.hook import runtimes
from kaos_operators.train import end_runs_here
from kaos_plugin import airflow_internals
from kaos_plugin.airflow_internals import Run, Task
from kaos_plugin.auth import catalog
from kaos_plugin.live import SHOWN, running, with_running

log = logging.getLogger(__name__)

PAGE = 10
"""Models on a page of `train info`."""

_GRACE = timedelta(minutes=1)
_publishing = Lock()
_END_SECONDS = 10
_START_ATTEMPTS = 5
_LOG = "its log is in Airflow's UI."
_STATES = {
    "queued": JobState.STARTING,
    "running": JobState.RUNNING,
    "success": JobState.SUCCESS,
    "failed": JobState.FAILURE,
}


def list_jobs(workspace: WorkspaceCatalog, limit: int, offset: int, db: Session) -> JobList:
    """Return jobs of a workspace, the newest first."""
    ids = workspace.job_ids()[::-1]
    documents = [workspace.job(job_id)[0] for job_id in ids[offset : offset + limit]]
    runs = airflow_internals.runs([_key(document) for document in documents], db)
    active = [key for key, run in runs.items() if not _STATES[run.state].ended]
    tasks = airflow_internals.tasks(active, db)
    return JobList(
        jobs=[
            _row(
                document,
                runs.get(_key(document)),
                tasks,
                workspace.outcome(document.job_id),
                workspace.progress,
            )
            for document in documents
        ],
        total=len(ids),
    )


def job_info(
    workspace: WorkspaceCatalog, job_id: str, metric: str | None, ascending: bool, page: int, db: Session
) -> JobInfo:
    """Return everything about a job, its models sorted by a metric, ten a page (from 0)."""
    document, _ = workspace.job(job_id)
    key = _key(document)
    run = airflow_internals.runs([key], db).get(key)
    tasks = airflow_internals.tasks([key], db)
    outcome = workspace.outcome(document.job_id)
    row = _row(document, run, tasks, outcome, workspace.progress)
    summary = job_summary(workspace, document, outcome)
    live = [] if row.state.ended else running(workspace, document.job_id, summary)
    summary = with_running(summary, live)
    found = summary.trials
    if metric is not None:
        found = sorted(found, key=lambda trial: sort_key(trial.metrics.get(metric), ascending=ascending))
    rows = [
        _model_row(document, workspace, trial, metric) for trial in found[page * PAGE : (page + 1) * PAGE]
    ]
    if not found:
        rows = [_empty_row(document, workspace, row.state)]
    trained = [task.duration for task in tasks if task.task_id == "train" and task.duration is not None]
    return JobInfo(
        job_id=document.job_id,
        workspace=document.workspace,
        author=document.author,
        schedule=document.schedule,
        promotion=promoted(workspace, document.job_id) if document.schedule is not None else "",
        state=row.state,
        stage=row.stage,
        reason=_reason(row.state, outcome, run, tasks),
        submitted_at=document.submitted_at,
        started=row.started,
        duration=row.duration,
        process_time=round(sum(trained), 3) if trained else None,
        manifest=document.manifest,
        manifest_shown=workspace.shown_manifest(document.manifest) if document.manifest else None,
        data=document.data,
        data_shown=workspace.shown(document.data) if document.data else None,
        progress=row.progress,
        resources=document.resources,
        runtime=document.runtime,
        limits=_limits(workspace, document),
        image=_image(workspace, document, outcome),
        dag_id=document.dag_id,
        dag_version=run.version if run else None,
        url=f"/dags/{document.dag_id}/runs/{document.run_id}",
        stages=[
            StageState(task_id=_task_name(task), state=task.state, seconds=task.duration) for task in tasks
        ],
        metrics=summary.metrics,
        models=rows,
        pages=max(1, -(-len(found) // PAGE)),
        page=page,
        live=live[:SHOWN],
        reproduces=document.reproduces.model_id if document.reproduces else None,
        reproduction=Reproductions(workspace).of_job(document),
    )


def job_content(workspace: WorkspaceCatalog, job_id: str) -> JobContent:
    """Return the trees of a job, and the names of their directories."""
    document, _ = workspace.job(job_id)
    outcome = workspace.outcome(document.job_id)
    models = workspace.job_models(document.job_id, outcome.models) if outcome else []
    digests = [model.digest for model in models]
    ids = {model.digest: model.model_id for model in models}
    return JobContent(
        source=document.source,
        source_directory=workspace.shown(document.source)[1:],
        data=document.data,
        data_directory=workspace.shown(document.data)[1:] if document.data else None,
        models=[
            JobModel(
                directory=short_model(digest, digests),
                digest=digest,
                model_id=ids[digest],
                removed=_removed(workspace, ids[digest]),
            )
            for digest in dict.fromkeys(digests)
        ],
    )


def start_job(workspace: WorkspaceCatalog, document: JobDocument, digest: str, db: Session) -> None:
    """Start the Airflow run of a recorded job; one that is there already is left alone."""
    if airflow_internals.runs([_key(document)], db):
        return
    conf = {"job": digest, "workspace": document.workspace, "author": document.author}
    # A run is pinned to the DAG's newest version: nobody may publish another shape before it is created.
    with _publishing:
        _shape(workspace, document, db)
        caps = {"train": document.parallelism}
        create_run(workspace, document.dag_id, document.run_id, conf, document.author, caps, db)


def create_run(
    workspace: WorkspaceCatalog,
    dag: str,
    run_id: str,
    conf: dict[str, Any],
    user: str,
    caps: dict[str, int],
    db: Session,
) -> None:
    """Create a run of a workspace's DAG, published again if Airflow does not have it as it was published.

    :param caps: how many instances of a task the DAG must allow at a time, by task id
    """
    store, name = workspace.store, file_name(dag)
    for _ in range(_START_ATTEMPTS):
        file = head(store).file(name)
        if file is not None:
            tasks = task_ids(store.objects.get(file.digest).decode())
            has_file = partial(holds, store, file=file)
            if airflow_internals.start_run(dag, run_id, conf, user, caps, tasks, has_file, db):
                return
        publish_dags(workspace, db)
    raise KaosError(
        f"Airflow has another version of the DAG {dag} than the one just published.",
        "Is the DAG processor running, and does it use this server's store? Try again.",
    )


def _shape(workspace: WorkspaceCatalog, document: JobDocument, db: Session) -> None:
    """Let the DAG have the tasks, and as many trials at a time, as the job asks for; generated again only if
    it differs.
    """
    wanted: dict[str, Any] = {"parallelism": document.parallelism, "download": document.data is None}
    for definition in workspace.definitions():
        shaped = definition.model_copy(update=wanted)
        if definition.name == document.definition and definition != shaped:
            workspace.set_definition(shaped)
            publish_dags(workspace, db)
            return
    if not airflow_internals.has_dag(document.dag_id, db):
        publish_dags(workspace, db)


def publish_dags(workspace: WorkspaceCatalog, db: Session) -> list[str]:
    """Generate and publish the DAGs of a workspace; return their ids once Airflow's database has them."""
    definitions = workspace.definitions()
    publish(workspace.store, {file_name(definition.dag_id): render(definition) for definition in definitions})
    for definition in definitions:
        airflow_internals.sync_dag(file_name(definition.dag_id), db)
    return [definition.dag_id for definition in definitions]


def runtime_of_jobs(workspace: WorkspaceCatalog) -> str:
    """Return the runtime of a workspace's jobs, unless they ask for another."""
    own = [definition.runtime for definition in workspace.definitions() if definition.name == TRAIN]
    return next((name for name in own if name is not None), runtimes()[0])


def kill_job(workspace: WorkspaceCatalog, document: JobDocument, user: str, db: Session) -> JobOutcome:
    """End a running job: first its record, so that nothing else becomes its outcome, then its run.

    :raises ConflictError: it has ended already
    """
    key = _key(document)
    run = airflow_internals.runs([key], db).get(key)
    state = _state(document, run, workspace.outcome(document.job_id))
    # One that was killed may still run: the server was ended between its record and its run.
    half = state is JobState.KILLED and run is not None and not _STATES[run.state].ended
    if state.ended and not half:
        raise ConflictError(f"Job {document.job_id} has ended already, as {state}.", "See kaos train list.")
    outcome = workspace.set_outcome(
        JobOutcome(
            job_id=document.job_id,
            state=JobState.KILLED,
            reason=f"Killed by {user}.",
            ended_at=datetime.now(UTC),
            by=user,
        )
    )
    Reproductions(workspace).conclude(document, None, outcome.reason)
    airflow_internals.fail_run(*key, db)
    deadline = time.monotonic() + _END_SECONDS
    while end_runs_here(document.job_id) and time.monotonic() < deadline:
        time.sleep(0.1)
    workspace.drop_live(document.job_id)
    return outcome


def job_state(workspace: WorkspaceCatalog, document: JobDocument, db: Session) -> tuple[JobState, str]:
    """Return how a job is, and why it failed."""
    key, outcome = _key(document), workspace.outcome(document.job_id)
    run = airflow_internals.runs([key], db).get(key)
    state = _state(document, run, outcome)
    return state, _reason(state, outcome, run, airflow_internals.tasks([key], db))


def promoted(workspace: WorkspaceCatalog, job_id: str) -> str:
    """Return what became of the best model of a schedule's job, empty as long as nothing was decided."""
    promotions = Promotions(workspace)
    decision = promotions.decision(job_id)
    if decision is None:
        return ""
    model, endpoint = decision.proposal.model.model_id, decision.proposal.endpoint
    how = f"by {decision.by}: {decision.reason}"
    if decision.outcome != "promoted":
        return f"{model} was {decision.outcome} of {endpoint} {how}"
    revision = promotions.revision(job_id)
    number = f"revision {revision.revision}" if revision is not None else "the next revision"
    outcome = promotions.endpoints.outcome(endpoint, revision.revision) if revision is not None else None
    state = "is on its way" if outcome is None else "is routed" if outcome.succeeded else "failed"
    why = f" ({_first_line(outcome.reason)})" if outcome is not None and outcome.reason else ""
    return f"{model} was promoted to {number} of {endpoint}, which {state}{why}, {how}"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def rerun_job(
    workspace: WorkspaceCatalog, document: JobDocument, user: str, *, failed: bool, db: Session
) -> JobDocument:
    """Start a job on exactly the inputs of another, or on those of its trials that failed.

    :raises ConflictError: no trial of it failed
    """
    only = document.only
    if failed:
        summary = job_summary(workspace, document, workspace.outcome(document.job_id))
        ended = {trial.index for trial in summary.trials if not trial.reason}
        planned = trials(workspace.space(document.params), document.only)
        only = [trial.index for trial in planned if trial.index not in ended]
        if not only:
            raise ConflictError(
                f"No trial of job {document.job_id} failed.", "Rerun all: leave --failed out."
            )
    job_id = new_job_id()
    again = document.model_copy(
        update={
            "job_id": job_id,
            "run_id": job_id,
            "definition": TRAIN,  # a schedule's DAG would take the current inputs
            "dag_id": dag_id(document.workspace, TRAIN),
            "schedule": None,
            "only": only,
            "rerun_of": document.job_id,
            "author": user,
            "submitted_at": datetime.now(UTC),
            "kaos_version": __version__,
        }
    )
    start_job(workspace, again, workspace.add_job(again), db)
    return again


def start_forgotten_jobs() -> None:
    """Start the jobs that were recorded when the server stopped before it could start them.

    A record that cannot be read is logged and passed over: it must not keep the API server from starting.
    """
    with airflow_internals.session() as db:
        for found in catalog().workspaces():
            workspace = catalog().workspace(found.name)
            for job_id in workspace.job_ids()[-PAGE:]:
                try:
                    start_forgotten_job(workspace, job_id, db)
                except KaosError as error:
                    log.warning("Job %s could not be started: %s", job_id, error)


def start_forgotten_job(workspace: WorkspaceCatalog, job_id: str, db: Session) -> bool:
    """Start a job that has not ended and that Airflow does not know; tell whether it was such a one."""
    if workspace.workspace.killed_at is not None or workspace.outcome(job_id) is not None:
        return False
    document, digest = workspace.job(job_id)
    # Else a DAG of somebody's own runs it.
    forgotten = document.run_id == document.job_id and not airflow_internals.runs([_key(document)], db)
    if forgotten:
        start_job(workspace, document, digest, db)
    return forgotten


def _key(document: JobDocument) -> tuple[str, str]:
    return document.dag_id, document.run_id


def _row(
    document: JobDocument,
    run: Run | None,
    tasks: Sequence[Task],
    outcome: JobOutcome | None,
    progress: Callable[[str], DownloadProgress | None],
) -> JobRow:
    started = (run.started if run else None) or (outcome.started_at if outcome else None)
    ended = (run.ended if run else None) or (outcome.ended_at if outcome else None)
    state = _state(document, run, outcome)
    until = ended if state.ended else datetime.now(UTC)
    return JobRow(
        job_id=document.job_id,
        stage=Stage.TRAINING if state.ended else _stage(document, tasks),
        state=state,
        hyperopt=document.params is not None,
        started=started,
        duration=round((until - started).total_seconds(), 3) if started and until else None,
        progress=None if state.ended or document.data is not None else progress(document.job_id),
    )


def _state(document: JobDocument, run: Run | None, outcome: JobOutcome | None) -> JobState:
    # A schedule's run goes on when its job has ended: the model may be compared, and deployed.
    if outcome is not None and (outcome.state is JobState.KILLED or document.schedule is not None):
        return outcome.state
    if run is not None:
        return _STATES[run.state]
    if outcome is not None:
        return outcome.state
    young = datetime.now(UTC) - document.submitted_at < _GRACE
    return JobState.STARTING if young else JobState.FAILURE


def _stage(document: JobDocument, tasks: Sequence[Task]) -> Stage:
    states = {task.task_id: task.state for task in tasks if task.run_id == document.run_id}
    if states.get("build", "success") != "success":
        return Stage.BUILDING
    if any(states.get(task, "success") != "success" for task in ("ingest", "download")):
        return Stage.INGESTING
    return Stage.TRAINING


def _reason(state: JobState, outcome: JobOutcome | None, run: Run | None, tasks: Sequence[Task]) -> str:
    failed = ", ".join(_task_name(task) for task in tasks if task.state == "failed") or "the run"
    if outcome is not None:
        # The run of a schedule goes on after its job, and what fails then is in no record of the job.
        late = state is JobState.SUCCESS and run is not None and _STATES[run.state] is JobState.FAILURE
        return f"There is a model, but then Airflow failed {failed}; {_LOG}" if late else outcome.reason
    if state is not JobState.FAILURE:
        return ""
    if run is None:
        return "The job never started: the server stopped first, or its history was removed. Deploy again."
    return f"Airflow failed {failed}; {_LOG}"


def _task_name(task: Task) -> str:
    return task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"


def job_summary(workspace: WorkspaceCatalog, document: JobDocument, outcome: JobOutcome | None) -> JobSummary:
    """Return the job's trials: from one object when it has ended, trial by trial while it runs."""
    if outcome is not None and outcome.summary is not None:
        return JobSummary.parse(workspace.store.objects.get(outcome.summary))
    return JobSummary.of(TrialSummary.of(record) for record in workspace.trials(document.job_id))


def shown_summary(workspace: WorkspaceCatalog, document: JobDocument, db: Session) -> JobSummary:
    """Return the job's trials, with the newest metrics of those that run."""
    key, outcome = _key(document), workspace.outcome(document.job_id)
    summary = job_summary(workspace, document, outcome)
    if _state(document, airflow_internals.runs([key], db).get(key), outcome).ended:
        return summary
    return with_running(summary, running(workspace, document.job_id, summary))


def _limits(workspace: WorkspaceCatalog, document: JobDocument) -> str:
    record = workspace.trial(document.job_id, 0)
    return record.limits if record else ""


def shown_data(workspace: WorkspaceCatalog, document: JobDocument) -> str:
    """Return a job's data as a person sees it: the bundle, or the manifest that it will come from."""
    if document.data is not None:
        return workspace.shown(document.data)
    return workspace.shown_manifest(document.manifest) if document.manifest else ""


def _image(
    workspace: WorkspaceCatalog, document: JobDocument, outcome: JobOutcome | None
) -> ImageRecord | None:
    """Return the image that a job's models were made in; of one that has none yet, that of its source."""
    if document.runtime == "process":
        return None
    models = workspace.job_models(document.job_id, outcome.models[:1]) if outcome else []
    return models[0].build.image if models else workspace.container_image(document.source.digest)


def _model_row(
    document: JobDocument, workspace: WorkspaceCatalog, trial: TrialSummary, metric: str | None
) -> ModelRow:
    metrics: dict[str, Any] = dict(trial.metrics)
    if trial.model_id is not None:  # of the few on a page, with the metrics that are no numbers too
        record = workspace.job_model(document.job_id, trial.model_id, trial.index)
        metrics = record.metrics
    state = JobState.FAILURE if trial.reason else JobState.RUNNING if trial.running else JobState.SUCCESS
    return _empty_row(document, workspace, state).model_copy(
        update={
            "model_id": trial.model_id,
            "digest": trial.digest,
            "reason": trial.reason,
            "hyperparams": trial.params,
            "params_shown": point_path(document.params.digest, trial.params) if document.params else None,
            "score": trial.metrics.get(metric) if metric else None,
            "metrics": metrics,
            "reused_from": trial.reused_from,
            "removed": _removed(workspace, trial.model_id),
            "step": trial.step,
            "reproductions": [
                ReproducedRow(job_id=found.job_id, verdict=found.verdict, ended_at=found.ended_at)
                for found in Reproductions(workspace).of_model(trial.model_id or "none")
            ],
        }
    )


def _removed(workspace: WorkspaceCatalog, model_id: str | None) -> str:
    note = workspace.removed_model(model_id) if model_id is not None else None
    return note.shown if note is not None else ""


def _empty_row(document: JobDocument, workspace: WorkspaceCatalog, state: JobState) -> ModelRow:
    return ModelRow(
        source=document.source,
        source_shown=workspace.shown(document.source),
        data=document.data,
        data_shown=shown_data(workspace, document),
        model_id=None,
        digest=None,
        state=state,
    )
