"""The operations on models that are made again."""

from __future__ import annotations

from kaos.reproduction import Reproduction
from kaos.schema.reproduction import ReproductionRequest, ReproductionStarted
from kaos_cli.client import WorkspaceClient, segment


class ReproductionsClient(WorkspaceClient):
    """The models of one workspace that are made again."""

    def start(self, request: ReproductionRequest) -> ReproductionStarted:
        """Start a job that makes a model again."""
        return self._call(ReproductionStarted, "POST", f"{self._at}/reproductions", body=request)

    def of_job(self, job_id: str) -> Reproduction:
        """Return what came of such a job."""
        job = segment("job", job_id, "See kaos train list.")
        return self._get(Reproduction, f"{self._at}/reproductions/{job}")
