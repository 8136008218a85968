"""Make a model again: a job on what is pinned of the one that made it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from kaos import __version__
from kaos.catalog import WorkspaceCatalog
from kaos.errors import ConflictError, InvalidInputError, UnknownNameError
from kaos.job import TRAIN, Definition, JobDocument, Reproduces, new_job_id
from kaos.lineage import BuildRecord
from kaos.model import ModelRecord
from kaos.models import Models
from kaos.names import dag_id
from kaos.reproduction import Reproduction
from kaos.reproductions import Reproductions
from kaos.runtime.capacity import machine_capacity
from kaos.schema.reproduction import ReproductionRequest, ReproductionStarted
from kaos_operators.environment import CONTAINER, PROCESS, check_allowed
from kaos_plugin.jobs import start_job


def reproduce(
    workspace: WorkspaceCatalog, body: ReproductionRequest, user: str, db: Session
) -> ReproductionStarted:
    """Start a job that makes a model again, of one trial, on exactly what made it.

    :raises InvalidInputError: the model was not trained here
    :raises UnknownNameError: there is no such model, or that job did not make it
    """
    original, digest = Reproductions(workspace).original(_trained(workspace, body.model), body.job_id)
    document = _document(workspace, original, digest, body, user)
    check_allowed(document.runtime)
    if document.runtime in (PROCESS, CONTAINER):  # on this machine
        document.resources.check(machine_capacity())
    start_job(workspace, document, workspace.add_job(document), db)
    return ReproductionStarted(
        job_id=document.job_id,
        model_id=original.model_id,
        original_job=original.job.job_id,
        trial=original.trial.name,
        environment="built anew" if body.rebuild else _shown(original.build),
    )


def reproduction_of(workspace: WorkspaceCatalog, job_id: str) -> Reproduction:
    """Return what came of a job that makes a model again.

    :raises ConflictError: it has not ended
    :raises UnknownNameError: it makes none again
    """
    document, _ = workspace.job(job_id)
    if document.reproduces is None:
        raise UnknownNameError(
            "reproduction", job_id, next_step="That job makes no model again: kaos train reproduce does."
        )
    found = Reproductions(workspace).of_job(document)
    if found is None:
        raise ConflictError(f"Job {document.job_id} has no verdict yet.", "See kaos train info.")
    return found


def _trained(workspace: WorkspaceCatalog, name: str) -> str:
    """Return the id of a model that was trained here.

    :param name: its id, or a tag
    :raises InvalidInputError: it came from elsewhere
    """
    model_id = Models(workspace).pin(name).model_id
    for imported in Models(workspace).imports():
        if imported.model_id == model_id:
            raise InvalidInputError(
                f"The model {model_id} was imported by {imported.imported_by}: nobody knows what made it.",
                "Only what was trained here can be made again. See kaos train list.",
            )
    return model_id


def _document(
    workspace: WorkspaceCatalog, original: ModelRecord, digest: str, body: ReproductionRequest, user: str
) -> JobDocument:
    """Return the job: inputs, resources and runtime of the original, its one trial, nothing taken over."""
    own = {definition.name: definition for definition in workspace.definitions()}
    job_id, before = new_job_id(), original.job
    return before.model_copy(
        update={
            "job_id": job_id,
            "run_id": job_id,
            "definition": TRAIN,
            "schedule": None,
            "dag_id": dag_id(before.workspace, TRAIN),
            "data": before.pinned_data,
            "refresh": False,
            "reuse": False,
            "no_cache": False,
            "max_failed": None,
            # One trial runs: with another number here the DAG would be generated again.
            "parallelism": own.get(TRAIN, Definition(workspace=before.workspace)).parallelism,
            "only": None if before.params is None else [original.trial.index],
            "rerun_of": before.job_id,
            "reproduces": Reproduces(
                model_id=original.model_id,
                digest=original.digest,
                record=digest,
                job_id=before.job_id,
                trial=original.trial.index,
                tolerance=body.tolerance,
                rebuild=body.rebuild,
            ),
            "author": user,
            "submitted_at": datetime.now(UTC),
            "kaos_version": __version__,
        }
    )


def _shown(build: BuildRecord) -> str:
    if build.image is not None:
        return f"image {build.image.name} sha256:{build.image.id[:12]}"
    return f"Python {build.python}, lock {build.lock[:12]}"
