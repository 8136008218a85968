"""Endpoints as the store pins them, as their services run, and as Airflow deploys them, put together."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from kaos.catalog import WorkspaceCatalog
from kaos.digest import digest_bytes
from kaos.endpoint import (
    SERVE,
    Endpoint,
    EndpointState,
    Limits,
    ServeDocument,
)
from kaos.errors import ConflictError, InvalidInputError, KaosError, UnknownNameError
from kaos.job import BundlePin, Definition, new_job_id
from kaos.models import Models
from kaos.names import check_endpoint
from kaos.resources import Resources
from kaos.runtime.base import RunState
from kaos.runtime.capacity import machine_capacity
from kaos.schema.endpoint import (
    EndpointContent,
    EndpointDeploy,
    EndpointDeployed,
    EndpointInfo,
    EndpointRow,
    EndpointTurned,
    RevisionInfo,
    TrafficShown,
)
from kaos.schema.job import LogChunk, StageState
from kaos.serving import prepare, probe
from kaos.serving.keeper import HOPELESS, life
from kaos.serving.records import Endpoints, Names
from kaos.serving.revision import lay_beside, revision_document
from kaos.serving.service import last_lines
from kaos.serving.traffic import Count, read
from kaos_operators.environment import check_allowed
from kaos_operators.hook import configured_store, gateway, gateway_url, work_directory
from kaos_plugin import airflow_internals
from kaos_plugin.jobs import create_run, publish_dags, runtime_of_jobs

log = logging.getLogger(__name__)

_PING_SECONDS = 1.0
_SHOWN_REVISIONS = 10
_SHOWN_LINES = 15
_FOLLOWED = 8
"""Revisions whose place in their logs a client that follows an endpoint is told; so many at most."""
_REFUSED = "-"


def deploy(workspace: WorkspaceCatalog, body: EndpointDeploy, user: str, db: Session) -> EndpointDeployed:
    """Record a new revision of an endpoint and start its deploy; nothing is recorded of what cannot be."""
    gateway()
    records = Endpoints(workspace)
    before = _before(records, body)
    runtime = body.runtime or (before.runtime if before else runtime_of_jobs(workspace))
    prepare.services(runtime)
    check_allowed(runtime)
    resources = _resources(body, before)
    resources.check(machine_capacity())
    code = _code(workspace, body, before)
    kept_model = before.model if before is not None else None
    model = Models(workspace).pin(body.model_id) if body.model_id is not None else kept_model
    source = lay_beside(workspace, code, model, user)
    given = {**(before.limits.model_dump() if before else {}), **body.limits}
    limits = Limits.parse(json.dumps(given))
    job_id = new_job_id()
    endpoint = records.reserve(body.name, job_id, user, update=body.update)
    token = _change_token(records, endpoint, body.auth, user)
    document = revision_document(
        endpoint,
        job_id,
        source=source,
        code=code,
        model=model,
        resources=resources,
        workers=body.workers or (before.workers if before else None),
        runtime=runtime,
        no_cache=body.no_cache,
        canary=body.canary,
        limits=limits,
        author=user,
    )
    start(records, document, records.add_revision(document), db)
    return EndpointDeployed(
        name=endpoint.name,
        revision=document.revision,
        job_id=job_id,
        url=url_of(endpoint.name),
        shown=workspace.shown(source),
        model_id=model.model_id if model is not None else None,
        token=token,
    )


def _before(records: Endpoints, body: EndpointDeploy) -> ServeDocument | None:
    """Return the revision whose code, model and settings an update keeps."""
    if not body.update:
        if body.source is None:
            raise InvalidInputError("There is no code to serve.", "Give its directory: -s SOURCE")
        if body.name is not None:
            check_endpoint(body.name)
        return None
    found = records.alive(body.name or "")
    numbers = records.revision_numbers(found.name)
    number = found.current or (numbers[-1] if numbers else None)
    if number is None:
        raise UnknownNameError("revision of", found.name, next_step="Deploy it: kaos serve deploy --name")
    return records.revision(found.name, number)[0]


def _resources(body: EndpointDeploy, before: ServeDocument | None) -> Resources:
    """Return what a revision may use: what is not given stays as it was."""
    kept = before.resources.model_dump() if before is not None else {}
    given = body.resources.model_dump(exclude_none=True) if body.resources is not None else {}
    return Resources.model_validate({**kept, **given})


def _code(workspace: WorkspaceCatalog, body: EndpointDeploy, before: ServeDocument | None) -> BundlePin:
    if body.source is None:
        if before is None:
            raise InvalidInputError("There is no code to serve.", "Give its directory: -s SOURCE")
        return before.code
    return workspace.given_bundle("source", body.source)


def _change_token(records: Endpoints, endpoint: Endpoint, auth: bool | None, user: str) -> str | None:
    """Give the endpoint a new token or take it away, at once, and return a new one: it is kept nowhere."""
    if auth is None or (not auth and endpoint.token is None):
        return None
    token = secrets.token_urlsafe(32) if auth else None
    digest = digest_bytes(token.encode()) if token is not None else None
    records.change(endpoint.name, lambda found: found.model_copy(update={"token": digest}))
    records.note(endpoint.name, "token" if auth else "no token", None, user)
    gateway().sync(records.store, work_directory())
    return token


def start(records: Endpoints, document: ServeDocument, digest: str, db: Session) -> None:
    """Start the Airflow run of a recorded revision; one that is there already is left alone."""
    key = (document.dag_id, document.run_id)
    if airflow_internals.runs([key], db):
        return
    workspace = records.workspace
    if SERVE not in [definition.name for definition in workspace.definitions()]:
        workspace.set_definition(Definition(workspace=document.workspace, name=SERVE, kind="serve"))
        publish_dags(workspace, db)
    conf = {"serve": digest, "workspace": document.workspace, "endpoint": document.endpoint}
    create_run(workspace, *key, {**conf, "author": document.author}, document.author, {}, db)


def start_forgotten() -> None:
    """Start the deploys that were recorded when the server stopped before it could start them."""
    with airflow_internals.session() as db:
        for records, found in Names(configured_store()).endpoints():
            for number in records.revision_numbers(found.name)[-_SHOWN_REVISIONS:]:
                try:
                    document, digest = records.revision(found.name, number)
                    if records.outcome(found.name, number) is None:
                        start(records, document, digest, db)
                except KaosError as error:
                    log.warning("Revision %d of %s could not be started: %s", number, found.name, error)


def list_endpoints(workspace: WorkspaceCatalog, db: Session) -> list[EndpointRow]:
    """Return the endpoints of a workspace that were not killed, the newest first."""
    records = Endpoints(workspace)
    found = [endpoint for name in records.names() if (endpoint := records.get(name)).killed_at is None]

    def row(endpoint: Endpoint) -> EndpointRow:
        state, reason, user = _endpoint_state(records, endpoint, runs)
        return EndpointRow(
            created_at=endpoint.created_at,
            name=endpoint.name,
            state=state,
            url=url_of(endpoint.name),
            user=user,
            reason=reason,
        )

    runs = _run_states(records, found, db)
    with ThreadPoolExecutor(max_workers=16) as pool:
        rows = list(pool.map(row, found))
    return sorted(rows, key=lambda each: each.created_at, reverse=True)


def endpoint_info(workspace: WorkspaceCatalog, name: str, db: Session) -> EndpointInfo:
    """Return everything about an endpoint, with its last revisions."""
    records = Endpoints(workspace)
    endpoint = records.get(name)
    runs = _run_states(records, [endpoint], db)
    state, reason, _ = _endpoint_state(records, endpoint, runs)
    numbers = _shown_numbers(records, endpoint)
    counts = _counts(name)
    return EndpointInfo(
        name=name,
        workspace=endpoint.workspace,
        state=state,
        reason=reason,
        url=url_of(name),
        created_at=endpoint.created_at,
        created_by=endpoint.created_by,
        auth=endpoint.token is not None,
        current=endpoint.current,
        previous=endpoint.previous,
        canary=endpoint.canary,
        revisions=[_revision(records, endpoint, number, runs, counts) for number in reversed(numbers)],
        traffic=_shown(list(counts.values()), counts.get(_REFUSED)),
        changes=records.changes(name)[-20:],
    )


def revision_info(workspace: WorkspaceCatalog, name: str, number: int, db: Session) -> RevisionInfo:
    """Return everything about a revision."""
    records = Endpoints(workspace)
    endpoint = records.get(name)
    return _revision(records, endpoint, number, _run_states(records, [endpoint], db), _counts(name))


def stages(workspace: WorkspaceCatalog, name: str, number: int, db: Session) -> list[StageState]:
    """Return how far the deploy of a revision is."""
    document, _ = Endpoints(workspace).revision(name, number)
    tasks = airflow_internals.tasks([(document.dag_id, document.run_id)], db)
    return [StageState(task_id=task.task_id, state=task.state, seconds=task.duration) for task in tasks]


def content(workspace: WorkspaceCatalog, name: str, number: int | None) -> EndpointContent:
    """Return the tree that `serve get` writes: the code with the model's files beside it."""
    records = Endpoints(workspace)
    document, _ = records.revision(name, _chosen(records, records.get(name), number))
    return EndpointContent(name=name, directory=workspace.shown(document.source)[1:], source=document.source)


def roll_back(workspace: WorkspaceCatalog, name: str, user: str) -> EndpointTurned:
    """Return to the previous revision at once if it still runs; else let it be started, and then return."""
    records = Endpoints(workspace)
    target = records.alive(name).behind
    document, _ = records.revision(name, target)
    running, directory = (
        prepare.services(document.runtime),
        prepare.directory_of(work_directory(), name, target),
    )
    port = running.port(directory)
    ready = port is not None and running.listens(directory) and probe.ping(port, _PING_SECONDS)

    def turn(found: Endpoint) -> Endpoint:
        if found.behind != target:
            raise ConflictError(f"Somebody else changed {name} at the same time.", "Look: kaos serve info")
        if ready or found.canary is not None:
            return found.roll_back(datetime.now(UTC))
        return found.model_copy(update={"wanted": target})

    turned = records.change(name, turn)
    gateway().sync(records.store, work_directory())
    records.note(name, "rollback", target, user)
    return EndpointTurned(name=name, revision=target, waiting=turned.wanted is not None)


def promote(workspace: WorkspaceCatalog, name: str, user: str) -> EndpointTurned:
    """Give the canary all of the traffic."""
    records = Endpoints(workspace)
    records.alive(name)
    promoted = records.change(name, lambda found: found.promote(datetime.now(UTC)))
    gateway().sync(records.store, work_directory())
    records.note(name, "promote", promoted.current, user)
    return EndpointTurned(name=name, revision=promoted.current or 0, waiting=False)


def kill(records: Endpoints, name: str, user: str, db: Session) -> None:
    """End an endpoint: first its record, then its route and its deploys; the keeper ends its services."""
    records.alive(name)
    records.kill(name, user)
    gateway().sync(records.store, work_directory())
    for number in records.revision_numbers(name):
        if records.outcome(name, number) is None:
            document, _ = records.revision(name, number)
            records.end(document, reason=f"The endpoint was killed by {user}.")
            airflow_internals.fail_run(document.dag_id, document.run_id, db)


def logs(workspace: WorkspaceCatalog, name: str, number: int | None, position: str) -> LogChunk:
    """Return lines that a revision printed, those of its earlier lives first.

    :param position: how far the client is in the logs of each revision that it has seen, for the traffic may
        be given to another one meanwhile: ``1@0:512,2@0:64``; of a log in the store the lines that it has
    """
    records = Endpoints(workspace)
    endpoint = records.get(name)
    document, _ = records.revision(name, _chosen(records, endpoint, number))
    outcome = records.outcome(name, document.revision)
    key, places = str(document.revision), _places(position)
    if outcome is not None and outcome.log is not None and key not in places:
        return stored(records.store.objects.get(outcome.log), int(position) if position.isdigit() else 0)
    running = prepare.services(document.runtime)
    directory = prepare.directory_of(work_directory(), name, document.revision)
    status = running.observe(directory)
    chunk, place = running.logs(directory, places.pop(key, ""))
    over = status is None or (outcome is not None and not outcome.succeeded and not chunk)
    ended = endpoint.killed_at is not None or (outcome is not None and over)
    after = ",".join(f"{each}@{at}" for each, at in [*places.items(), (key, place)][-_FOLLOWED:])
    lines = chunk.decode(errors="replace").split("\n")
    if not lines[-1]:  # else a life that ended in the middle of a line, or a line without end
        lines.pop()
    return LogChunk(lines=lines, position=after, ended=ended)


def build_logs(
    workspace: WorkspaceCatalog, name: str, number: int | None, position: int, db: Session
) -> LogChunk:
    """Return lines of the build of a revision's environment."""
    records = Endpoints(workspace)
    document, _ = records.revision(name, _chosen(records, records.get(name), number))
    found = workspace.build_log(document.job_id)
    if found is not None:
        return stored(found, position)
    key = (document.dag_id, document.run_id)
    lines = airflow_internals.log_events(*key, "build", -1, "kaos.build", db) or []
    ended = records.outcome(name, document.revision) is not None
    return LogChunk(lines=lines[position:], position=str(max(position, len(lines))), ended=ended)


def url_of(name: str) -> str:
    """Return where an endpoint takes its requests."""
    return f"{gateway_url()}/{name}/invocations"


def stored(log_text: bytes, position: int) -> LogChunk:
    """Return the lines of a finished log from a position on."""
    lines = log_text.decode(errors="replace").splitlines()
    return LogChunk(lines=lines[position:], position=str(len(lines)), ended=True)


def kill_all(workspace: WorkspaceCatalog, user: str, db: Session) -> list[str]:
    """End all endpoints of a workspace, and return their names."""
    records = Endpoints(workspace)
    found = [name for name in records.names() if records.get(name).killed_at is None]
    for name in found:
        kill(records, name, user, db)
    return found


def name_of(workspace: WorkspaceCatalog, job_id: str) -> str:
    """Return the endpoint that a deploy is of."""
    records = Endpoints(workspace)
    for name in records.names():
        for number in records.revision_numbers(name):
            if records.revision(name, number)[0].job_id == job_id:
                return name
    raise UnknownNameError("deploy", job_id, next_step="See kaos serve list.")


Runs = dict[tuple[str, int], str]
"""Airflow's word for the run of a revision that has no outcome yet, by endpoint and number."""


def _run_states(records: Endpoints, endpoints: Sequence[Endpoint], db: Session) -> Runs:
    pending = [
        records.revision(endpoint.name, number)[0]
        for endpoint in endpoints
        for number in _shown_numbers(records, endpoint)
        if records.outcome(endpoint.name, number) is None
    ]
    runs = airflow_internals.runs([(one.dag_id, one.run_id) for one in pending], db)
    return {
        (one.endpoint, one.revision): runs[one.dag_id, one.run_id].state
        for one in pending
        if (one.dag_id, one.run_id) in runs
    }


def _shown_numbers(records: Endpoints, endpoint: Endpoint) -> list[int]:
    """Return the numbers of the last revisions, and of those that have traffic or may get it back."""
    busy = {endpoint.current, endpoint.previous, endpoint.canary, endpoint.wanted}
    numbers = records.revision_numbers(endpoint.name)
    return [number for number in numbers if number in busy or number in numbers[-_SHOWN_REVISIONS:]]


def _endpoint_state(records: Endpoints, endpoint: Endpoint, runs: Runs) -> tuple[EndpointState, str, str]:
    """Return an endpoint's state, why it fails, and who deployed what it serves."""
    numbers = records.revision_numbers(endpoint.name)
    number = endpoint.current or (numbers[-1] if numbers else None)
    if number is None:
        return EndpointState.FAILURE, "It was never deployed: deploy again.", endpoint.created_by
    state, reason = _state(records, endpoint, number, runs)
    return state, reason, records.revision(endpoint.name, number)[0].author


def _state(records: Endpoints, endpoint: Endpoint, number: int, runs: Runs) -> tuple[EndpointState, str]:
    """Return how a revision is at this moment, and why it is not well."""
    if endpoint.killed_at is not None:
        return EndpointState.STOPPED, "The endpoint was killed."
    outcome = records.outcome(endpoint.name, number)
    if outcome is not None and not outcome.succeeded:
        return EndpointState.FAILURE, outcome.reason
    document, _ = records.revision(endpoint.name, number)
    running = prepare.services(document.runtime)
    directory = prepare.directory_of(work_directory(), endpoint.name, number)
    status, port = running.observe(directory), running.port(directory)
    alive = status is not None and status.state is RunState.RUNNING
    ready = (
        running.listens(directory)
        and port is not None
        and (probe.ping(port, _PING_SECONDS) or probe.listens(port))
    )
    if number not in (endpoint.current, endpoint.canary, endpoint.wanted):
        if outcome is None:
            if runs.get((endpoint.name, number)) == "failed":
                return EndpointState.FAILURE, "Airflow failed its deploy; the log is in Airflow's UI."
            return EndpointState.STARTING, ""
        return (EndpointState.STANDBY if alive else EndpointState.STOPPED), ""
    if ready:
        return EndpointState.RUNNING, ""
    known = life(directory)
    if known.failures >= HOPELESS:
        lines = "".join(f"\n  {line}" for line in last_lines(running, directory, _SHOWN_LINES))
        return EndpointState.FAILURE, f"It cannot be started again: {known.reason}.{lines}"
    return EndpointState.RESTARTING, known.reason


def _revision(
    records: Endpoints, endpoint: Endpoint, number: int, runs: Runs, counts: dict[str, Count]
) -> RevisionInfo:
    document, _ = records.revision(endpoint.name, number)
    state, reason = _state(records, endpoint, number, runs)
    record = records.record(endpoint.name, number)
    share = 0
    if number == endpoint.current:
        share = 100 - endpoint.percent
    elif number == endpoint.canary:
        share = endpoint.percent
    count = counts.get(str(number))
    return RevisionInfo(
        revision=number,
        state=state,
        reason=reason,
        share=share,
        job_id=document.job_id,
        source=document.source,
        source_shown=records.workspace.shown(document.source),
        code_shown=records.workspace.shown(document.code),
        model=document.model,
        author=document.author,
        submitted_at=document.submitted_at,
        resources=document.resources,
        workers=document.workers,
        limits=document.limits,
        runtime=document.runtime,
        image=record.build.image if record is not None else None,
        applied=record.limits if record is not None else "",
        restarts=life(prepare.directory_of(work_directory(), endpoint.name, number)).restarts,
        traffic=_shown([count] if count is not None else [], None),
        url=f"/dags/{document.dag_id}/runs/{document.run_id}",
    )


def _counts(name: str) -> dict[str, Count]:
    return read(work_directory() / "gateway" / "traffic.json").of(name)


def _shown(counts: Sequence[Count], refused: Count | None) -> TrafficShown:
    whole = Count()
    for count in counts:
        if count is refused:
            continue
        for status, number in count.statuses.items():
            whole.statuses[status] = whole.statuses.get(status, 0) + number
        for step, number in count.buckets.items():
            whole.buckets[step] = whole.buckets.get(step, 0) + number
    return TrafficShown(
        requests=whole.requests,
        errors=whole.errors,
        refused=refused.requests if refused is not None else 0,
        p50=whole.quantile(0.5),
        p90=whole.quantile(0.9),
        p99=whole.quantile(0.99),
    )


def _chosen(records: Endpoints, endpoint: Endpoint, number: int | None) -> int:
    """Return the revision that is asked for; else the one with the traffic, or the newest."""
    numbers = records.revision_numbers(endpoint.name)
    if number is None:
        number = endpoint.current or (numbers[-1] if numbers else 0)
    return number


def _places(position: str) -> dict[str, str]:
    """Return how far a client is in the logs of each revision."""
    return dict(each.split("@", 1) for each in position.split(",") if "@" in each)
