"""Deploys: all inputs of one job in one request."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from kaos.job import Inputs
from kaos.resources import Resources
from kaos.value import Value


class Parameters(Value):
    """A hyperparameter file.

    :param content: its text
    :param samples: number of random trials; None for the grid
    :param seed: of the random trials
    """

    name: str
    content: str
    samples: int | None = None
    seed: int = 0


class DeployRequest(Value):
    """Bundles (by digest, already committed) to merge into the current inputs, and what the job may use.

    :param manifest: digest of a committed manifest in the place of `data`
    :param refresh: download all files of the manifest, whether they have changed or not
    :param params: hyperparameters in the place of the current ones
    :param no_params: drop the current hyperparameters
    :param parallelism: trials at a time; None for the workspace's number
    :param max_failed: more failed trials than this stop the job
    :param retries: how often a trial is tried again that was lost or ran out of memory
    :param retry_errors: try again after an error of the script too
    :param reuse: take over models that were made of the same environment, code, data and parameters
    :param runtime: where the job runs; None for the workspace's runtime, or the server's
    :param network: whether its scripts may use the network; None for the server's default
    :param run: start a job when source and data are there; else only the current inputs change
    :param no_cache: build its image anew, with none of the layers from before
    """

    source: str | None = None
    data: str | None = None
    manifest: str | None = None
    refresh: bool = False
    params: Parameters | None = None
    no_params: bool = False
    parallelism: int | None = Field(default=None, ge=1, le=1000)
    max_failed: int | None = Field(default=None, ge=0)
    retries: int = Field(default=0, ge=0, le=100)
    retry_errors: bool = False
    reuse: bool = False
    runtime: str | None = None
    network: bool | None = None
    no_cache: bool = False
    run: bool = True
    resources: Resources = Resources()


class DeployResponse(Value):
    """The workspace's inputs after the merge, and the job that started, if both source and data are there.

    :param space: the values of the current hyperparameters by key
    :param image: None while the environment is not built, else its short digest
    """

    inputs: Inputs
    shown: dict[str, str]
    space: dict[str, Any] | None = None
    image: str | None
    job_id: str | None
