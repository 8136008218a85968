"""What each stage of a job leaves behind: small records (digests, sizes, times), never content."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pydantic import Field

from kaos.job import BundlePin
from kaos.value import Value


class AirflowRun(Value):
    """Where in Airflow something ran.

    :param bundle_version: version of the DAG bundle, the digest of the generated source that the run is
        pinned to
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    bundle_version: str | None
    airflow_version: str


class PinRecord(Value):
    """What a scheduled run took as its inputs.

    :param job_digest: of the job's document
    :param data: digest of the data bundle
    :param manifest: digest of the manifest that it comes from, if from one
    :param author: who made the schedule
    """

    job_digest: str
    job_id: str
    source: str
    data: str
    manifest: str | None
    params: str | None
    schedule: str
    author: str
    seconds: float


class IngestRecord(Value):
    """What `ingest` checked and laid out.

    :param data: None of a job whose data is still to be downloaded
    :param files: number of files, source and data
    :param size: their bytes
    :param seconds: how long it took
    """

    job_digest: str
    source: str
    data: str | None
    files: int
    size: int
    seconds: float


class ResolvedManifest(Value):
    """What the manifest of a job gave.

    :param data: the bundle that was downloaded
    :param origins: digest of the JSON lines that say which URL gave what, an object in the store
    """

    manifest: str
    data: BundlePin
    origins: str


class DownloadRecord(Value):
    """How `download` brought a manifest's files.

    :param manifest: digest of the manifest
    :param data: digest of the bundle's tree
    :param origins: as in `ResolvedManifest`
    :param unchanged: files that were here already, of the version that the server has
    :param received: bytes that arrived
    :param retries: requests that were repeated
    """

    manifest: str
    data: str
    origins: str
    files: int
    size: int
    unchanged: int
    received: int
    retries: int
    seconds: float


class BaseImage(Value):
    """An image that another one was built on.

    :param name: as the Dockerfile has it
    :param digest: ``sha256:...`` of its manifest, or of its configuration where it never had a manifest
    """

    name: str
    digest: str


class ImageRecord(Value):
    """An image that was built of a source bundle.

    :param engine: that built it: ``podman`` or ``docker``
    :param name: its name on the machine that built it
    :param id: SHA-256 of its configuration, 64 hexadecimal digits: the same in every engine
    :param repository: where it was pushed to, empty if nowhere
    :param digest: ``sha256:...`` of its manifest there
    :param bases: what its Dockerfile's FROM lines name
    :param user: the user it asks for, empty for root
    :param workdir: its working directory
    :param train: where its `train` is, empty if it has its own entry point, or is not for training
    :param serve: where its `serve` is, in the same way
    :param variables: names of the variables that it sets
    """

    engine: str
    name: str
    id: str
    repository: str = ""
    digest: str = ""
    bases: tuple[BaseImage, ...] = ()
    user: str = ""
    workdir: str = "/"
    train: str = ""
    serve: str = ""
    variables: tuple[str, ...] = ()

    @property
    def pinned(self) -> str:
        """Return what any machine can pull it by, empty if it was pushed nowhere."""
        return f"{self.repository}@{self.digest}" if self.digest else ""

    def script(self, name: str) -> str:
        """Return where its `train` or its `serve` is, empty if that is not known."""
        return {"train": self.train, "serve": self.serve}[name]

    def with_script(self, name: str, path: str) -> ImageRecord:
        """Return the image once it is known where its `train` or its `serve` is."""
        return self.model_copy(update={name: path})


class BuildRecord(Value):
    """What `build` made, or found made.

    :param environment: digest of what the environment was made from; of an image, its id
    :param python: version of the environment's Python; empty for an image
    :param lock: digest of the resolved lock, an object in the store; empty for an image
    :param log: digest of the build log, an object in the store
    :param image: the image, in the container runtime
    """

    runtime: str
    environment: str
    python: str = ""
    lock: str = ""
    log: str
    reused: bool
    seconds: float
    variables: dict[str, str] = Field(default_factory=dict)
    image: ImageRecord | None = None


class TrialRecord(Value):
    """How a trial ended.

    :param model: digest of the tree it wrote, None if it failed
    :param reused_from: the job that the model comes from, if it was not trained anew
    :param metrics: its numeric metrics by name
    :param log: digest of what it printed, an object in the store
    :param limits: what held it to the resources asked for, in words
    """

    index: int
    name: str
    succeeded: bool
    reason: str
    exit_code: int | None
    model: str | None
    params: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    log: str
    limits: str
    reused_from: str | None = None
    started_at: datetime
    ended_at: datetime

    @property
    def seconds(self) -> float:
        """Return how long the trial ran."""
        return (self.ended_at - self.started_at).total_seconds()


def small(record: Value) -> dict[str, Any]:
    """Return a record as plain JSON values, as Airflow keeps them in an XCom.

    NaN and infinities, which scripts may have among their metrics, are text there: Airflow refuses them.
    """
    plain: dict[str, Any] = json.loads(record.model_dump_json(), parse_constant=str)
    return plain
