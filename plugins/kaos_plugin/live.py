"""What trials that still run have told of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos.model import JobSummary, TrialSummary

if TYPE_CHECKING:
    from kaos.catalog import WorkspaceCatalog
    from kaos.curves import LiveTrial

SHOWN = 20


def running(workspace: WorkspaceCatalog, job_id: str, ended: JobSummary) -> list[LiveTrial]:
    """Return the newest metrics of a job's trials that have not ended."""
    known = {trial.index for trial in ended.trials}
    return [trial for trial in workspace.live(job_id) if trial.index not in known]


def with_running(ended: JobSummary, live: list[LiveTrial]) -> JobSummary:
    """Return a summary with the trials that run among those that have ended."""
    if not live:
        return ended
    more = [
        TrialSummary(
            index=trial.index,
            name=trial.name,
            params=trial.params,
            model_id=None,
            digest=None,
            reason="",
            metrics=trial.metrics,
            running=True,
            step=trial.step,
        )
        for trial in live
    ]
    return JobSummary.of([*ended.trials, *more])
