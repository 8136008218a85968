"""What a model was made in, had again: the environment of its lock, or its image, and no other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kaos.errors import ContainerEngineError, CorruptObjectError, EnvironmentBuildError
from kaos.job import JobDocument
from kaos.lineage import BuildRecord, ImageRecord
from kaos.reproductions import Reproductions

if TYPE_CHECKING:
    from kaos.catalog import WorkspaceCatalog
    from kaos.endpoint import ServeDocument
    from kaos.image import EnvironmentSpec
    from kaos.job import Reproduces
    from kaos.runtime.base import Environment
    from kaos.runtime.environment import EnvironmentBuilder


def reproduced(document: JobDocument | ServeDocument) -> Reproduces | None:
    """Return the model that a job makes again, None of any other job and of a revision."""
    return document.reproduces if isinstance(document, JobDocument) else None


class PinnedBuild:
    """Have what a model was made in on this worker; nothing is resolved or built from a Dockerfile."""

    def __init__(
        self, workspace: WorkspaceCatalog, document: JobDocument | ServeDocument, asked: Reproduces
    ) -> None:
        self.workspace = workspace
        self.document = document
        self.asked = asked

    def run(self, log: Callable[[str], None]) -> BuildRecord:
        """Install the lock, or find or pull the image.

        :raises EnvironmentBuildError: that cannot be had any more
        """
        start = time.monotonic()
        pinned = Reproductions(self.workspace).pinned(self.asked).build
        log(f"What the model {self.asked.model_id} was made in is taken, and nothing resolved or built anew.")
        had = self._image(pinned.image, log) if pinned.image is not None else self._lock(pinned, log)
        return pinned.model_copy(update={"log": "", "seconds": time.monotonic() - start, **had})

    def cancel(self) -> None:
        """Do nothing: what runs belongs to the task's own processes and ends with them."""

    def _image(self, image: ImageRecord, log: Callable[[str], None]) -> dict[str, Any]:
        from kaos_operators.containers import images

        try:
            images().provide(image, log)
        except ContainerEngineError as error:
            raise EnvironmentBuildError(
                f"The image sha256:{image.id[:12]} that {self.asked.model_id} was made in is gone:"
                f" {error.message}",
                self._otherwise,
            ) from error
        log(f"The image {image.name} is there: sha256:{image.id}")
        return {"reused": True}

    def _lock(self, pinned: BuildRecord, log: Callable[[str], None]) -> dict[str, Any]:
        from kaos_operators.environment import environment_builder, environment_spec

        spec = environment_spec(self.workspace, self.document)
        try:
            lock = self.workspace.store.objects.get(pinned.lock).decode()
            built = same_python(environment_builder(), spec, lock, pinned.python, log)
        except CorruptObjectError as error:
            raise CorruptObjectError(
                f"The lock of {self.asked.model_id}: {error.message}", self._otherwise
            ) from error
        except EnvironmentBuildError as error:
            raise EnvironmentBuildError(
                f"The environment that {self.asked.model_id} was made in, with Python {pinned.python},"
                f" cannot be had again: {error.message}",
                self._otherwise,
            ) from error
        if built.python_version != pinned.python or built.digest != pinned.environment:
            log(f"This machine has it as Python {built.python_version}, environment {built.digest[:12]}.")
        return {"reused": built.reused, "environment": built.digest, "python": built.python_version}

    @property
    def _otherwise(self) -> str:
        return (
            "To build the environment anew, which the verdict then says:"
            f" kaos train reproduce -m {self.asked.model_id} --rebuild"
        )


class NothingKnown:
    """Remembers no image: a build anew for a comparison becomes nobody else's image."""

    def container_image(self, source: str) -> ImageRecord | None:
        """Return None: no image is taken from before."""
        return None

    def set_container_image(self, source: str, record: ImageRecord) -> None:
        """Do nothing."""


def same_python(
    builder: EnvironmentBuilder,
    spec: EnvironmentSpec,
    lock: str,
    python: str,
    log: Callable[[str], None],
) -> Environment:
    """Return the environment of a lock with exactly this version of Python.

    The Dockerfile may ask for any 3.11, and give another one than when the model was made.
    """
    built = builder.build(spec, log, lock)
    if built.python_version == python:
        return built
    log(f"The model was made with Python {python}, not {built.python_version}.")
    return builder.build(spec.model_copy(update={"python": python}), log, lock)
