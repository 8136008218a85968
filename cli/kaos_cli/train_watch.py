"""Follow a job while it runs."""

from __future__ import annotations

import time

import click

from kaos.curves import LiveTrial, show
from kaos.errors import JobFailedError
from kaos.job import JobState
from kaos.schema.job import JobInfo
from kaos_cli.client import WorkspaceClient
from kaos_cli.output import StatusLine, done, say

_INTERVAL = 0.3
_METRICS_SECONDS = 1.0
_GONE = ("failed", "upstream_failed", "skipped")


class MetricsLines:
    """Lines such as ``metrics: loss=0.3 step=10``: of what changed, one a second and trial at most.

    They go to standard error: a script's own lines stay what they are.
    """

    def __init__(self) -> None:
        self._said: dict[int, tuple[float, str]] = {}

    def say(self, trial: LiveTrial, name: str = "") -> None:
        """Show a trial's newest metrics unless that was done, or a second has not passed."""
        line, now = show(trial.step, trial.metrics), time.monotonic()
        before, last = self._said.get(trial.index, (-_METRICS_SECONDS, ""))
        if line != last and now - before >= _METRICS_SECONDS:
            self._said[trial.index] = now, line
            say(f"{name} metrics: {line}".lstrip())


def follow_log(client: WorkspaceClient, job_id: str, kind: str, *, follow: bool) -> None:
    """Print the lines of a log; with `follow` until nothing more comes."""
    chunk, metrics = client.logs(job_id, kind, "0"), MetricsLines()
    status = StatusLine()
    while True:
        if chunk.progress is not None:
            status.show(f"Downloading: {chunk.progress}")
        if chunk.lines or chunk.progress is None:
            status.clear()
        for line in chunk.lines:
            click.echo(line)
        if follow and chunk.live is not None:
            metrics.say(chunk.live)
        if chunk.ended or not follow:
            status.clear()
            return
        if not chunk.lines:
            time.sleep(_INTERVAL)
        chunk = client.logs(job_id, kind, chunk.position)


def wait_for_job(client: WorkspaceClient, job_id: str) -> None:
    """Show the stages of a job as they pass.

    :raises JobFailedError: the job ended in another state than success
    """
    shown: set[str] = set()
    status, metrics = StatusLine(), MetricsLines()
    while True:
        job = client.job(job_id)
        if job.progress is not None:
            status.show(f"   Downloading: {job.progress.shown}")
        else:
            status.clear()
        for trial in job.live:
            metrics.say(trial, name=trial.name if trial.params else "")
        for stage in job.stages:
            if stage.state == "success" and stage.task_id not in shown:
                status.clear()
                shown.add(stage.task_id)
                done(f"{stage.task_id:<12} {stage.seconds or 0:6.1f} s")
            elif stage.state in _GONE and stage.task_id not in shown:
                status.clear()
                shown.add(stage.task_id)
                say(f" ✗ {stage.task_id:<12} {stage.state}")
        if job.state.ended:
            break
        time.sleep(_INTERVAL)
    _finish(job)


def _finish(job: JobInfo) -> None:
    if job.state is not JobState.SUCCESS:
        raise JobFailedError(
            f"Job {job.job_id} ended as {job.state}: {job.reason}".rstrip(),
            f"See kaos train logs -j {job.job_id}, kaos train build-logs -j {job.job_id}.",
        )
    models = [model.model_id for model in job.models if model.model_id]
    more = f" and more: kaos train info -j {job.job_id}" if job.pages > 1 else ""
    say(f"{job.state} after {job.duration or 0:.1f} s: {', '.join(models)}{more}")
