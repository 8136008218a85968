"""What `kaos train compare --plot` draws: which trials, parameters, metrics and curves; no drawing yet."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaos.errors import InvalidInputError, UnknownNameError
from kaos.model import JobSummary, TrialSummary, sort_key
from kaos.schema.job import JobCurves
from kaos_cli.output import done

if TYPE_CHECKING:
    from kaos_cli.client import WorkspaceClient

FORMATS = (".png", ".svg", ".pdf")
MOST_METRICS = 6
MOST_PARAMETERS = 8

_SHORT_JOB = 14
_LARGEST = 1e100


@dataclass(frozen=True)
class Line:
    """A learning curve: of which trial, its label, step and value by step."""

    label: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Point:
    """A trial as a point: the job's place, its parameters as drawn, its metrics."""

    job: int
    params: dict[str, Any]
    metrics: dict[str, float]
    label: str

    def value(self, metric: str) -> float | None:
        """Return a number that can be drawn, or None."""
        value = self.metrics.get(metric)
        return value if value is not None and abs(value) < _LARGEST else None


@dataclass(frozen=True)
class Sheet:
    """Everything that is drawn.

    :param jobs: what the jobs are called, in their order
    :param parameters: names of those that differ between trials; `job` or `trial` where none does
    :param ranges: parameters that were drawn from a range, and whether that was logarithmic
    :param lines: learning curves by metric
    :param notes: what is said below the panels
    """

    jobs: list[str]
    points: list[Point]
    parameters: list[str]
    ranges: dict[str, bool]
    metrics: list[str]
    lines: dict[str, list[Line]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    best: dict[str, Point] = field(default_factory=dict)


def check(path: Path) -> Path:
    """Return where the picture goes.

    :raises InvalidInputError: it cannot be drawn, or not in this format
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidInputError(
            f"{path} cannot be drawn: its name ends with none of {', '.join(FORMATS)}.",
            "Write --plot FILE.png, say.",
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise InvalidInputError(
            "Drawing needs matplotlib, which is not installed.",
            "Install it: pip install 'airflow-provider-kaos[plot]'",
        )
    return path


def plot(
    client: WorkspaceClient,
    jobs: Sequence[tuple[str, JobSummary]],
    metric: str | None,
    path: Path,
    *,
    ascending: bool,
) -> None:
    """Draw jobs with the learning curves of their models."""
    from kaos_cli.train_draw import draw  # matplotlib takes half a second to import

    curves = [client.curves(job_id, metrics_of(jobs, metric)[:MOST_METRICS]) for job_id, _ in jobs]
    draw(sheet(jobs, curves, metric, ascending=ascending), path)
    done(f"wrote {path}")


def metrics_of(jobs: Sequence[tuple[str, JobSummary]], metric: str | None) -> list[str]:
    """Return the metric that is asked for, or all numeric ones of models, by name."""
    if metric is not None:
        return [metric]
    return sorted({name for _, summary in jobs for trial in _ended(summary) for name in trial.metrics})


def sheet(
    jobs: Sequence[tuple[str, JobSummary]],
    curves: Sequence[JobCurves],
    metric: str | None,
    *,
    ascending: bool,
) -> Sheet:
    """Return what is drawn of some jobs and their curves.

    :raises UnknownNameError: no trial has a number for the metric
    :raises InvalidInputError: no trial has ended, or none has a metric
    """
    ended = [(place, trial) for place, (_, summary) in enumerate(jobs) for trial in _ended(summary)]
    known = metrics_of(jobs, None)
    known += sorted({each.metric for found in curves for each in found.curves} - set(known))
    if not ended or not known:
        raise InvalidInputError(
            "There is nothing to draw: these jobs have no metric yet.", "See kaos train info."
        )
    if metric is not None and metric not in known:
        raise UnknownNameError("metric", metric, known, f"These jobs have {', '.join(known)}.")
    names = [f"job {job_id[:_SHORT_JOB]}" for job_id, _ in jobs]
    varying, constant = _parameters([trial.params for _, trial in ended])
    parameters = varying or (["job"] if len(jobs) > 1 else ["trial"])
    points = {
        (place, trial.index): Point(
            job=place,
            params=trial.params if varying else {"job": names[place], "trial": trial.name},
            metrics=trial.metrics,
            label=_label(trial, varying, jobs[place][0][:_SHORT_JOB] if len(jobs) > 1 else ""),
        )
        for place, trial in ended
    }
    chosen = [metric] if metric is not None else known[:MOST_METRICS]
    lines: dict[str, list[Line]] = {}
    for place, found in enumerate(curves):
        for curve in found.curves:
            if curve.metric in chosen and (place, curve.index) in points:
                line = Line(points[place, curve.index].label, curve.points)
                lines.setdefault(curve.metric, []).append(line)
    best = {} if metric is None else _best(list(points.values()), metric, ascending=ascending)
    return Sheet(
        jobs=names,
        points=list(points.values()),
        parameters=parameters[:MOST_PARAMETERS],
        ranges={name: log for found in curves for name, log in found.ranges.items()},
        metrics=chosen,
        lines=lines,
        notes=_notes(jobs, constant, parameters, known if metric is None else chosen, curves),
        best=best,
    )


def _ended(summary: JobSummary) -> list[TrialSummary]:
    return [trial for trial in summary.trials if not trial.running]


def _parameters(params: list[dict[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """Return the names of those that differ, and those that do not."""
    names = sorted({name for each in params for name in each})
    values = {name: {repr(each.get(name)) for each in params} for name in names}
    varying = [name for name in names if len(values[name]) > 1]
    return varying, {name: params[0].get(name) for name in names if name not in varying}


def _label(trial: TrialSummary, varying: list[str], job: str) -> str:
    shown = " ".join(f"{name}={show_value(trial.params.get(name))}" for name in varying)
    return " ".join(part for part in (job, shown or ("" if job else trial.name)) if part)


def _best(points: list[Point], metric: str, *, ascending: bool) -> dict[str, Point]:
    found = [point for point in points if point.value(metric) is not None]
    if len(found) < 2:
        return {}
    return {metric: min(found, key=lambda point: sort_key(point.value(metric), ascending=ascending))}


def _notes(
    jobs: Sequence[tuple[str, JobSummary]],
    constant: dict[str, Any],
    parameters: list[str],
    metrics: list[str],
    curves: Sequence[JobCurves],
) -> list[str]:
    trials = [trial for _, summary in jobs for trial in summary.trials]
    running = sum(trial.running for trial in trials)
    failed = sum(bool(trial.reason) for trial in trials)
    of_jobs = f" of {len(jobs)} jobs" if len(jobs) > 1 else ""
    head = [f"{len(trials) - running} trial{'s' if len(trials) - running != 1 else ''}{of_jobs}"]
    head += [f"{failed} failed"] if failed else []
    head += [f"{running} still running, not shown"] if running else []
    notes = [", ".join(head)]
    if constant:
        notes.append("all with " + ", ".join(f"{name}={show_value(v)}" for name, v in constant.items()))
    if len(parameters) > MOST_PARAMETERS:
        notes.append(f"{len(parameters) - MOST_PARAMETERS} more parameters not shown")
    if len(metrics) > MOST_METRICS:
        notes.append(f"{len(metrics) - MOST_METRICS} more metrics not shown: -s METRIC")
    if left_out := sum(found.left_out for found in curves):
        notes.append(f"curves of {left_out} more trials not shown")
    return notes


def show_value(value: Any) -> str:
    """Return a value of a parameter as a label."""
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value).strip('"')
