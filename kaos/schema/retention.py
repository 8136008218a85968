"""Retention: policies, and what a collection removed or would remove."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from kaos.retention import PolicyChange, RetentionPolicy
from kaos.value import Value


class RetentionInfo(Value):
    """A workspace's policy.

    :param set: who set it and when, None if nobody did
    :param removed: number of models that retention has removed
    """

    workspace: str
    policy: RetentionPolicy
    set: PolicyChange | None
    removed: int


class CollectRequest(Value):
    """What to collect.

    :param policy: in the place of the workspaces' own, for this one time
    :param grace_hours: how old what nothing names has to be
    """

    dry_run: bool = False
    policy: RetentionPolicy | None = None
    grace_hours: float = Field(default=24, ge=0, le=24 * 365)


class Amount(Value):
    """A number of objects or files, and their bytes."""

    objects: int = 0
    bytes: int = 0


class RemovedModel(Value):
    """A model that goes, with the newest job that made it."""

    model_id: str
    digest: str
    job_id: str
    created_at: datetime
    size: int


class WorkspaceCollected(Value):
    """What goes in a workspace.

    :param jobs: of so many jobs nothing but the records is left
    :param trees: number of bundles and models whose content goes
    :param kept: number of models that stay
    :param reasons: how many of them for which reason
    """

    workspace: str
    policy: RetentionPolicy
    models: list[RemovedModel]
    jobs: int
    trees: int
    kept: int
    reasons: dict[str, int]


class Cleaned(Value):
    """What was removed of a directory of this machine.

    :param what: ``checkouts``, ``environments``, ``runs``, ``uploads``, ``images``
    """

    what: str
    amount: Amount


class Collected(Value):
    """What a collection removed, or would remove.

    :param before: all objects of the store
    :param after: those that are left
    :param released: set aside by this collection
    :param discarded: removed for good
    :param waiting: set aside, and removed once the jobs and deploys have ended that run now
    :param machine: what was removed beside the store, on the machine that did it
    :param disk_before: bytes that store and work directory take on the disk, each file once however many
        links it has; None if not looked at
    :param problems: what kept something from being removed, in words
    """

    at: datetime
    by: str
    dry_run: bool
    workspaces: list[WorkspaceCollected]
    before: Amount
    after: Amount = Amount()
    released: Amount = Amount()
    discarded: Amount = Amount()
    waiting: Amount = Amount()
    machine: list[Cleaned] = Field(default_factory=list)
    disk_before: int | None = None
    disk_after: int | None = None
    seconds: float = 0.0
    problems: list[str] = Field(default_factory=list)
