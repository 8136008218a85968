"""A job: one run of a definition on pinned inputs, described by one immutable document."""

from __future__ import annotations

import os
import time
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from kaos.errors import ConflictError
from kaos.names import check_definition, check_workspace, dag_id
from kaos.parameters import Space, point_name
from kaos.resources import Resources
from kaos.schedule import Schedule
from kaos.value import Value

TRAIN = "train"
"""The name of the definition that every workspace has."""

WATCH = "watch"
"""The name of the definition that asks whether a manifest's files have changed."""


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


class ManifestPin(Value):
    """A data manifest as a job names it.

    :param name: of the directory it is in, and so of the data bundle it gives
    :param digest: SHA-256 of its canonical form
    :param content: digest of the file as it was submitted, an object in the store: errors name its lines
    :param files: how many it names
    :param size: their bytes, or None if it does not give all of them
    """

    name: str
    digest: str
    content: str
    files: int
    size: int | None
    author: str


class ParametersPin(Value):
    """Hyperparameters as a job names them.

    :param digest: of the canonical `Space`, an object in the store
    :param name: of the file that was submitted
    :param trials: how many they give
    """

    name: str
    digest: str
    trials: int
    author: str


class Inputs(Value):
    """A workspace's current inputs: what a deploy that does not name them takes.

    :param manifest: in the place of `data`: each job downloads what has changed
    """

    source: BundlePin | None = None
    data: BundlePin | None = None
    manifest: ManifestPin | None = None
    params: ParametersPin | None = None

    def merge(self, other: Inputs) -> Inputs:
        """Return these inputs with those that `other` has put in their place."""
        changed: dict[str, Any] = {key: pin for key, pin in other if pin is not None}
        if other.data is not None or other.manifest is not None:
            changed |= {"data": other.data, "manifest": other.manifest}
        return self.model_copy(update=changed)

    def without_params(self) -> Inputs:
        """Return these inputs with no hyperparameters."""
        return self.model_copy(update={"params": None})

    @property
    def lacking(self) -> list[str]:
        """Return what is missing before a job can start."""
        given = {"source": self.source, "data": self.data or self.manifest}
        return [key for key, pin in given.items() if pin is None]


class Reproduces(Value):
    """The model that a job makes again, and how.

    :param digest: of the model's tree
    :param record: digest of its record, an object in the store, whose environment is taken
    :param job_id: that made it; of several the one that was asked for
    :param trial: index of the trial that made it
    :param tolerance: by which metrics may differ and count as equal, absolute
    :param rebuild: build the environment anew in the place of the one that is pinned
    """

    model_id: str
    digest: str
    record: str
    job_id: str
    trial: int
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    rebuild: bool = False


class JobDocument(Value):
    """Everything that a job runs on. Its digest, in the Airflow run's conf, pins all of it.

    :param job_id: 32 hexadecimal characters; of a deployed job Airflow's `dag_run_id` too
    :param dag_id: the DAG that runs it
    :param run_id: the run of that DAG
    :param data: the data bundle; None of a job with a manifest until that is downloaded
    :param manifest: where the data comes from, if it does not come from a directory
    :param refresh: download all files of the manifest, whether they have changed or not
    :param parallelism: trials at a time, at most
    :param max_failed: more failed trials than this stop the job; None for never
    :param retries: how often a trial is tried again that was lost or ran out of memory
    :param retry_errors: try again after an error of the script too
    :param reuse: take a trial's model from an earlier job with the same environment, data and parameters
    :param only: indexes of the trials to run; None for all
    :param rerun_of: the job whose inputs these are
    :param reproduces: the model that it makes again, to be compared
    :param schedule: the schedule that started it; None of a deploy
    :param network: whether its scripts may use the network; the process runtime cannot keep them from it
    :param no_cache: build its image anew, with none of the layers from before
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
    data: BundlePin | None = None
    manifest: ManifestPin | None = None
    refresh: bool = False
    params: ParametersPin | None = None
    parallelism: int = 4
    max_failed: int | None = None
    retries: int = 0
    retry_errors: bool = False
    reuse: bool = False
    only: list[int] | None = None
    rerun_of: str | None = None
    reproduces: Reproduces | None = None
    schedule: str | None = None
    resources: Resources
    runtime: str
    network: bool = True
    no_cache: bool = False
    author: str
    submitted_at: datetime
    kaos_version: str

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if self.data is None and self.manifest is None:
            raise ValueError("it names neither data nor a manifest")
        return self

    @property
    def pinned_data(self) -> BundlePin:
        """Return the data bundle.

        :raises ConflictError: the manifest is not downloaded
        """
        if self.data is None:
            raise ConflictError(
                f"The data of job {self.job_id} is not downloaded.", "See kaos train logs --follow."
            )
        return self.data


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

    :param schedule: when it runs by itself, or None for jobs that only a deploy starts
    :param parallelism: trials of one job at a time
    :param retries: how often a task is tried again after a fault that was not the script's
    :param download: whether its jobs begin with the download of a manifest
    :param runtime: that its jobs run in unless they ask for another; None for the server's
    """

    workspace: str
    name: str = TRAIN
    kind: Literal["train", "serve", "watch"] = "train"
    schedule: Schedule | None = None
    parallelism: int = Field(default=4, ge=1, le=1000)
    retries: int = Field(default=3, ge=0, le=100)
    download: bool = False
    runtime: str | None = None

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
    :param summary: digest of the `JobSummary`, an object in the store
    """

    job_id: str
    state: JobState
    reason: str = ""
    stage: Stage = Stage.TRAINING
    started_at: datetime | None = None
    ended_at: datetime
    models: list[str] = Field(default_factory=list)
    summary: str | None = None
    by: str = ""


class Batch(Value):
    """Consecutive trials that one task runs, one after the other.

    :param start: place of the first among the job's trials
    :param count: how many
    :param name: what the task is called in Airflow's UI
    """

    start: int
    count: int
    name: str


MAPPED = 200
"""Trials up to which each has a task of its own; a mapped task costs Airflow about 0.2 s."""

_LANES = 4
"""Tasks for each trial at a time where trials are batched: few, and short enough to end about together."""


def trials(space: Space | None, only: list[int] | None = None) -> list[Trial]:
    """Return the trials of a job, or those of them with these indexes; without hyperparameters it is one."""
    if space is None:
        return [Trial(index=0, name="train")]
    wanted = None if only is None else set(only)
    return [
        Trial(index=index, name=point_name(point), params=point)
        for index, point in enumerate(space.points())
        if wanted is None or index in wanted
    ]


def batches(planned: list[Trial], parallelism: int) -> list[Batch]:
    """Return how the trials are spread over tasks: a task each, or batches of about the same size."""
    if len(planned) <= MAPPED:
        return [Batch(start=place, count=1, name=trial.name) for place, trial in enumerate(planned)]
    number = min(MAPPED, max(1, parallelism * _LANES))
    edges = [len(planned) * edge // number for edge in range(number + 1)]
    return [
        Batch(start=start, count=end - start, name=f"trials {start} to {end - 1}")
        for start, end in pairwise(edges)
    ]


def new_job_id() -> str:
    """Return a new unique id of 32 hexadecimal characters that sorts by time (UUID version 7)."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000  # RFC 9562, method 3: what sorts ids of the same millisecond
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return f"{milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | random:032x}"
