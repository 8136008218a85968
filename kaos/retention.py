"""Which models of a workspace go, by its policy: pure, on facts that were read before.

A policy keeps the models of the newest jobs, and models that are young; what it does not keep stays anyway if
somebody needs it (an endpoint, a tag, a job that runs). Without a policy nothing goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import Field

from kaos.value import Value

LONGEST = 36_500.0
"""Days that a policy can keep models for, at most."""


class RetentionPolicy(Value):
    """What a workspace keeps; a model stays if either rule keeps it. With neither of them all models stay.

    :param keep_last: of each job definition the newest jobs that made models, so many of them
    :param keep_days: jobs that ended less than so many days ago
    """

    keep_last: int | None = Field(default=None, ge=0)
    keep_days: float | None = Field(default=None, ge=0, le=LONGEST)

    @property
    def is_set(self) -> bool:
        """Tell whether it lets anything go."""
        return self.keep_last is not None or self.keep_days is not None

    @property
    def shown(self) -> str:
        """Return it in words."""
        rules = []
        if self.keep_last:
            rules.append(
                f"the models of the newest {'job' if self.keep_last == 1 else f'{self.keep_last} jobs'}"
            )
        if self.keep_days is not None:
            rules.append(f"models younger than {self.keep_days:g} day{'' if self.keep_days == 1 else 's'}")
        if self.is_set and not rules:
            return "keep no models but those in use"
        return f"keep {' and '.join(rules)}" if rules else "keep all models"


class Note(Value):
    """What remains of something that was removed: when, by whom, and why.

    :param by: who ran the collection; ``kaos`` where the maintenance DAG did
    :param why: the policy, in words
    """

    by: str
    at: datetime
    why: str

    @property
    def shown(self) -> str:
        """Return it in words, as the end of a sentence."""
        return f"removed by retention on {self.at:%a, %d %b %Y %H:%M} UTC by {self.by} ({self.why})"


class Tombstone(Value):
    """What happened to a model: it was removed, or it came back. The newest tells how it is.

    :param removed: None where the model came back
    :param back: why it came back: a job that made it again, or what needed it; empty if it was removed
    """

    model_id: str
    digest: str
    files: int
    size: int
    removed: Note | None = None
    back: str = ""
    at: datetime


class PolicyChange(Value):
    """A policy that somebody set for a workspace; the newest one holds."""

    policy: RetentionPolicy
    by: str
    at: datetime


@dataclass(frozen=True)
class JobFacts:
    """What the policy looks at of a job.

    :param order: sorts the jobs by age; job ids do
    :param ended_at: None while it runs
    :param models: ids of the models that it made
    """

    job_id: str
    definition: str
    ended_at: datetime | None
    models: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """What stays and what goes.

    :param kept: why each model stays that does, by its id
    :param removed: ids of the models that go
    :param gone: ids of the jobs of which nothing but the records stays
    """

    kept: Mapping[str, str]
    removed: frozenset[str]
    gone: frozenset[str]


def decide(
    policy: RetentionPolicy,
    jobs: Iterable[JobFacts],
    needed: Mapping[str, str],
    before: frozenset[str],
    now: datetime,
) -> Decision:
    """Return which models and jobs of a workspace go.

    :param needed: models that stay whatever the policy says, each with the reason, such as ``tag production``
    :param before: models and jobs that an earlier collection removed and that have not come back
    """
    known = sorted(jobs, key=lambda job: job.job_id, reverse=True)
    kept_jobs = _kept_jobs(policy, known, now)
    made: dict[str, list[JobFacts]] = {}
    for job in known:
        for model in job.models:
            made.setdefault(model, []).append(job)
    kept: dict[str, str] = {}
    for model, makers in made.items():
        reasons = [kept_jobs[job.job_id] for job in makers if job.job_id in kept_jobs]
        if model in needed:
            kept[model] = needed[model]
        elif model not in before and reasons:
            kept[model] = reasons[0]
    gone = frozenset(
        job.job_id
        for job in known
        if job.ended_at is not None
        and (policy.is_set or job.job_id in before)
        and not _stays(job, kept, kept_jobs, before)
    )
    return Decision(kept, frozenset(made) - kept.keys(), gone)


def _kept_jobs(policy: RetentionPolicy, known: list[JobFacts], now: datetime) -> dict[str, str]:
    """Return why each job is kept that is, newest first: those that made no model too, in the same window."""
    found: dict[str, str] = {}
    counted: dict[str, int] = {}
    for job in known:
        count = counted.get(job.definition, 0)
        if job.ended_at is None:
            found[job.job_id] = "its job runs"
            continue
        if not policy.is_set:
            found[job.job_id] = "no policy"
        elif policy.keep_last is not None and count < policy.keep_last:
            found[job.job_id] = f"among the newest {policy.keep_last}"
        elif policy.keep_days is not None and now - job.ended_at < timedelta(days=policy.keep_days):
            found[job.job_id] = f"younger than {policy.keep_days:g} days"
        if job.models:
            counted[job.definition] = count + 1
    return found


def _stays(
    job: JobFacts, kept: Mapping[str, str], kept_jobs: Mapping[str, str], before: frozenset[str]
) -> bool:
    """Tell whether more of a job is needed than its records."""
    if any(model in kept for model in job.models):
        return True
    return not job.models and job.job_id in kept_jobs and job.job_id not in before
