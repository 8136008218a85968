"""Build what a source bundle needs to run: an environment or an image."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, ClassVar

from kaos.errors import KaosError
from kaos.job import Stage
from kaos.lineage import small
from kaos_operators.base import KaosOperator
from kaos_operators.environment import build_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog
    from kaos.job import JobDocument
    from kaos_operators.environment import Build

build_log = logging.getLogger("kaos.build")


class ImageBuildOperator(KaosOperator):
    """Build what a job's source bundle asks for, or find it built; its log and its lock go to the store."""

    stage: ClassVar[Stage] = Stage.BUILDING

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._build: Build | None = None

    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> dict[str, Any]:
        """Return a `BuildRecord`."""
        start = time.monotonic()
        lines: list[str] = []

        def log(line: str) -> None:
            lines.append(line)
            build_log.info("%s", line)

        objects = workspace.store.objects
        try:
            self._build = build_of(workspace, document)
            record = self._build.run(log)
        except KaosError as error:
            log(str(error))
            workspace.set_build_log(document.job_id, objects.put("\n".join(lines).encode()))
            raise
        finally:
            self._build = None
        digest = objects.put("\n".join(lines).encode())
        workspace.set_build_log(document.job_id, digest)
        seconds = round(time.monotonic() - start, 3)
        return small(record.model_copy(update={"log": digest, "seconds": seconds}))

    def on_kill(self) -> None:
        """End the build with all that it started."""
        if self._build is not None:
            self._build.cancel()
