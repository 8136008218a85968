"""The learning curves of a job, read from its models within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaos import history
from kaos.schema.job import Curve, JobCurves

if TYPE_CHECKING:
    from kaos.catalog import WorkspaceCatalog
    from kaos.job import JobDocument
    from kaos.model import JobSummary

_METRICS = 6
_TRIALS = 200
_POINTS = 100
_BYTES = 32 << 20


def job_curves(
    workspace: WorkspaceCatalog, document: JobDocument, summary: JobSummary, metrics: list[str]
) -> JobCurves:
    """Return the curves of the metrics that are asked for, and of others up to six in all."""
    by_trial: dict[int, dict[str, history.Points]] = {}
    left_out = size = 0
    for trial in summary.trials:
        if trial.digest is None:
            continue
        model = workspace.output_tree(trial.digest)
        wanted = sum(file.size for file in history.live_files(model))
        if not wanted:
            continue
        if len(by_trial) == _TRIALS or size + wanted > _BYTES:
            left_out += 1
            continue
        size += wanted
        by_trial[trial.index] = history.curves(model, workspace.store.objects, _POINTS)
    names = sorted({name for found in by_trial.values() for name in found})
    chosen = sorted(names, key=lambda name: (name not in metrics, name))[: max(_METRICS, len(metrics))]
    space = workspace.space(document.params)
    return JobCurves(
        curves=[
            Curve(index=index, metric=name, points=found[name])
            for index, found in by_trial.items()
            for name in chosen
            if name in found
        ],
        ranges={name: each.log for name, each in space.ranges.items()} if space else {},
        left_out=left_out,
    )
