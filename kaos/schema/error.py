"""The one shape of every error."""

from __future__ import annotations

from pydantic import BaseModel


class ErrorBody(BaseModel):
    """What was wrong and what to do now.

    :param code: stable, for programs; a class of `kaos.errors` each
    """

    code: str
    message: str
    next_step: str = ""
