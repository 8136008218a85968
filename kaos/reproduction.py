"""A model made again: what was asked for, and whether the same came out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from pydantic import Field

from kaos.bundle import Entry, File, Tree
from kaos.lineage import BuildRecord
from kaos.lock import packages
from kaos.value import Value

MOST = 1000
"""Differences of a kind that a record keeps; it counts the others."""


class Verdict(StrEnum):
    """What came of making a model again."""

    IDENTICAL = "identical"
    EQUAL = "equal"
    DIFFERENT = "different"
    FAILED = "failed"

    @property
    def reproduced(self) -> bool:
        """Tell whether the model counts as reproduced."""
        return self in (Verdict.IDENTICAL, Verdict.EQUAL)


class FileDifference(Value):
    """A file that is not the same in both models.

    :param original: digest of the original's, or where a link leads; None where there is none
    :param made: the same of the new model's
    """

    path: str
    original: str | None
    made: str | None

    @property
    def what(self) -> str:
        """Return what is the matter with it, in a word."""
        if self.original is None:
            return "new"
        return "missing" if self.made is None else "changed"


class MetricDifference(Value):
    """A metric that is not the same in both models.

    :param name: of one inside of others with dots between: ``confusion.0.1``
    :param original: None where the original has no such metric
    :param within: whether the two are equal within the tolerance
    """

    name: str
    original: Any
    made: Any
    within: bool


class EnvironmentDifference(Value):
    """What is not the same of the environments: ``python``, ``image``, a package.

    :param original: None where the original's had none
    """

    what: str
    original: str | None
    made: str | None


class Reproduction(Value):
    """The immutable record of a model that was made again.

    :param model_id: the model
    :param digest: of its tree
    :param original_job: that made it, whose inputs were taken
    :param trial: the index of the trial
    :param job_id: that made it again
    :param by: who asked for it
    :param tolerance: by which metrics may differ and count as equal, absolute
    :param rebuilt: the environment was built anew, not taken as it was pinned
    :param reason: why there is no model to compare, empty if there is one
    :param made: digest of the new model's tree
    :param made_id: its id
    :param files: how many files the original has
    :param changed: files that are not the same, at most `MOST`
    :param metrics: those that are not the same, at most `MOST`
    :param compared: how many metrics the original has
    :param environment: what is not the same of the environments, at most `MOST`
    :param left_out: differences that are not listed
    """

    model_id: str
    digest: str
    original_job: str
    trial: int
    job_id: str
    by: str
    submitted_at: datetime
    ended_at: datetime
    tolerance: float
    rebuilt: bool
    verdict: Verdict
    reason: str = ""
    made: str | None = None
    made_id: str | None = None
    files: int = 0
    changed: list[FileDifference] = Field(default_factory=list)
    compared: int = 0
    metrics: list[MetricDifference] = Field(default_factory=list)
    environment: list[EnvironmentDifference] = Field(default_factory=list)
    left_out: int = 0

    @property
    def shown(self) -> str:
        """Return the verdict as a person reads it."""
        if self.verdict is Verdict.IDENTICAL:
            text = "reproduced to the byte"
        elif self.verdict is Verdict.EQUAL:
            within = f" within {self.tolerance:g}" if any(each.within for each in self.metrics) else ""
            text = f"reproduced: equal metrics{within}, other files"
        elif self.verdict is Verdict.DIFFERENT:
            text = "not reproduced: another model came out"
        else:
            text = "not reproduced: no model came out"
        return f"{text}, in another environment" if self.environment else text


def judge(identical: bool, compared: int, metrics: list[MetricDifference]) -> Verdict:
    """Return the verdict on a model that came out.

    :param identical: both trees are the same
    :param compared: how many metrics the original has: without any, other files are another model
    :param metrics: those that are not the same
    """
    if identical:
        return Verdict.IDENTICAL
    equal = compared > 0 and all(each.within for each in metrics)
    return Verdict.EQUAL if equal else Verdict.DIFFERENT


def compare_files(original: Tree, made: Tree) -> list[FileDifference]:
    """Return what is not the same in two trees, by path."""
    before = {entry.path: entry for entry in original.entries}
    after = {entry.path: entry for entry in made.entries}
    return [
        FileDifference(path=path, original=_content(before.get(path)), made=_content(after.get(path)))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def compare_metrics(
    original: dict[str, Any], made: dict[str, Any], tolerance: float
) -> list[MetricDifference]:
    """Return the metrics that are not the same, those inside of others too.

    :param tolerance: by which two numbers may differ and be equal within it, absolute
    """
    return [
        MetricDifference(name=name, original=one, made=other, within=_within(one, other, tolerance))
        for name, one, other in _pairs("", original, made)
        if not _same(one, other)
    ]


def compare_environments(
    original: BuildRecord, made: BuildRecord, original_lock: str, made_lock: str
) -> list[EnvironmentDifference]:
    """Return what is not the same of what two models were made in.

    :param original_lock: text of the lock; empty for an image
    """
    found: dict[str, tuple[str | None, str | None]] = {
        "runtime": (original.runtime, made.runtime),
        "python": (original.python or None, made.python or None),
        "image": (_image(original), _image(made)),
    }
    before, after = packages(original_lock), packages(made_lock)
    found |= {name: (before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())}
    different = {what: both for what, both in found.items() if both[0] != both[1]}
    if not different and original.environment != made.environment:
        # The same packages by name: of other files, or for another platform.
        different["environment"] = (original.environment, made.environment)
    return [
        EnvironmentDifference(what=what, original=one, made=other) for what, (one, other) in different.items()
    ]


def listed(
    files: list[FileDifference], metrics: list[MetricDifference], environment: list[EnvironmentDifference]
) -> dict[str, Any]:
    """Return the fields of a record that list differences, cut to a size that can be kept."""
    kinds = (files, metrics, environment)
    return {
        "changed": list(islice(files, MOST)),
        "metrics": list(islice(metrics, MOST)),
        "environment": list(islice(environment, MOST)),
        "left_out": sum(max(0, len(each) - MOST) for each in kinds),
    }


def _content(entry: Entry | None) -> str | None:
    if entry is None:
        return None
    if isinstance(entry, File):
        return f"{entry.digest} (executable)" if entry.executable else entry.digest
    return getattr(entry, "target", "an empty directory")


def _image(build: BuildRecord) -> str | None:
    return f"sha256:{build.image.id}" if build.image is not None else None


def _pairs(name: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the values of two documents side by side, None where there is none."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from _pairs(f"{name}.{key}" if name else str(key), one.get(key), other.get(key))
    else:
        yield name, one, other


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(one: Any, other: Any) -> bool:
    if _is_number(one) and _is_number(other):
        return bool(one == other) or (_is_nan(one) and _is_nan(other))
    return type(one) is type(other) and bool(one == other)


def _within(one: Any, other: Any, tolerance: float) -> bool:
    if not (_is_number(one) and _is_number(other)):
        return False
    try:
        return bool(abs(one - other) <= tolerance)  # NaN and an infinity are within nothing
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _is_nan(value: float) -> bool:
    return isinstance(value, float) and math.isnan(value)
