"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def JobOptions(command: F) -> F:
    """Let a command name a job by its row or its id."""
    command = click.option("-j", "--job-id", help="Id of the job, or its beginning.")(command)
    return click.option("-i", "--ind", type=int, help="Row of the list that was printed last.")(command)
