"""Workspaces."""

from __future__ import annotations

from datetime import datetime

from kaos.job import Inputs
from kaos.value import Value


class WorkspaceCreate(Value):
    """A workspace to create.

    :param runtime: of its jobs; None for the server's
    """

    name: str
    runtime: str | None = None


class Workspace(Value):
    """A workspace as it is recorded.

    :param killed_at: when it was killed with its models kept; None while it lives
    """

    name: str
    created_at: datetime
    created_by: str
    killed_at: datetime | None = None


class WorkspaceList(Value):
    """All workspaces that the user may see."""

    workspaces: list[Workspace]


class WorkspaceInfo(Value):
    """A workspace with what is in it.

    :param jobs: number of jobs
    :param models: number of distinct models
    :param runtime: of its jobs, unless they ask for another
    """

    workspace: Workspace
    runtime: str
    inputs: Inputs
    dags: list[str]
    bundles: int
    jobs: int
    models: int


class WorkspaceKilled(Value):
    """What `workspace kill` ended and removed."""

    stopped_jobs: list[str]
    removed_dags: list[str]
    kept_models: int
