"""A model: what a trial wrote to its output directory, with everything that made it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from pydantic import Field

from kaos.digest import SHORT, shortest_prefix
from kaos.errors import InvalidInputError
from kaos.job import JobDocument, Trial
from kaos.lineage import AirflowRun, BuildRecord, TrialRecord
from kaos.value import Value

METRICS = "metrics/metrics.json"
"""Where, in its output directory, a `train` script writes its metrics."""

_SHORT_MODEL = 6


class ModelRecord(Value):
    """The immutable record of a model: its content, its metrics, and its full lineage.

    :param model_id: ``<source>_<data>[_<params>]:<model>``, prefixes of the digests, unique in the workspace
    :param digest: of the tree that the trial wrote
    :param metrics: what the trial wrote to ``metrics/metrics.json``; values may be of any JSON type
    """

    model_id: str
    digest: str
    files: int
    size: int
    job: JobDocument
    job_digest: str
    trial: Trial
    build: BuildRecord
    run: TrialRecord
    airflow: AirflowRun
    metrics: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime


class ImportRecord(Value):
    """A model that was not trained here: its content, and who brought it.

    :param model_id: ``<name>:<beginning of the digest>``
    """

    model_id: str
    name: str
    digest: str
    files: int
    size: int
    imported_by: str
    imported_at: datetime


class TagMove(Value):
    """A tag was given to a model, or taken away.

    :param name: the tag
    :param model_id: that it names since then; None once it was taken away
    :param by: who did it: a user, or what acted for one
    :param why: for people; empty if nobody said
    :param before: digest of the move before this one, an object in the store; None of the first
    """

    name: str
    model_id: str | None
    by: str
    at: datetime
    why: str = ""
    before: str | None = None


class ListedModel(Value):
    """A model in a list.

    :param digest: of its tree
    :param job_id: that made it, None if it was imported
    :param by: who deployed the job, or imported the model
    :param at: when that ended
    :param tags: that name it
    :param removed: when, by whom and why retention removed it, in words; empty if it is there
    """

    model_id: str
    digest: str
    files: int
    size: int
    job_id: str | None
    by: str
    at: datetime
    tags: list[str] = Field(default_factory=list)
    removed: str = ""


class TrialSummary(Value):
    """A trial in one line of a job's summary.

    :param model_id: None if it failed
    :param digest: of the model's tree
    :param metrics: the numeric ones
    :param reused_from: the job that the model was taken over from
    :param running: it has not ended; its metrics are the newest that it wrote
    :param step: where in the training those are
    """

    index: int
    name: str
    params: dict[str, Any]
    model_id: str | None
    digest: str | None
    reason: str
    metrics: dict[str, float]
    reused_from: str | None = None
    running: bool = False
    step: float | None = None

    @classmethod
    def of(cls, record: TrialRecord, model_id: str | None = None) -> TrialSummary:
        """Return the line of a trial that has ended."""
        return cls(
            index=record.index,
            name=record.name,
            params=record.params,
            model_id=model_id,
            digest=record.model,
            reason=record.reason,
            metrics=record.metrics,
            reused_from=record.reused_from,
        )


class JobSummary(Value):
    """All trials of a job that have ended, so that thousands are listed from one object.

    :param metrics: names of all metrics, those that are no numbers among them
    """

    trials: list[TrialSummary]
    metrics: list[str]

    @classmethod
    def of(cls, trials: Iterable[TrialSummary]) -> JobSummary:
        """Return the summary of these trials, by index, with the names of their numeric metrics."""
        found = sorted(trials, key=lambda trial: trial.index)
        return cls(trials=found, metrics=sorted({name for trial in found for name in trial.metrics}))


def model_id(document: JobDocument, digest: str, taken: Callable[[str], str | None]) -> str:
    """Return the shown id of a model, lengthened until it is no other model's.

    :param digest: of the model's tree
    :param taken: returns the full identity behind an id of the workspace, or None where it is free
    """
    identity = model_identity(document, digest)
    for more in range(len(digest)):
        inputs = "_".join(each[: SHORT + more] for each in _inputs(document))
        key = f"{inputs}:{digest[: _SHORT_MODEL + more]}"
        if taken(key) in (None, identity):
            return key
    return identity


def model_identity(document: JobDocument, digest: str) -> str:
    """Return the full digests behind a model's id."""
    return f"{'_'.join(_inputs(document))}:{digest}"


def _inputs(document: JobDocument) -> list[str]:
    pins = [document.source, document.pinned_data, document.params]
    return [pin.digest for pin in pins if pin is not None]


def short_model(digest: str, others: Iterable[str] = ()) -> str:
    """Return a model's digest as a directory of `train get` shows it."""
    return shortest_prefix(digest, others, least=_SHORT_MODEL)


def read_metrics(content: bytes) -> dict[str, Any]:
    """Return the metrics in a ``metrics.json``: a JSON object, NaN and infinities allowed.

    :raises InvalidInputError: it is not one
    """
    try:
        metrics = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{METRICS} is not valid JSON: {error}.", "Write it with json.dump."
        ) from error
    if not isinstance(metrics, dict):
        raise InvalidInputError(f"{METRICS} is not a JSON object.", 'Write {"name": value, ...}.')
    return metrics


def numeric(metrics: dict[str, Any]) -> dict[str, float]:
    """Return those of the metrics that are numbers, NaN and infinities among them."""
    return {name: value for name in metrics if (value := score(metrics, name)) is not None}


def score(metrics: dict[str, Any], name: str) -> float | None:
    """Return the numeric metric `name`, or None where it is missing or no number."""
    value = metrics.get(name)
    if isinstance(value, float):
        return value
    try:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def sort_key(value: float | None, *, ascending: bool) -> tuple[int, float]:
    """Return a key that sorts numbers, then NaN, then what is missing, either way round."""
    if value is None:
        return 2, 0.0
    if math.isnan(value):
        return 1, 0.0
    return 0, value if ascending else -value
