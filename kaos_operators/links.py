"""From a task in Airflow's UI to kaos' own record of its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class JobLink(BaseOperatorLink):
    """Lead to the page of the job that a task belongs to."""

    name = "kaos job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's address, which the operator knows once it has opened its job."""
        return str(getattr(operator, "job_page", ""))


def job_page(workspace: str, job_id: str) -> str:
    """Return the address of a job's page on the API server."""
    return f"/kaos/ui/workspaces/{workspace}/jobs/{job_id}"
