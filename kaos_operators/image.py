"""Build what a source bundle needs to run: an environment or an image."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from kaos import openlineage
from kaos.errors import KaosError
from kaos.job import Stage
from kaos.lineage import BuildRecord, small
from kaos_operators.base import KaosOperator
from kaos_operators.environment import build_of
from kaos_operators.hook import open_job

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog
    from kaos.job import JobDocument
    from kaos.openlineage import Traced
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

    def trace(self) -> Traced:
        """Return the source bundle, and what was built of it."""
        document, _ = open_job(self.job)
        build = BuildRecord.model_validate(self.made) if self.made is not None else None
        found = openlineage.traced(document, self.job)
        code = found.inputs[:1]
        if build is None:
            return replace(found, inputs=code)
        made = openlineage.environment(document.workspace, document.source, build)
        about = openlineage.about(document, self.job, build)
        return replace(found, inputs=code, outputs=[made], about=about)

    def on_kill(self) -> None:
        """End the build with all that it started."""
        if self._build is not None:
            self._build.cancel()
