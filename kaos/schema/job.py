"""Jobs as they are listed, shown and followed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from kaos.job import BundlePin, JobState, Stage
from kaos.resources import Resources
from kaos.value import Value


class JobRow(Value):
    """A job in a list.

    :param duration: seconds since it started, or from start to end
    """

    job_id: str
    stage: Stage
    state: JobState
    hyperopt: bool
    started: datetime | None
    duration: float | None


class JobList(Value):
    """Jobs, the newest first, and how many there are in all."""

    jobs: list[JobRow]
    total: int


class StageState(Value):
    """A stage of a job as Airflow has it.

    :param state: Airflow's word: scheduled, running, success, failed, ...
    """

    task_id: str
    state: str | None
    seconds: float | None


class ModelRow(Value):
    """A model, or a trial that has none yet, in `train info`.

    :param params_shown: where its hyperparameters are, ``/3fbf2/degree=5_kernel=poly.json``
    :param score: value of the metric that was asked for
    """

    source: BundlePin
    source_shown: str
    data: BundlePin
    data_shown: str
    model_id: str | None
    digest: str | None
    state: JobState
    reason: str = ""
    hyperparams: dict[str, Any] = Field(default_factory=dict)
    params_shown: str | None = None
    score: float | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)


class JobInfo(Value):
    """Everything about a job.

    :param process_time: seconds that its stages ran
    :param metrics: names of the available metrics
    """

    job_id: str
    workspace: str
    author: str
    state: JobState
    stage: Stage
    reason: str
    submitted_at: datetime
    started: datetime | None
    duration: float | None
    process_time: float | None
    resources: Resources
    runtime: str
    limits: str
    dag_id: str
    dag_version: str | None
    url: str
    stages: list[StageState]
    metrics: list[str]
    models: list[ModelRow]
    pages: int
    page: int


class LogChunk(Value):
    """Lines of a log from a position on.

    :param position: what to ask with for the lines after these
    :param ended: nothing more will come
    """

    lines: list[str]
    position: str
    ended: bool


class JobSource(Value):
    """The generated DAG source that a job ran on."""

    dag_id: str
    version: str
    source: str


class JobModel(Value):
    """A model of a job to get: its tree and its directory's name."""

    directory: str
    digest: str


class JobContent(Value):
    """What `train get` brings: the trees by digest, and what to call their directories."""

    source: BundlePin
    source_directory: str
    data: BundlePin
    data_directory: str
    models: list[JobModel]
