"""An endpoint: a served model behind a stable URL. Each deploy makes a revision; one has the traffic."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from pydantic import Field

from kaos.bundle import EmptyDirectory, Entry, File, Tree
from kaos.digest import digest_bytes
from kaos.errors import ConflictError, InvalidInputError
from kaos.job import BundlePin
from kaos.lineage import AirflowRun, BuildRecord
from kaos.names import check_endpoint
from kaos.resources import Resources
from kaos.source import MODEL
from kaos.value import Value

SERVE = "serve"
"""The name of the definition whose DAG deploys endpoints."""

SAMPLE = "test_payload"
"""A file of this name, whatever its suffix, is a request that a new revision must be able to answer."""


class EndpointState(StrEnum):
    """The states of an endpoint, and of each of its revisions, in the words of the original system."""

    STARTING = "PIPELINE_STARTING"
    RUNNING = "PIPELINE_RUNNING"
    RESTARTING = "PIPELINE_RESTARTING"
    FAILURE = "PIPELINE_FAILURE"
    STANDBY = "PIPELINE_STANDBY"
    STOPPED = "PIPELINE_STOPPED"


class ModelPin(Value):
    """A model as a revision names it: its id, and the digest of all that the training wrote."""

    model_id: str
    digest: str
    files: int
    size: int
    author: str


class Limits(Value):
    """What the gateway lets through, and how long kaos waits.

    :param max_body: bytes of a request's body, at most
    :param timeout: seconds until a request that was not answered gets a 504
    :param start_timeout: seconds that a revision may take until it answers `/ping`
    :param keep_warm: seconds that a revision which was replaced goes on running, for a quick rollback
    """

    max_body: int = Field(default=16 << 20, ge=1)
    timeout: float = Field(default=60, ge=0.1, le=3600)
    start_timeout: float = Field(default=300, ge=1, le=3600)
    keep_warm: float = Field(default=600, ge=0, le=1e9)  # 31 years: what is added to a date must give one


class ServeDocument(Value):
    """Everything that a revision runs on. Its digest, in the Airflow run's conf, pins all of it.

    :param job_id: of the deploy; Airflow's `dag_run_id` too
    :param source: what is served: the code with the model's files beside it
    :param code: the code as it was submitted
    :param model: None for an endpoint without a model of kaos
    :param workers: processes or threads, as `serve` understands it; None leaves it to `serve`
    :param no_cache: build an image with none of its layers from before
    :param canary: percent of the requests, until it is promoted; None takes all
    :param decision: digest of the `Decision` that promoted the model, None of a deploy by hand
    """

    version: Literal[1] = 1
    kind: Literal["serve"] = "serve"
    job_id: str
    workspace: str
    definition: str = SERVE
    dag_id: str
    run_id: str
    endpoint: str
    revision: int
    source: BundlePin
    code: BundlePin
    model: ModelPin | None = None
    resources: Resources = Resources()
    workers: int | None = None
    runtime: str
    no_cache: bool = False
    canary: int | None = None
    limits: Limits = Limits()
    decision: str | None = None
    author: str
    submitted_at: datetime
    kaos_version: str


class Endpoint(Value):
    """What an endpoint is now; it changes by compare-and-swap alone.

    :param revisions: how many there have been; the number of the newest
    :param routed: the newest that ever was given traffic by a deploy
    :param current: the revision that has the traffic
    :param previous: the one that `rollback` returns to
    :param canary: the revision that has `percent` of the traffic
    :param wanted: a revision that shall be started again and then take the traffic
    :param token: SHA-256 of the bearer token, None if none is asked for
    :param changed_at: when the traffic was last given to another revision
    """

    name: str
    workspace: str
    created_at: datetime
    created_by: str
    revisions: int = 0
    routed: int = 0
    current: int | None = None
    previous: int | None = None
    canary: int | None = None
    percent: int = 0
    wanted: int | None = None
    token: str | None = None
    changed_at: datetime | None = None
    killed_at: datetime | None = None

    def take(self, document: ServeDocument, now: datetime) -> Endpoint:
        """Return the endpoint once a revision that was probed has its traffic.

        :raises ConflictError: the endpoint was killed, or a later deploy has taken it already
        """
        revision = document.revision
        if self.killed_at is not None:
            raise ConflictError(f"The endpoint {self.name} was killed meanwhile.", "Deploy again.")
        if revision in (self.current, self.canary):
            return self
        if revision < self.routed:
            raise ConflictError(
                f"A later deploy, revision {self.routed}, has taken {self.name} already.",
                "Deploy again if this revision is the one that you want.",
            )
        routed = self.model_copy(update={"routed": revision, "wanted": None})
        if document.canary is not None and self.current is not None:
            return routed.model_copy(update={"canary": revision, "percent": document.canary})
        return routed._with(revision, now)

    def promote(self, now: datetime) -> Endpoint:
        """Return the endpoint once its canary has all of the traffic.

        :raises ConflictError: it has none
        """
        if self.canary is None:
            raise ConflictError(f"{self.name} has no canary.", "See kaos serve info.")
        return self._with(self.canary, now)

    @property
    def behind(self) -> int:
        """Return the revision that a rollback brings back: the current one, while there is a canary.

        :raises ConflictError: there is none
        """
        revision = self.previous if self.canary is None else self.current
        if revision is None:
            raise ConflictError(f"{self.name} has no revision to go back to.", "See kaos serve info.")
        return revision

    def roll_back(self, now: datetime) -> Endpoint:
        """Return the endpoint without its canary, or with the previous revision in place of the current."""
        behind = self.behind
        if self.canary is not None:
            return self.model_copy(update={"canary": None, "percent": 0, "wanted": None})
        return self._with(behind, now)

    def _with(self, revision: int, now: datetime) -> Endpoint:
        gone = {"previous": self.current} if self.current is not None else {}
        rest = {"canary": None, "percent": 0, "wanted": None, "changed_at": now}
        return self.model_copy(update={"current": revision, **gone, **rest})

    def running(self, keep_warm: float, now: datetime) -> set[int]:
        """Return the revisions that must run now.

        :param keep_warm: of the previous one, in seconds
        """
        if self.killed_at is not None:
            return set()
        found = {self.current, self.canary, self.wanted}
        if self.changed_at is not None and now < self.changed_at + timedelta(seconds=keep_warm):
            found.add(self.previous)
        return {revision for revision in found if revision is not None}


class Change(Value):
    """What somebody did to an endpoint.

    :param what: ``deploy``, ``route``, ``canary``, ``promote``, ``rollback``, ``kill``, ``token``
    :param revision: that took the traffic
    """

    what: str
    revision: int | None
    by: str
    at: datetime


class RevisionOutcome(Value):
    """How the deploy of a revision ended.

    :param reason: why it failed, for people; empty after a success
    :param log: digest of what the service had printed by then, an object in the store; of a failure only
    """

    job_id: str
    revision: int
    succeeded: bool
    reason: str = ""
    log: str | None = None
    ended_at: datetime


class RevisionRecord(Value):
    """The immutable record of a revision that was routed: its full lineage.

    :param sample: the file of the bundle whose request it answered, None if there is none
    """

    document: ServeDocument
    document_digest: str
    build: BuildRecord
    sample: str | None
    limits: str
    started_seconds: float
    airflow: AirflowRun
    created_at: datetime


def endpoint_name(workspace: str, job_id: str, taken: Iterable[str]) -> str:
    """Return a name that is not taken yet: ``serve-mnist-ae6466``."""
    digest, known = digest_bytes(f"{workspace} {job_id}".encode()), set(taken)
    for start in range(len(digest) - 6):
        name = f"serve-{workspace[:36].rstrip('-_')}-{digest[start : start + 6]}"
        if name not in known:
            return check_endpoint(name)
    raise InvalidInputError("No name is free.", "Give one: --name NAME")


def beside(code: Tree, model: Tree) -> Tree:
    """Return a serve bundle with a model's files beside its code.

    What the training wrote to ``model/`` is laid into ``model/``; where it wrote no such directory, all but
    the metrics. A file of the model takes the place of one of the code.
    """
    apart = any(entry.path.startswith(f"{MODEL}/") for entry in model.entries)
    wrote = model.below(MODEL).files if apart else (file for file in model.files if not _metrics(file.path))
    files = {f"{MODEL}/{file.path}": file for file in wrote}
    kept = [entry for entry in code.entries if entry.path not in files and not _filled(entry, files)]
    return Tree.of([*kept, *(file._replace(path=path) for path, file in files.items())])


def sample_of(tree: Tree) -> File | None:
    """Return the sample request of a serve bundle: ``test_payload.*`` at its top or in ``model/``."""
    for file in tree.files:
        folder, _, name = file.path.rpartition("/")
        if folder in ("", MODEL) and name.partition(".")[0] == SAMPLE:
            return file
    return None


def _filled(entry: Entry, files: Iterable[str]) -> bool:
    """Tell whether an empty directory is none any more."""
    return isinstance(entry, EmptyDirectory) and any(path.startswith(f"{entry.path}/") for path in files)


def _metrics(path: str) -> bool:
    return path.startswith("metrics/")
