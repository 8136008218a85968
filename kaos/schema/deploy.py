"""Deploys: all inputs of one job in one request."""

from __future__ import annotations

from kaos.job import Inputs
from kaos.resources import Resources
from kaos.value import Value


class DeployRequest(Value):
    """Bundles (by digest, already committed) to merge into the current inputs, and what the job may use."""

    source: str | None = None
    data: str | None = None
    resources: Resources = Resources()


class DeployResponse(Value):
    """The workspace's inputs after the merge, and the job that started, if both source and data are there.

    :param image: None while the environment is not built, else its short digest
    """

    inputs: Inputs
    shown: dict[str, str]
    image: str | None
    job_id: str | None
