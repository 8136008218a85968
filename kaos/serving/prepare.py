"""Bring a revision from the store to this machine: its environment, its code and model, its service."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from kaos.dockerfile import Dockerfile
from kaos.endpoint import ServeDocument
from kaos.errors import ContainerEngineError, InvalidInputError
from kaos.image import EnvironmentSpec, environment
from kaos.lineage import BuildRecord, ImageRecord
from kaos.runtime.base import Environment
from kaos.runtime.container.builders import builder_named
from kaos.runtime.container.engine import engine_named
from kaos.runtime.environment import EnvironmentBuilder
from kaos.serving.container import ContainerServices
from kaos.serving.process import ProcessServices
from kaos.serving.records import Endpoints
from kaos.serving.service import Services, ServiceSpec, kept, last_lines
from kaos.source import DOCKERFILE, MODEL
from kaos.store.base import naming
from kaos.transfer.checkout import SharedCheckouts, checkout

_SERVICES: dict[str, type[ProcessServices | ContainerServices]] = {
    "process": ProcessServices,
    "container": ContainerServices,
}
_PROGRAM = "program"
_KEPT_LINES = 1000
_LARGEST = 1 << 20
"""Bytes of a file that may be a requirements file; larger ones are not looked into."""


def services(runtime: str) -> Services:
    """Return what runs the services of a runtime.

    :raises InvalidInputError: endpoints cannot run in this one
    """
    if runtime not in _SERVICES:
        raise InvalidInputError(
            f"Endpoints cannot run in {runtime!r}.", f"They can in {' and '.join(_SERVICES)}: --runtime"
        )
    return _SERVICES[runtime]()


def services_in(directory: Path) -> Services:
    """Return what runs the service of a directory; of one that was never launched, processes."""
    found = kept(directory)
    return services("container" if found and isinstance(found.spec.environment, ImageRecord) else "process")


def directory_of(work: Path, name: str, revision: int) -> Path:
    """Return the directory of a revision's service on this machine."""
    return work / "endpoints" / name / f"{revision:06d}"


def asked_for(records: Endpoints, document: ServeDocument) -> EnvironmentSpec:
    """Return what a revision's bundle asks for.

    :raises UnsupportedImageError: its Dockerfile asks for more than the process runtime can honour
    """
    tree, objects = records.workspace.needed_tree(document.source.digest), records.store.objects
    file = tree.file(DOCKERFILE)
    if file is None:
        raise InvalidInputError("The source bundle has no Dockerfile.", "Deploy it again.")
    context = {}
    for entry in tree.below(MODEL).files:
        if entry.size <= _LARGEST:
            with naming(f"{MODEL}/{entry.path}"):
                context[entry.path] = objects.get(entry.digest)
    with naming(DOCKERFILE):
        text = objects.get(file.digest).decode(errors="replace")
    return environment(Dockerfile.of(text), context)


def build(
    records: Endpoints, document: ServeDocument, build: BuildRecord, work: Path, log: Callable[[str], None]
) -> Environment | ImageRecord:
    """Return what was built for a revision, on this machine: made from the same lock, or pulled.

    :raises ContainerEngineError: its image is gone, and was pushed nowhere or cannot be pulled
    """
    if build.image is not None:
        _provide(build.image, log)
        return build.image
    lock = records.store.objects.get(build.lock).decode()
    return EnvironmentBuilder(work / "environments").build(asked_for(records, document), log, lock)


def launch(
    records: Endpoints,
    document: ServeDocument,
    built: Environment | ImageRecord,
    work: Path,
    *,
    network: str = "",
    user: str = "",
) -> int:
    """Lay a revision out, start its service, and return its port; one that runs is left alone.

    :param network: of containers, `[kaos] container_network`
    :param user: of containers whose image names none, `[kaos] container_user`
    """
    directory = directory_of(work, document.endpoint, document.revision)
    objects = records.store.objects
    program: Path | None = None
    env: Mapping[str, str] = {}
    executables: tuple[str, ...] = ()
    if isinstance(built, Environment):
        spec = asked_for(records, document)
        env, executables = spec.env, spec.executables
        program = directory / _PROGRAM
        if not program.exists():
            shutil.rmtree(directory / "run", ignore_errors=True)
            tree = records.workspace.needed_tree(document.source.digest)
            checkout(objects, tree.below(MODEL), program, writable=True)
    model = None
    if document.model is not None:
        shared = SharedCheckouts(work / "trees")
        model = shared.get(objects, records.workspace.needed_tree(document.model.digest))
    return services(document.runtime).launch(
        ServiceSpec(
            name=document.endpoint,
            revision=document.revision,
            job_id=document.job_id,
            program=program,
            model=model,
            directory=directory,
            environment=built,
            env=env,
            executables=executables,
            resources=document.resources,
            workers=document.workers,
            network=network,
            user=user,
        )
    )


def put_away(directory: Path) -> None:
    """Remove the code of a service, a copy with the model's files in it; its logs stay."""
    shutil.rmtree(directory / _PROGRAM, ignore_errors=True)


def record_failure(records: Endpoints, document: ServeDocument, work: Path, reason: str) -> list[str]:
    """Record why a revision failed, with the end of what it printed, and return that; end nothing."""
    directory = directory_of(work, document.endpoint, document.revision)
    lines = last_lines(services(document.runtime), directory, _KEPT_LINES)
    text = "".join(f"{line}\n" for line in lines).encode()
    records.end(document, reason=reason, log=records.store.objects.put(text) if lines else None)
    return lines


def _provide(image: ImageRecord, log: Callable[[str], None]) -> None:
    """Have an image on this machine, pulled by its digest with the engine's own logins if it is not."""
    if engine_named(image.engine).image(image.id) is not None:
        return
    if not image.pinned:
        raise ContainerEngineError(
            f"The image {image.name} is not on this machine any more, and it was pushed to no registry.",
            "Deploy again: kaos serve update",
        )
    log(f"Pulling {image.pinned}")
    builder_named(image.engine).pull(image.pinned, log)
