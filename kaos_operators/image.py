"""Build the environment of a source bundle."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, ClassVar

from kaos.errors import KaosError
from kaos.job import Stage
from kaos.lineage import BuildRecord, small
from kaos_operators.base import KaosOperator
from kaos_operators.environment import environment_builder, environment_spec

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog
    from kaos.job import JobDocument

build_log = logging.getLogger("kaos.build")


class ImageBuildOperator(KaosOperator):
    """Build what a job's source bundle asks for, or find it built; its log and its lock go to the store."""

    stage: ClassVar[Stage] = Stage.BUILDING

    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> dict[str, Any]:
        """Return a `BuildRecord`."""
        start = time.monotonic()
        lines: list[str] = []

        def log(line: str) -> None:
            lines.append(line)
            build_log.info("%s", line)

        objects = workspace.store.objects
        try:
            spec = environment_spec(workspace, document)
            built = environment_builder().build(spec, log)
        except KaosError as error:
            log(str(error))
            workspace.set_build_log(document.job_id, objects.put("\n".join(lines).encode()))
            raise
        record = BuildRecord(
            runtime=document.runtime,
            environment=built.digest,
            python=built.python_version,
            lock=objects.put(built.lock.encode()),
            log=objects.put("\n".join(lines).encode()),
            reused=built.reused,
            seconds=round(time.monotonic() - start, 3),
            variables=dict(spec.env),
        )
        workspace.set_build_log(document.job_id, record.log)
        workspace.set_image(document.source.digest, built.digest)
        return small(record)
