"""Jobs as they are listed, shown and followed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from kaos.curves import LiveTrial
from kaos.job import BundlePin, JobState, ManifestPin, Stage
from kaos.lineage import ImageRecord
from kaos.reproduction import Reproduction, Verdict
from kaos.resources import Resources
from kaos.value import Value


class DownloadProgress(Value):
    """How far the download of a job's manifest is.

    :param files: those that are there
    :param total: those that the manifest names
    :param received: bytes that arrived
    :param size: bytes of all files, or None if the manifest does not give them
    :param rate: bytes per second
    :param eta: seconds that are left, or None while nobody can know
    :param shown: all of it in words
    """

    files: int
    total: int
    received: int
    size: int | None
    failed: int
    rate: float
    eta: float | None
    shown: str


class JobRow(Value):
    """A job in a list.

    :param duration: seconds since it started, or from start to end
    :param progress: of its download, while that runs
    """

    job_id: str
    stage: Stage
    state: JobState
    hyperopt: bool
    started: datetime | None
    duration: float | None
    progress: DownloadProgress | None = None


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


class ReproducedRow(Value):
    """A job that made a model again, and what came of it."""

    job_id: str
    verdict: Verdict
    ended_at: datetime


class ModelRow(Value):
    """A model, or a trial that has none yet, in `train info`.

    :param data: None while its manifest is not downloaded
    :param data_shown: the bundle, or the manifest that it will come from
    :param params_shown: where its hyperparameters are, ``/3fbf2/degree=5_kernel=poly.json``
    :param score: value of the metric that was asked for
    :param reused_from: the job that the model was taken over from
    :param step: where in the training a trial is that runs, and whose newest metrics these are
    :param reproductions: jobs that made the model again, the oldest first
    :param removed: when, by whom and why the model was removed, in words; empty if it is there
    """

    source: BundlePin
    source_shown: str
    data: BundlePin | None
    data_shown: str
    model_id: str | None
    digest: str | None
    state: JobState
    reason: str = ""
    hyperparams: dict[str, Any] = Field(default_factory=dict)
    params_shown: str | None = None
    score: float | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    reused_from: str | None = None
    removed: str = ""
    step: float | None = None
    reproductions: list[ReproducedRow] = Field(default_factory=list)


class JobInfo(Value):
    """Everything about a job.

    :param schedule: the schedule that started it; None of a deploy
    :param promotion: what became of the best model of a schedule's job, in words
    :param process_time: seconds that its stages ran
    :param manifest: what its data came from, if not from a directory
    :param manifest_shown: such as ``/features:c6062``
    :param data: the bundle that it runs on; None while its manifest is not downloaded
    :param progress: of its download, while that runs
    :param metrics: names of the available metrics
    :param live: newest metrics of trials that run, at most twenty
    :param image: that its scripts ran in, in the container runtime
    :param reproduces: id of the model that it makes again
    :param reproduction: what came of that, once it has ended
    """

    job_id: str
    workspace: str
    author: str
    schedule: str | None = None
    promotion: str = ""
    state: JobState
    stage: Stage
    reason: str
    submitted_at: datetime
    started: datetime | None
    duration: float | None
    process_time: float | None
    manifest: ManifestPin | None = None
    manifest_shown: str | None = None
    data: BundlePin | None
    data_shown: str | None
    progress: DownloadProgress | None = None
    resources: Resources
    runtime: str
    limits: str
    image: ImageRecord | None = None
    dag_id: str
    dag_version: str | None
    url: str
    stages: list[StageState]
    metrics: list[str]
    models: list[ModelRow]
    pages: int
    page: int
    live: list[LiveTrial] = Field(default_factory=list)
    reproduces: str | None = None
    reproduction: Reproduction | None = None


class LogChunk(Value):
    """Lines of a log from a position on.

    :param position: what to ask with for the lines after these
    :param ended: nothing more will come
    :param progress: of the download that comes before the lines, in words
    :param live: newest metrics of the trial while it runs
    """

    lines: list[str]
    position: str
    ended: bool
    progress: str | None = None
    live: LiveTrial | None = None


class Curve(Value):
    """How one metric of one trial went.

    :param points: step and value, by step; of a long curve evenly spaced ones
    """

    index: int
    metric: str
    points: list[tuple[float, float]]


class JobCurves(Value):
    """The learning curves of a job's models.

    :param ranges: hyperparameters that were drawn from a range, and whether that was logarithmic
    :param left_out: trials whose curves are not here, because there are too many or their files are too large
    """

    curves: list[Curve]
    ranges: dict[str, bool]
    left_out: int


class JobSource(Value):
    """The generated DAG source that a job ran on."""

    dag_id: str
    version: str
    source: str


class JobModel(Value):
    """A model of a job to get: its tree and its directory's name."""

    directory: str
    digest: str
    model_id: str = ""
    removed: str = ""


class JobContent(Value):
    """What `train get` brings: the trees by digest, and what to call their directories."""

    source: BundlePin
    source_directory: str
    data: BundlePin | None
    data_directory: str | None
    models: list[JobModel]
