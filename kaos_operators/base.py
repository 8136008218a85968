"""What all operators of kaos share: the job they work on, and how they fail."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow import __version__ as airflow_version
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from kaos import openlineage
from kaos.errors import KaosError
from kaos.job import JobOutcome, JobState, Stage
from kaos.lineage import AirflowRun
from kaos.reproductions import Reproductions
from kaos_operators.hook import open_job
from kaos_operators.links import JobLink, job_page
from kaos_operators.traced import TracedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog
    from kaos.job import JobDocument
    from kaos.openlineage import Traced


class KaosOperator(TracedOperator, BaseOperator):
    """Work on one job.

    :param job: digest of the job document (templated); what a run's `conf["job"]` holds, or what
        `BundleIngestOperator` returns as `job_digest`
    """

    template_fields: Sequence[str] = ("job",)
    operator_extra_links = (JobLink(),)
    ui_color = "#e8f4f0"
    stage: ClassVar[Stage] = Stage.TRAINING

    def __init__(self, *, job: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.job_page = ""

    def execute(self, context: Context) -> Any:
        """Do the work; an error of kaos fails the task for good, with the reason kept as the job's."""
        document: JobDocument | None = None
        try:
            document, workspace = self.open(context)
            self.job_page = job_page(document.workspace, document.job_id)
            self.made = self.work(document, workspace, context)
            return self.made
        except KaosError as error:
            if document is not None:
                self.fail(document, workspace, error)
            raise AirflowFailException(str(error)) from error

    def open(self, context: Context) -> tuple[JobDocument, WorkspaceCatalog]:
        """Return the job to work on."""
        return open_job(self.job)

    def trace(self) -> Traced:
        """Return the job's inputs; operators that make something add it."""
        document, _ = open_job(self.job)
        return openlineage.traced(document, self.job)

    @abstractmethod
    def work(self, document: JobDocument, workspace: WorkspaceCatalog, context: Context) -> Any:
        """Do what this operator is for, and return a small record of it."""

    def fail(self, document: JobDocument, workspace: WorkspaceCatalog, error: KaosError) -> None:
        """Record why the job cannot succeed any more."""
        outcome = workspace.set_outcome(
            JobOutcome(
                job_id=document.job_id,
                state=JobState.FAILURE,
                reason=str(error),
                stage=self.stage,
                ended_at=datetime.now(UTC),
            )
        )
        Reproductions(workspace).conclude(document, None, outcome.reason)


def airflow_run(context: Context) -> AirflowRun:
    """Return where in Airflow a task runs, for the record of what it makes."""
    ti = context["ti"]
    return AirflowRun(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index if ti.map_index is not None else -1,
        try_number=ti.try_number,
        bundle_version=getattr(getattr(ti, "bundle_instance", None), "version", None),
        airflow_version=airflow_version,
    )
