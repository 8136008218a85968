"""Bring a revision from the store to this machine: its environment, its code and model, its service."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from kaos.dockerfile import Dockerfile
from kaos.endpoint import ServeDocument
from kaos.errors import InvalidInputError
from kaos.image import EnvironmentSpec, environment
from kaos.runtime.base import Environment
from kaos.runtime.environment import EnvironmentBuilder
from kaos.runtime.process import ProcessRuntime
from kaos.serving.records import Endpoints
from kaos.serving.service import ProcessServices, Services, ServiceSpec
from kaos.source import DOCKERFILE, MODEL
from kaos.transfer.checkout import SharedCheckouts, checkout

_LARGEST = 1 << 20
"""Bytes of a file that may be a requirements file; larger ones are not looked into."""


def services(runtime: str) -> Services:
    """Return what runs the services of a runtime.

    :raises InvalidInputError: endpoints cannot run in this one
    """
    if runtime != "process":
        raise InvalidInputError(
            f"Endpoints cannot run in {runtime!r} yet.", "Set [kaos] runtimes to process."
        )
    return ProcessServices(ProcessRuntime())


def directory_of(work: Path, name: str, revision: int) -> Path:
    """Return the directory of a revision's service on this machine."""
    return work / "endpoints" / name / f"{revision:06d}"


def asked_for(records: Endpoints, document: ServeDocument) -> EnvironmentSpec:
    """Return what a revision's bundle asks for.

    :raises UnsupportedImageError: its Dockerfile asks for more than the process runtime can honour
    """
    tree, objects = records.workspace.tree(document.source.digest), records.store.objects
    file = tree.file(DOCKERFILE)
    if file is None:
        raise InvalidInputError("The source bundle has no Dockerfile.", "Deploy it again.")
    context = {
        entry.path: objects.get(entry.digest) for entry in tree.below(MODEL).files if entry.size <= _LARGEST
    }
    return environment(Dockerfile.of(objects.get(file.digest).decode(errors="replace")), context)


def build(
    records: Endpoints,
    document: ServeDocument,
    work: Path,
    log: Callable[[str], None],
    lock: str | None = None,
) -> Environment:
    """Return a revision's environment, made now if it is not on this machine.

    :param lock: install exactly this
    """
    return EnvironmentBuilder(work / "environments").build(asked_for(records, document), log, lock)


def launch(records: Endpoints, document: ServeDocument, built: Environment, work: Path) -> int:
    """Lay a revision out, start its service, and return its port; one that runs is left alone."""
    running = services(document.runtime)
    directory = directory_of(work, document.endpoint, document.revision)
    objects, spec = records.store.objects, asked_for(records, document)
    tree = records.workspace.tree(document.source.digest)
    program = directory / "program"
    if not program.exists():
        shutil.rmtree(directory / "run", ignore_errors=True)
        checkout(objects, tree.below(MODEL), program, writable=True)
    model = None
    if document.model is not None:
        shared = SharedCheckouts(work / "trees")
        model = shared.get(objects, records.workspace.tree(document.model.digest))
    return running.launch(
        ServiceSpec(
            name=document.endpoint,
            revision=document.revision,
            job_id=document.job_id,
            program=program,
            model=model,
            directory=directory,
            environment=built,
            env=spec.env,
            executables=spec.executables,
            resources=document.resources,
            workers=document.workers,
        )
    )
