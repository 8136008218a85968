"""Schedules as they are set, listed and answered."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from kaos.job import JobState
from kaos.schedule import CHECK_EVERY, LONGEST, SHORTEST, JobSettings, Promotion, Schedule
from kaos.value import Value


class ScheduleSet(Value):
    """When jobs shall start by themselves; the fields are those of `Schedule`."""

    cron: str | None = None
    timezone: str = "UTC"
    every: float | None = Field(default=None, ge=SHORTEST, le=LONGEST)
    on_data: bool = False
    check_every: float = Field(default=CHECK_EVERY, ge=SHORTEST, le=LONGEST)
    always: bool = False
    job: JobSettings = JobSettings()
    promotion: Promotion | None = None


class LastRun(Value):
    """What the last run of a schedule came to.

    :param state: of its job; None of a run that became none
    :param skipped: it became no job because there was nothing to do
    :param reason: why there is no job, why it failed, or what became of its model
    """

    at: datetime
    job_id: str | None
    state: JobState | None
    skipped: bool
    reason: str


class ScheduleRow(Value):
    """A schedule in a list.

    :param when: for people
    :param next: when it runs next; None of one that is paused, or that waits for data
    :param waiting: id of the job whose model waits for somebody's approval
    :param url: of its DAG, on the API server
    """

    name: str
    when: str
    paused: bool
    next: datetime | None
    last: LastRun | None
    waiting: str | None = None
    dag_id: str
    url: str
    schedule: Schedule


class ScheduleList(Value):
    """The schedules of a workspace, by name."""

    schedules: list[ScheduleRow] = Field(default_factory=list)


class ScheduleDeleted(Value):
    """What went with a schedule.

    :param stopped_jobs: ids of its jobs that ran
    """

    name: str
    stopped_jobs: list[str]
