"""Models that are made again."""

from __future__ import annotations

from pydantic import Field

from kaos.reproduction import Reproduction
from kaos.value import Value


class ReproductionRequest(Value):
    """The model to make again.

    :param model: its id, or a tag
    :param job_id: of the job that made it, or its beginning; None for the first one that did
    :param tolerance: by which metrics may differ and count as equal, absolute
    :param rebuild: build the environment anew in the place of the one that is pinned
    """

    model: str
    job_id: str | None = None
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    rebuild: bool = False


class ReproductionStarted(Value):
    """The job that makes a model again.

    :param original_job: whose inputs it takes
    :param trial: the trial of that job, as a person reads it
    :param environment: in words
    """

    job_id: str
    model_id: str
    original_job: str
    trial: str
    environment: str


class ReproductionList(Value):
    """What came of making models again, the oldest first."""

    reproductions: list[Reproduction]
