"""`kaos train schedule`: jobs that start by themselves."""

from __future__ import annotations

from typing import Any

import click

from kaos.errors import InvalidInputError
from kaos.resources import Resources
from kaos.schedule import ANSWER_WITHIN, JobSettings, Promotion, parse_interval
from kaos.schema.schedule import ScheduleRow, ScheduleSet
from kaos_cli.client import connect
from kaos_cli.config import current_workspace, load_config
from kaos_cli.options import ScheduleOption
from kaos_cli.output import OutputOption, narrow, print_json, print_table, say, show_time
from kaos_cli.schedules import SchedulesClient

DEFAULT = "scheduled"
_WIDE = 120


@click.group(invoke_without_command=True, subcommand_metavar="| COMMAND")
@click.option("--cron", help="Five fields, such as '0 3 * * *', or a word such as @daily.")
@click.option("--timezone", help="Of the fields of --cron, such as Europe/Berlin.  [default: UTC]")
@click.option("--every", help="Time from one run to the next: a number and one of s, m, h, d, w.")
@click.option("--on-data", is_flag=True, help="When new data is deployed, or a manifest's files change.")
@click.option("--check-every", help="How often a manifest is asked, with --on-data.  [default: 15m]")
@click.option("--job", "name", default=DEFAULT, show_default=True, help="Name of the schedule.")
@click.option("--always", is_flag=True, help="Train though nothing has changed.")
@click.option("--promote-to", help="Endpoint whose next revision a better model becomes.")
@click.option("--if", "condition", help="What the model must meet: 'accuracy >= 0.9 and > current'.")
@click.option("--metric", help="Of --if, that chooses among a job's models.  [default: its first]")
@click.option("--approve", is_flag=True, help="Let a person decide on what meets --if.")
@click.option("--answer-within", help="Time after which no answer is a no, with --approve.  [default: 1w]")
@click.option("-p", "--parallelism", type=click.IntRange(1, 1000), default=4, help="Trials at a time.")
@click.option("--max-failed", type=click.IntRange(0), help="Stop a job when more trials failed.")
@click.option(
    "--retries", type=click.IntRange(0, 100), default=0, help="Retry a trial that was lost or out of memory."
)
@click.option("--retry-errors", is_flag=True, help="Retry after an error of the script too.")
@click.option("--reuse", is_flag=True, help="Take over models that were made of the same before.")
@click.option("--cpu", help="Cores, such as 0.5 or 2.")
@click.option("--memory", help="Memory with an SI suffix, such as 512Mi or 2G.")
@click.option("--gpu", help="Number of GPUs.")
@click.option("--runtime", help="Where jobs run: process or container.  [default: the workspace's]")
@click.option("--network/--no-network", default=None, help="Let the script use the network, or not.")
@OutputOption
@click.pass_context
def schedule(context: click.Context, /, **options: Any) -> None:
    """Let jobs start by themselves, at times or on new data.

    They take the inputs that the workspace has by then. Where nothing has changed since the last
    success a run is skipped. The same name again changes the schedule.

    \b
    Example:
        kaos train schedule --cron "0 3 * * *" --timezone Europe/Berlin
        kaos train schedule --on-data --promote-to digits --if "accuracy >= 0.9 and > current"
        kaos train schedule list
    """
    if context.invoked_subcommand is not None:
        if any(value is not click.core.ParameterSource.DEFAULT for value in _sources(context)):
            raise InvalidInputError(
                "Options of a new schedule do not go with a command.",
                f"See kaos train schedule {context.invoked_subcommand} --help.",
            )
        return
    row = _client().set(options["name"], _asked(options))
    if options["output"] == "json":
        print_json(row.model_dump(mode="json"))
        return
    print_rows([row])
    say(f"Watch it: kaos train schedule list, and {load_config().url}{row.url}")


@schedule.command("list")
@OutputOption
def list_schedules(output: str) -> None:
    """List schedules, and what their last runs came to.

    \b
    Example:
        kaos train schedule list
    """
    rows = _client().list().schedules
    if output == "json":
        print_json([row.model_dump(mode="json") for row in rows])
    elif rows:
        print_rows(rows)
    else:
        say('There is no schedule yet. Make one: kaos train schedule --cron "0 3 * * *"')


@schedule.command()
@ScheduleOption
def pause(name: str) -> None:
    """Let a schedule start no more jobs; one that runs goes on.

    \b
    Example:
        kaos train schedule pause --job scheduled
    """
    _client().pause(name)
    say(f"Successfully paused schedule {name}")


@schedule.command()
@ScheduleOption
def resume(name: str) -> None:
    """Let a schedule start jobs again.

    \b
    Example:
        kaos train schedule resume --job scheduled
    """
    _client().resume(name)
    say(f"Successfully resumed schedule {name}")


@schedule.command()
@ScheduleOption
def delete(name: str) -> None:
    """Remove a schedule; its jobs and models stay.

    What runs of it is ended.

    \b
    Example:
        kaos train schedule delete --job scheduled
    """
    deleted = _client().delete(name)
    for job_id in deleted.stopped_jobs:
        say(f"Stopped job {job_id}")
    say(f"Successfully deleted schedule {name}")


@schedule.command()
@ScheduleOption
@click.option("--reject", is_flag=True, help="Say no.")
def approve(name: str, reject: bool) -> None:
    """Say whether a model shall be deployed that waits.

    \b
    Example:
        kaos train schedule approve --job scheduled
    """
    row = _client().answer(name, approved=not reject)
    say(f"Successfully {'rejected' if reject else 'approved'} the model of job {row.waiting}")


def print_rows(rows: list[ScheduleRow]) -> None:
    """Print schedules as a table."""
    lines = narrow(_WIDE)
    cells = [
        (
            row.name,
            row.when.replace(" (", "\n(") if lines else row.when,
            _when(row, lines=lines),
            _last(row, lines=lines),
        )
        for row in rows
    ]
    print_table(["job", "when", "next", "last run"], cells, title="SCHEDULES")


def _when(row: ScheduleRow, *, lines: bool) -> str:
    if row.paused:
        return "paused"
    if row.next is None:
        return ""
    return f"{row.next:%d %b}\n{row.next:%H:%M:%S}" if lines else show_time(row.next)


def _last(row: ScheduleRow, *, lines: bool) -> str:
    last = row.last
    if last is None:
        return ""
    what = str(last.state) if last.state is not None else "skipped" if last.skipped else "failed"
    at = f"{last.at:%d %b %H:%M:%S}" if lines else show_time(last.at)
    if row.waiting is not None:
        what = "waits for approval"
    told = "\n".join(_folded(last.reason, 34 if lines else 60))
    job = f"\njob {last.job_id}" if last.job_id is not None and not lines else ""
    return f"{at}\n{what}{job}" + (f"\n{told}" if told else "")


def _folded(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)


def _sources(context: click.Context) -> list[object]:
    return [context.get_parameter_source(parameter.name or "") for parameter in context.command.params]


def _client() -> SchedulesClient:
    config = load_config()
    return SchedulesClient(connect(config).connection, current_workspace(config))


def _asked(options: dict[str, Any]) -> ScheduleSet:
    """Return the schedule that the options ask for, checked before anything is sent."""
    times = [name for name in ("cron", "every", "on_data") if options[name]]
    if len(times) != 1:
        problem = "When?" if not times else "A schedule has one kind of time."
        raise InvalidInputError(
            problem,
            'Give one of --cron "0 3 * * *", --every 6h and --on-data; or list, pause, resume, delete.',
        )
    if options["timezone"] is not None and options["cron"] is None:
        raise InvalidInputError("--timezone goes with --cron.", "Leave it out.")
    if options["check_every"] is not None and not options["on_data"]:
        raise InvalidInputError("--check-every goes with --on-data.", "Leave it out.")
    given = {
        "timezone": options["timezone"],
        "every": parse_interval(options["every"]) if options["every"] is not None else None,
        "check_every": parse_interval(options["check_every"]) if options["check_every"] is not None else None,
    }
    promotion = _promotion(options)
    job = {name: options[name] for name in JobSettings.model_fields if name in options}
    return ScheduleSet(
        cron=options["cron"],
        on_data=options["on_data"],
        always=options["always"],
        promotion=promotion,
        job=JobSettings(**job, resources=Resources.parse(options["cpu"], options["memory"], options["gpu"])),
        **{name: value for name, value in given.items() if value is not None},
    )


def _promotion(options: dict[str, Any]) -> Promotion | None:
    if options["promote_to"] is None:
        for name, option in (
            ("condition", "--if"),
            ("metric", "--metric"),
            ("answer_within", "--answer-within"),
        ):
            if options[name] is not None:
                raise InvalidInputError(f"{option} goes with --promote-to.", "Name an endpoint.")
        if options["approve"]:
            raise InvalidInputError("--approve goes with --promote-to.", "Name an endpoint.")
        return None
    if options["condition"] is None:
        raise InvalidInputError(
            "Which models shall be promoted?",
            'Give a condition, such as --if "accuracy_test >= 0.9 and > current".',
        )
    if options["answer_within"] is not None and not options["approve"]:
        raise InvalidInputError("--answer-within goes with --approve.", "Leave it out.")
    within = (
        parse_interval(options["answer_within"]) if options["answer_within"] is not None else ANSWER_WITHIN
    )
    return Promotion(
        endpoint=options["promote_to"],
        condition=options["condition"],
        metric=options["metric"],
        approve=options["approve"],
        answer_within=within,
    )
