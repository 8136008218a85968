"""Models of jobs side by side."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable
from typing import Any

from kaos.errors import UnknownNameError
from kaos.model import JobSummary, TrialSummary, sort_key
from kaos_cli.output import print_json, print_table, say


def best(summary: JobSummary, metric: str, *, ascending: bool) -> TrialSummary:
    """Return the trial with the best model.

    :raises UnknownNameError: no model has a number for this metric
    """
    found = [
        trial
        for trial in summary.trials
        if trial.model_id is not None and not math.isnan(trial.metrics.get(metric, math.nan))
    ]
    if not found:
        raise UnknownNameError(
            "metric", metric, summary.metrics, "See kaos train info for the metrics there are."
        )
    return min(found, key=lambda trial: sort_key(trial.metrics[metric], ascending=ascending))


def rows(
    jobs: Iterable[tuple[str, JobSummary]], metric: str | None, *, ascending: bool
) -> list[dict[str, Any]]:
    """Return a row per model: job, model, hyperparameters, and all metrics or the one that sorts."""
    found = [(job_id, trial) for job_id, summary in jobs for trial in summary.trials]
    if metric is not None:
        found.sort(key=lambda pair: sort_key(pair[1].metrics.get(metric), ascending=ascending))
    params = sorted({name for _, trial in found for name in trial.params})
    metrics = (
        [metric] if metric is not None else sorted({name for _, trial in found for name in trial.metrics})
    )
    return [
        {
            "job_id": job_id,
            "model_id": trial.model_id,
            **{name: trial.params.get(name) for name in params},
            **{name: trial.metrics.get(name) for name in metrics},
            "reused_from": trial.reused_from,
            "reason": "running" if trial.running else trial.reason,
        }
        for job_id, trial in found
    ]


def show(found: list[dict[str, Any]], output: str) -> None:
    """Print the rows as a table, JSON or CSV."""
    if output == "json":
        print_json(found)
    elif not found:
        say("These jobs have no model yet.")
    elif output == "csv":
        writer = csv.DictWriter(sys.stdout, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    else:
        optional = ("reused_from", "reason")
        columns = [name for name in found[0] if name not in optional or any(row[name] for row in found)]
        print_table(columns, [[_cell(row[name]) for name in columns] for row in found])


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
