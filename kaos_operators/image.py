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
    from kaos.lineage import BuildRecord
    from kaos_operators.environment import Build, Document

build_log = logging.getLogger("kaos.build")


class LoggedBuild:
    """A build whose log goes to Airflow's log line by line, and to the store in the end, however it ends."""

    def __init__(self, workspace: WorkspaceCatalog, document: Document) -> None:
        self.workspace = workspace
        self.document = document
        self._build: Build | None = None

    def run(self) -> BuildRecord:
        """Build what the bundle asks for, or find it built."""
        start = time.monotonic()
        lines: list[str] = []

        def log(line: str) -> None:
            lines.append(line)
            build_log.info("%s", line)

        objects, job_id = self.workspace.store.objects, self.document.job_id
        try:
            self._build = build_of(self.workspace, self.document)
            record = self._build.run(log)
        except KaosError as error:
            log(str(error))
            self.workspace.set_build_log(job_id, objects.put("\n".join(lines).encode()))
            raise
        finally:
            self._build = None
        digest = objects.put("\n".join(lines).encode())
        self.workspace.set_build_log(job_id, digest)
        seconds = round(time.monotonic() - start, 3)
        return record.model_copy(update={"log": digest, "seconds": seconds})

    def cancel(self) -> None:
        """End the build with all that it started."""
        if self._build is not None:
            self._build.cancel()


class ImageBuildOperator(KaosOperator):
    """Build what a job's source bundle asks for, or find it built; its log and its lock go to the store."""

    stage: ClassVar[Stage] = Stage.BUILDING

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._build: LoggedBuild | None = None

    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> dict[str, Any]:
        """Return a `BuildRecord`."""
        self._build = LoggedBuild(workspace, document)
        return small(self._build.run())

    def on_kill(self) -> None:
        """End the build with all that it started."""
        if self._build is not None:
            self._build.cancel()
