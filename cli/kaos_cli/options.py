"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from kaos.errors import InvalidInputError, UnknownNameError
from kaos.names import check_endpoint
from kaos_cli.config import Config, row

F = TypeVar("F", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A range of numbers; click's own takes NaN for one of them, and an infinity where it has no end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number that can be used.", param, ctx)
        return number


def JobOptions(command: F) -> F:
    """Let a command name a job by its row or its id."""
    command = click.option("-j", "--job-id", help="Id of the job, or its beginning.")(command)
    return click.option("-i", "--ind", type=int, help="Row of the list that was printed last.")(command)


def ScheduleOption(command: F) -> F:
    """Let a command name a schedule."""
    text = "Name of the schedule."
    return click.option("--job", "name", default="scheduled", show_default=True, help=text)(command)


def EndpointOptions(command: F) -> F:
    """Let a command name an endpoint by its row or its name."""
    command = click.option("-e", "--endpoint", help="Name of the endpoint.")(command)
    return click.option("-i", "--ind", type=int, help="Row of the list that was printed last.")(command)


def RevisionOption(command: F) -> F:
    """Let a command name a revision."""
    text = "Number of the revision; the one with the traffic by default."
    return click.option("-r", "--revision", type=click.IntRange(1), help=text)(command)


def ServiceOptions(command: F) -> F:
    """Let a command say how a revision shall run."""
    for option in (
        click.option("--wait", is_flag=True, help="Wait until it is routed; exit with 1 if it fails."),
        click.option("--canary", type=click.IntRange(1, 99), help="Percent of the requests, until promoted."),
        click.option("--auth/--no-auth", default=None, help="Want a new bearer token; want none."),
        click.option(
            "--keep-warm",
            type=FiniteRange(0, 1e9),
            help="Seconds that a replaced revision runs on.  [default: 600]",
        ),
        click.option(
            "--start-timeout",
            type=FiniteRange(1, 3600),
            help="Seconds until the first answer to /ping.  [default: 300]",
        ),
        click.option(
            "--timeout",
            type=FiniteRange(0.1, 3600),
            help="Seconds until a request gets a 504.  [default: 60]",
        ),
        click.option("--max-body", help="Largest request, such as 100Mi; else a 413.  [default: 16Mi]"),
        click.option(
            "--workers", type=click.IntRange(1, 1000), help="Processes of serve, in WEB_CONCURRENCY."
        ),
        click.option("--no-cache", is_flag=True, help="Build the image with no layer from before."),
        click.option("--runtime", help="Where it runs: process or container.  [default: the workspace's]"),
        click.option("--gpu", help="Number of GPUs."),
        click.option("--memory", help="Memory with an SI suffix, such as 512Mi or 2G."),
        click.option("--cpu", help="Cores, such as 0.5 or 2."),
    ):
        command = option(command)
    return command


def chosen_endpoint(config: Config, workspace: str, ind: int | None, endpoint: str | None) -> str:
    """Return the name of the endpoint that `EndpointOptions` gave.

    :raises InvalidInputError: they gave none, or two
    :raises UnknownNameError: there is no such row, or no endpoint can have this name
    """
    command = "kaos serve list"
    if (ind is None) == (endpoint is None):
        raise InvalidInputError(
            "Which endpoint?", f"Give its row of {command}, -i 0, or its name, -e serve-NAME."
        )
    if endpoint is None:
        return row(config, f"{workspace} serve", ind or 0, command)
    try:
        return check_endpoint(endpoint)
    except InvalidInputError:
        raise UnknownNameError("endpoint", endpoint, next_step=f"See {command}.") from None


def PolicyOptions(command: F) -> F:
    """Let a command say which models stay."""
    from kaos.retention import LONGEST  # not for every command that has options

    last = "Keep the models of the newest jobs that made some, so many of each kind."
    days = "Keep models of jobs that ended less than so many days ago."
    command = click.option("--keep-days", type=FiniteRange(0, LONGEST), help=days)(command)
    return click.option("--keep-last", type=click.IntRange(0), help=last)(command)
