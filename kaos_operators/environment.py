"""How a job's runtime is made from Airflow's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos.dockerfile import Dockerfile
from kaos.errors import InvalidInputError
from kaos.image import EnvironmentSpec, environment
from kaos.runtime.environment import EnvironmentBuilder
from kaos.runtime.process import ProcessRuntime
from kaos.source import DOCKERFILE, MODEL
from kaos_operators.hook import work_directory

if TYPE_CHECKING:
    from kaos.catalog import WorkspaceCatalog
    from kaos.job import JobDocument
    from kaos.runtime.base import Runtime


_LARGEST = 1 << 20
"""Bytes of a file that may be a requirements file; larger ones are not looked into."""


def runtime() -> Runtime:
    """Return the runtime that jobs run in."""
    return ProcessRuntime()


def environment_builder() -> EnvironmentBuilder:
    """Return what builds environments, shared by all jobs of this worker."""
    return EnvironmentBuilder(work_directory() / "environments")


def environment_spec(workspace: WorkspaceCatalog, document: JobDocument) -> EnvironmentSpec:
    """Return what a job's source bundle asks for.

    :raises UnsupportedImageError: its Dockerfile asks for more than the process runtime can honour
    """
    if document.runtime != "process":
        raise InvalidInputError(
            f"This server cannot run jobs in {document.runtime!r}.", "Set [kaos] runtimes."
        )
    tree, objects = workspace.tree(document.source.digest), workspace.store.objects
    file = tree.file(DOCKERFILE)
    if file is None:
        raise InvalidInputError("The source bundle has no Dockerfile.", "Deploy it again.")
    context = {
        entry.path: objects.get(entry.digest) for entry in tree.below(MODEL).files if entry.size <= _LARGEST
    }
    return environment(Dockerfile.of(objects.get(file.digest).decode(errors="replace")), context)
