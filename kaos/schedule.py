"""When jobs of a workspace start by themselves, what they run with, and what becomes of their models."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Self

from pydantic import Field, field_validator, model_validator

from kaos.errors import InvalidScheduleError
from kaos.gate import Condition
from kaos.names import check_endpoint
from kaos.resources import Resources
from kaos.value import Value

SHORTEST, LONGEST = 5.0, 366 * 86400.0
"""Seconds between two runs, at least and at most."""

CHECK_EVERY = 900.0
"""Seconds after which a schedule on data asks again whether its manifest's files have changed."""

ANSWER_WITHIN = 7 * 86400.0
"""Seconds that a model waits for a person's approval."""

_INTERVAL = re.compile(r"([0-9]{1,9})\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Promotion(Value):
    """Where a schedule's models go.

    :param condition: what a model must meet, in the words of `kaos.gate`
    :param metric: of the condition, that chooses the best of a job's models; None for its first
    :param approve: a person has to agree
    :param answer_within: seconds until that person has said no
    """

    endpoint: str
    condition: str
    metric: str | None = None
    approve: bool = False
    answer_within: float = Field(default=ANSWER_WITHIN, ge=SHORTEST, le=LONGEST)

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, name: str) -> str:
        return check_endpoint(name)

    @model_validator(mode="after")
    def _metric_is_of_the_condition(self) -> Self:
        known = Condition(self.condition).metrics
        if self.metric is not None and self.metric not in known:
            raise InvalidScheduleError(
                f"The condition does not ask for the metric {self.metric!r}.",
                f"Choose one that it asks for: {', '.join(known)}.",
            )
        return self

    @property
    def decisive(self) -> tuple[str, bool]:
        """Return the metric that chooses the best of a job's models, and whether the lowest is the best."""
        condition = Condition(self.condition)
        metric = self.metric or condition.metrics[0]
        return metric, condition.lower_is_better(metric)


class JobSettings(Value):
    """What a schedule's jobs run with, as in a deploy; the names are those of `JobDocument`."""

    parallelism: int = Field(default=4, ge=1, le=1000)
    max_failed: int | None = Field(default=None, ge=0)
    retries: int = Field(default=0, ge=0, le=100)
    retry_errors: bool = False
    reuse: bool = False
    resources: Resources = Resources()
    runtime: str | None = None
    network: bool | None = None


class Schedule(Value):
    """When a job starts by itself: by one of `cron`, `every` and `on_data`.

    :param cron: five fields, or a word such as ``@daily``
    :param timezone: that the fields are in
    :param every: seconds from one run to the next
    :param on_data: when there is new data
    :param check_every: seconds after which files of a manifest are asked for changes, with `on_data`
    :param always: train though nothing has changed
    :param author: who made the schedule, and so its jobs
    """

    cron: str | None = None
    timezone: str = "UTC"
    every: float | None = Field(default=None, ge=SHORTEST, le=LONGEST)
    on_data: bool = False
    check_every: float = Field(default=CHECK_EVERY, ge=SHORTEST, le=LONGEST)
    always: bool = False
    paused: bool = False
    job: JobSettings = JobSettings()
    promotion: Promotion | None = None
    author: str
    created_at: datetime

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if (self.cron is not None) + (self.every is not None) + self.on_data != 1:
            raise InvalidScheduleError(
                "A schedule has one kind of time.", "Give one of --cron, --every and --on-data."
            )
        if self.always and self.on_data:
            raise InvalidScheduleError(
                "--on-data runs when data has changed, never always.", "Use --always with --cron or --every."
            )
        return self

    @property
    def when(self) -> str:
        """Return when it runs, for people."""
        if self.cron is not None:
            return f"{self.cron} ({self.timezone})"
        return "on new data" if self.every is None else f"every {show_interval(self.every)}"


def parse_interval(text: str) -> float:
    """Return the seconds that ``90s``, ``15m``, ``6h``, ``1d`` or ``2w`` stand for.

    :raises InvalidScheduleError: it is no such time, or out of bounds
    """
    found = _INTERVAL.fullmatch(text.strip())
    if found is None:
        raise InvalidScheduleError(
            f"{text!r} is no time between two runs.", "Give a number and one of s, m, h, d, w, such as 6h."
        )
    seconds = float(int(found[1]) * _SECONDS[found[2]])
    if not SHORTEST <= seconds <= LONGEST:
        raise InvalidScheduleError(
            f"{text!r} is out of bounds.",
            f"Between {show_interval(SHORTEST)} and {show_interval(LONGEST)} is possible.",
        )
    return seconds


def show_interval(seconds: float) -> str:
    """Return a time between two runs as it may be given: ``6h``."""
    for unit in ("d", "h", "m"):
        if seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s"
