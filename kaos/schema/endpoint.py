"""Endpoints as they are deployed, listed, shown and followed."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from kaos.endpoint import Change, EndpointState, Limits, ModelPin
from kaos.job import BundlePin
from kaos.lineage import ImageRecord
from kaos.resources import Resources
from kaos.value import Value


class EndpointDeploy(Value):
    """What a new revision shall be.

    :param name: of the endpoint; None for a new one that kaos names
    :param source: digest of a committed source bundle; None keeps the code of the current revision
    :param model_id: of the model to lay beside the code
    :param update: the endpoint must be there, and what is left out stays as it is
    :param runtime: where it runs; None for the workspace's, or that of the revision before
    :param no_cache: build an image with none of its layers from before
    :param auth: True for a new bearer token, False for none, None for what there is
    """

    name: str | None = None
    source: str | None = None
    model_id: str | None = None
    update: bool = False
    resources: Resources | None = None
    workers: int | None = Field(default=None, ge=1, le=1000)
    canary: int | None = Field(default=None, ge=1, le=99)
    limits: dict[str, float] = Field(default_factory=dict)
    runtime: str | None = None
    no_cache: bool = False
    auth: bool | None = None


class EndpointDeployed(Value):
    """A revision that is on its way.

    :param shown: the source bundle with the model in it, such as ``/mnist:ff06b``
    :param token: of the endpoint, if it is new: nobody can show it again
    """

    name: str
    revision: int
    job_id: str
    url: str
    shown: str
    model_id: str | None
    token: str | None


class EndpointRow(Value):
    """An endpoint in a list.

    :param created_at: of the revision that has the traffic
    """

    created_at: datetime
    name: str
    state: EndpointState
    url: str
    user: str
    reason: str = ""


class EndpointList(Value):
    """The endpoints of a workspace, the newest first."""

    endpoints: list[EndpointRow]


class TrafficShown(Value):
    """What went through the gateway; quantiles in seconds, None without any request."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class RevisionInfo(Value):
    """A revision.

    :param share: percent of the requests that it gets
    :param source_shown: what is served, the model's files beside the code
    :param image: what a container of a routed revision runs
    :param applied: what holds it to its resources, in words
    """

    revision: int
    state: EndpointState
    reason: str
    share: int
    job_id: str
    source: BundlePin
    source_shown: str
    code_shown: str
    model: ModelPin | None
    author: str
    submitted_at: datetime
    resources: Resources
    workers: int | None
    limits: Limits
    runtime: str
    image: ImageRecord | None
    applied: str
    restarts: int
    traffic: TrafficShown
    url: str


class EndpointInfo(Value):
    """Everything about an endpoint."""

    name: str
    workspace: str
    state: EndpointState
    reason: str
    url: str
    created_at: datetime
    created_by: str
    auth: bool
    current: int | None
    previous: int | None
    canary: int | None
    revisions: list[RevisionInfo]
    traffic: TrafficShown
    changes: list[Change]


class EndpointContent(Value):
    """What `serve get` brings."""

    name: str
    directory: str
    source: BundlePin


class EndpointTurned(Value):
    """What a rollback or a promotion did.

    :param revision: that has the traffic now, or will have it once it runs again
    :param waiting: whether it has to be started first
    """

    name: str
    revision: int
    waiting: bool
