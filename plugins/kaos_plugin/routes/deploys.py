"""Deploys."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, status

from kaos import __version__
from kaos.catalog import WorkspaceCatalog
from kaos.errors import InvalidInputError, UnknownNameError
from kaos.job import (
    TRAIN,
    Definition,
    Inputs,
    JobDocument,
    ManifestPin,
    ParametersPin,
    new_job_id,
)
from kaos.names import dag_id
from kaos.parameters import parse
from kaos.runtime.capacity import machine_capacity
from kaos.schema.deploy import DeployRequest, DeployResponse, Parameters
from kaos.source import check_source
from kaos_operators.environment import CONTAINER, PROCESS, check_allowed, check_network
from kaos_operators.hook import max_trials, network_by_default
from kaos_plugin.auth import Deployable, Readable, User
from kaos_plugin.jobs import runtime_of_jobs, start_job
from kaos_plugin.schedules import tell_of_data

router = APIRouter(tags=["deploys"])


@router.get("/workspaces/{workspace}/inputs")
def get_inputs(workspace: Readable) -> DeployResponse:
    """Return the current inputs."""
    return _response(workspace, workspace.inputs(), None, runtime_of_jobs(workspace))


@router.post("/workspaces/{workspace}/deploys", status_code=status.HTTP_201_CREATED)
def deploy(workspace: Deployable, body: DeployRequest, user: User, session: SessionDep) -> DeployResponse:
    """Merge bundles into the current inputs in one step, and start a job when source and data are there."""
    runtime = body.runtime or runtime_of_jobs(workspace)
    check_allowed(runtime)
    check_network(runtime, body.network)
    if runtime in (PROCESS, CONTAINER):  # on this machine
        body.resources.check(machine_capacity())
    if body.data is not None and body.manifest is not None:
        raise InvalidInputError("A job has one data bundle.", "Give data or a manifest, not both.")
    new = Inputs(
        source=workspace.given_bundle("source", body.source) if body.source is not None else None,
        data=workspace.given_bundle("data", body.data) if body.data is not None else None,
        manifest=_manifest(workspace, body.manifest),
        params=_parameters(workspace, body.params, user.get_name()),
    )
    if body.source is not None:
        check_source(workspace.given_tree(body.source))  # one that was committed for serving trains nothing
    before = workspace.inputs()
    inputs = workspace.merge_inputs(new, drop_params=body.no_params and body.params is None)
    for pin in (new.source, new.data):
        if pin is not None:
            workspace.use_tree(pin.digest)
    tell_of_data(workspace, before, inputs, session)
    if body.refresh and inputs.manifest is None:
        raise InvalidInputError("There is no manifest to download anew.", "Give one with the deploy.")
    if inputs.source is None or inputs.lacking or not body.run:
        return _response(workspace, inputs, None, runtime)
    job_id = new_job_id()
    document = JobDocument(
        job_id=job_id,
        workspace=workspace.workspace.name,
        definition=TRAIN,
        dag_id=dag_id(workspace.workspace.name, TRAIN),
        run_id=job_id,
        source=inputs.source,
        data=inputs.data,
        manifest=inputs.manifest,
        refresh=body.refresh,
        params=inputs.params,
        parallelism=body.parallelism or Definition(workspace=workspace.workspace.name).parallelism,
        max_failed=body.max_failed,
        retries=body.retries,
        retry_errors=body.retry_errors,
        reuse=body.reuse,
        resources=body.resources,
        runtime=runtime,
        network=network_by_default() if body.network is None else body.network,
        no_cache=body.no_cache,
        author=user.get_name(),
        submitted_at=datetime.now(UTC),
        kaos_version=__version__,
    )
    start_job(workspace, document, workspace.add_job(document), session)
    return _response(workspace, inputs, job_id, runtime)


def _manifest(workspace: WorkspaceCatalog, digest: str | None) -> ManifestPin | None:
    if digest is None:
        return None
    pin = workspace.manifest(digest)
    if pin is None:
        raise UnknownNameError("manifest", digest[:12], next_step="Deploy its file again.")
    return pin


def _parameters(workspace: WorkspaceCatalog, given: Parameters | None, user: str) -> ParametersPin | None:
    if given is None:
        return None
    space = parse(given.content.encode(), samples=given.samples, seed=given.seed, most=max_trials())
    return ParametersPin(name=given.name, digest=workspace.add_space(space), trials=space.size, author=user)


def _response(
    workspace: WorkspaceCatalog, inputs: Inputs, job_id: str | None, runtime: str
) -> DeployResponse:
    pins = {"source": inputs.source, "data": inputs.data}
    shown = {kind: workspace.shown(pin) for kind, pin in pins.items() if pin is not None}
    if inputs.manifest is not None:
        shown["manifest"] = workspace.shown_manifest(inputs.manifest)
    space = workspace.space(inputs.params)
    return DeployResponse(
        inputs=inputs,
        space=space.shown if space else None,
        shown=shown,
        image=workspace.built(inputs.source.digest, runtime) if inputs.source else None,
        job_id=job_id,
    )
