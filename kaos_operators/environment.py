"""How a job's runtime is made, and what its source bundle asks for is built, by Airflow's configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from kaos.dockerfile import Dockerfile
from kaos.errors import InvalidInputError
from kaos.image import EnvironmentSpec, environment
from kaos.lineage import BuildRecord
from kaos.runtime.environment import EnvironmentBuilder
from kaos.runtime.process import ProcessRuntime
from kaos.source import DOCKERFILE, MODEL
from kaos.store.base import naming
from kaos.transfer.checkout import checkout
from kaos_operators.hook import runtimes, work_directory
from kaos_operators.pinned import PinnedBuild, reproduced, same_python

if TYPE_CHECKING:
    from pathlib import Path

    from kaos.catalog import WorkspaceCatalog
    from kaos.endpoint import ServeDocument
    from kaos.job import JobDocument
    from kaos.runtime.base import Environment, Runtime
    from kaos.runtime.container.images import ImageSpec

    Document = JobDocument | ServeDocument
    """What is built for: a job, or a revision of an endpoint."""


PROCESS, CONTAINER = "process", "container"

_LARGEST = 1 << 20
"""Bytes of a file that may be a requirements file; larger ones are not looked into."""


class Build(Protocol):
    """What makes the environment or the image of a job."""

    def run(self, log: Callable[[str], None]) -> BuildRecord:
        """Make it, or find it made; return the record, without the log."""

    def cancel(self) -> None:
        """End what is being built."""


def runtime(name: str) -> Runtime:
    """Return the runtime of this name.

    :raises InvalidInputError: this server does not allow it, or there is none of that name
    """
    if name == PROCESS:
        return ProcessRuntime()
    if name == CONTAINER:
        from kaos_operators import containers

        return containers.runtime()
    raise InvalidInputError(
        f"There is no runtime {name!r}.", f"[kaos] runtimes allows {', '.join(runtimes())}."
    )


def runtime_of(handle: str) -> Runtime:
    """Return the runtime that a handle is of."""
    return runtime(json.loads(handle)["runtime"])


def find_run(directory: Path) -> str | None:
    """Return the handle of the run that was last launched in a directory, of whichever runtime, or None."""
    try:
        order = json.loads((directory / "launch.json").read_text())
    except FileNotFoundError:
        return None
    return runtime(order.get("runtime", PROCESS)).find(directory)


def build_of(workspace: WorkspaceCatalog, document: Document) -> Build:
    """Return what builds for a job or a revision.

    :raises InvalidInputError: the server does not allow its runtime
    """
    check_allowed(document.runtime)
    asked = reproduced(document)
    if asked is not None and not asked.rebuild:
        return PinnedBuild(workspace, document, asked)
    if document.runtime == CONTAINER:
        from kaos_operators.containers import ImageBuild

        return ImageBuild(workspace, document)
    return EnvironmentBuild(workspace, document)


def check_allowed(name: str) -> None:
    """Check that the server's configuration allows a runtime.

    :raises InvalidInputError: it does not
    """
    allowed = runtimes()
    if name not in allowed:
        raise InvalidInputError(
            f"This server does not run jobs in {name!r}; it allows {' and '.join(allowed)}.",
            "Choose one with --runtime, or let [kaos] runtimes of its configuration allow it.",
        )


def check_network(name: str, network: bool | None) -> None:
    """Check that a runtime can do what was asked for.

    :raises InvalidInputError: the process runtime was asked to keep a script from the network
    """
    if name == PROCESS and network is False:
        raise InvalidInputError(
            "The `process` runtime cannot keep a script from the network.",
            "Use --runtime container for that.",
        )


class EnvironmentBuild:
    """Build for the process runtime: a virtual environment."""

    def __init__(self, workspace: WorkspaceCatalog, document: Document) -> None:
        self.workspace = workspace
        self.document = document

    def run(self, log: Callable[[str], None]) -> BuildRecord:
        """Make the environment, or find it made."""
        spec = environment_spec(self.workspace, self.document)
        built = environment_builder().build(spec, log)
        if reproduced(self.document) is None:
            self.workspace.set_image(self.document.source.digest, built.digest)
        return BuildRecord(
            runtime=PROCESS,
            environment=built.digest,
            python=built.python_version,
            lock=self.workspace.store.objects.put(built.lock.encode()),
            log="",
            reused=built.reused,
            seconds=built.seconds,
            variables=dict(spec.env),
        )

    def cancel(self) -> None:
        """Do nothing: uv belongs to the task's own processes and ends with them."""


def environment_builder() -> EnvironmentBuilder:
    """Return what builds environments, shared by all jobs of this worker."""
    return EnvironmentBuilder(work_directory() / "environments")


def environment_of(
    workspace: WorkspaceCatalog, document: JobDocument, build: BuildRecord, log: Callable[[str], None]
) -> tuple[Environment, EnvironmentSpec]:
    """Return the environment that was built, on this worker: from the same lock if another one built it."""
    spec = environment_spec(workspace, document)
    lock = workspace.store.objects.get(build.lock).decode()
    if document.reproduces is not None:
        return same_python(environment_builder(), spec, lock, build.python, log), spec
    return environment_builder().build(spec, log, lock), spec


def environment_spec(workspace: WorkspaceCatalog, document: Document) -> EnvironmentSpec:
    """Return what a source bundle asks for.

    :raises UnsupportedImageError: its Dockerfile asks for more than the process runtime can honour
    """
    tree, objects = workspace.needed_tree(document.source.digest), workspace.store.objects
    context, shown = {}, workspace.shown(document.source)
    for entry in tree.below(MODEL).files:
        if entry.size <= _LARGEST:
            with naming(f"Source bundle {shown}: {MODEL}/{entry.path}"):
                context[entry.path] = objects.get(entry.digest)
    return environment(Dockerfile.of(dockerfile(workspace, document)), context)


def image_spec(workspace: WorkspaceCatalog, document: Document) -> ImageSpec:
    """Return what to build an image of."""
    from kaos.runtime.container.images import ImageSpec

    tree, objects = workspace.needed_tree(document.source.digest), workspace.store.objects
    return ImageSpec(
        name=document.source.name,
        source=document.source.digest,
        dockerfile=dockerfile(workspace, document),
        lay_out=lambda context: checkout(objects, tree.below(MODEL), context, writable=True),
        script=document.kind,
    )


def dockerfile(workspace: WorkspaceCatalog, document: Document) -> str:
    """Return the Dockerfile of a source bundle."""
    file = workspace.needed_tree(document.source.digest).file(DOCKERFILE)
    if file is None:
        raise InvalidInputError("The source bundle has no Dockerfile.", "Deploy it again.")
    with naming(f"Source bundle {workspace.shown(document.source)}: {DOCKERFILE}"):
        return workspace.store.objects.get(file.digest).decode(errors="replace")
