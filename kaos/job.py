"""A job: one run of a definition on pinned inputs, described by one immutable document."""

from __future__ import annotations

import os
import time
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, field_validator

from kaos.names import check_definition, check_workspace, dag_id
from kaos.resources import Resources
from kaos.value import Value

TRAIN = "train"
"""The name of the definition that every workspace has."""


class JobState(StrEnum):
    """The states of a job, in the words of the original system."""

    STARTING = "JOB_STARTING"
    RUNNING = "JOB_RUNNING"
    SUCCESS = "JOB_SUCCESS"
    FAILURE = "JOB_FAILURE"
    KILLED = "JOB_KILLED"

    @property
    def ended(self) -> bool:
        """Tell whether nothing more will happen in a job of this state."""
        return self not in (JobState.STARTING, JobState.RUNNING)


class Stage(StrEnum):
    """Where a job is: the table of `train list` that shows it. One that has ended is among the trainings."""

    BUILDING = "BUILDING"
    INGESTING = "INGESTING"
    TRAINING = "TRAINING"


class BundlePin(Value):
    """A bundle as a job names it: full digest, name, number of files, bytes, and who submitted it."""

    name: str
    digest: str
    files: int
    size: int
    author: str


class Inputs(Value):
    """A workspace's current inputs: what a deploy that does not name them takes."""

    source: BundlePin | None = None
    data: BundlePin | None = None

    def merge(self, other: Inputs) -> Inputs:
        """Return these inputs with those that `other` has put in their place."""
        return self.model_copy(update={key: pin for key, pin in other if pin is not None})

    @property
    def lacking(self) -> list[str]:
        """Return what is missing before a job can start."""
        return [key for key in ("source", "data") if getattr(self, key) is None]


class JobDocument(Value):
    """Everything that a job runs on. Its digest, in the Airflow run's conf, pins all of it.

    :param job_id: 32 hexadecimal characters; of a deployed job Airflow's `dag_run_id` too
    :param dag_id: the DAG that runs it
    :param run_id: the run of that DAG
    :param submitted_at: time of the deploy, UTC
    """

    version: Literal[1] = 1
    kind: Literal["train"] = "train"
    job_id: str
    workspace: str
    definition: str
    dag_id: str
    run_id: str
    source: BundlePin
    data: BundlePin
    params: dict[str, Any] = Field(default_factory=dict)
    resources: Resources
    runtime: str
    author: str
    submitted_at: datetime
    kaos_version: str


class Trial(Value):
    """One point of a job's hyperparameter space; a job without hyperparameters has one trial.

    :param index: its number in the job, from 0
    :param name: the parameters as a person reads them, such as ``degree=5 gamma=0.1``
    """

    index: int
    name: str
    params: dict[str, Any] = Field(default_factory=dict)


class Definition(Value):
    """What Airflow has to know of jobs ahead of time; a DAG is generated for each definition.

    :param schedule: a cron expression, or None for jobs that only a deploy starts
    :param parallelism: trials of one job at a time
    :param retries: how often a trial is tried again after a fault that was not the script's
    """

    workspace: str
    name: str = TRAIN
    kind: Literal["train"] = "train"
    schedule: str | None = None
    parallelism: int = Field(default=4, ge=1, le=1000)
    retries: int = Field(default=1, ge=0, le=100)

    @field_validator("workspace")
    @classmethod
    def _workspace(cls, name: str) -> str:
        return check_workspace(name)

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_definition(name)

    @property
    def dag_id(self) -> str:
        """Return the id of the DAG that is generated for this definition."""
        return dag_id(self.workspace, self.name)


class JobOutcome(Value):
    """How a job ended, in the store: what remains of it when Airflow's history is cleaned.

    :param reason: for people, empty after a success
    :param models: ids of the models that it registered
    """

    job_id: str
    state: JobState
    reason: str = ""
    stage: Stage = Stage.TRAINING
    started_at: datetime | None = None
    ended_at: datetime
    models: list[str] = Field(default_factory=list)
    by: str = ""


def trials(document: JobDocument) -> list[Trial]:
    """Return the trials of a job."""
    return [Trial(index=0, name="train", params=document.params)]


def new_job_id() -> str:
    """Return a new unique id of 32 hexadecimal characters that sorts by time (UUID version 7)."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000  # RFC 9562, method 3: what sorts ids of the same millisecond
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return f"{milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | random:032x}"
