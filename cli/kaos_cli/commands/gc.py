"""`kaos gc`: remove what nothing needs any more."""

from __future__ import annotations

import click

from kaos.errors import InvalidInputError
from kaos.retention import RetentionPolicy
from kaos.schema.retention import Collected, CollectRequest
from kaos_cli import gc_output
from kaos_cli.client import connect
from kaos_cli.config import current_workspace, load_config
from kaos_cli.options import FiniteRange, PolicyOptions
from kaos_cli.output import OutputOption, done, print_json, say
from kaos_cli.retention import RetentionClient


@click.command()
@PolicyOptions
@click.option("-w", "--workspace", help="Its name; the current one if left out.")
@click.option("--all", "everywhere", is_flag=True, help="All workspaces, each by its policy.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@click.option(
    "--grace",
    type=FiniteRange(0, 24 * 365),
    default=24,
    show_default=True,
    help="Hours for which unfinished uploads stay.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@OutputOption
def gc(
    keep_last: int | None,
    keep_days: float | None,
    workspace: str | None,
    everywhere: bool,
    dry_run: bool,
    grace: float,
    yes: bool,
    output: str,
) -> None:
    """Remove what no kept model, endpoint or job needs.

    What stays is said by the workspace's policy, or by --keep-last and --keep-days for this one time.
    Without either all models stay.

    \b
    Example:
        kaos gc --keep-last 10 --dry-run
    """
    config = load_config()
    if everywhere and workspace is not None:
        raise InvalidInputError("All workspaces, or one?", "Leave --all or -w out.")
    policy = RetentionPolicy(keep_last=keep_last, keep_days=keep_days)
    chosen = None if everywhere else workspace or current_workspace(config)
    client = RetentionClient(connect(config).connection)
    request = CollectRequest(dry_run=True, policy=policy if policy.is_set else None, grace_hours=grace)
    if dry_run or not yes:
        plan = client.collect(chosen, request)
        if dry_run:
            _show(plan, output)
            return
        gc_output.print_plan(plan, err=True)
        if gc_output.is_empty(plan):
            _show(plan.model_copy(update={"dry_run": False}), output, quiet=True)
            say("There is nothing to remove.")
            return
        click.confirm(gc_output.question(plan), abort=True, err=True)
    collected = client.collect(chosen, request.model_copy(update={"dry_run": False}))
    _show(collected, output)
    if output == "table":
        done(gc_output.summary(collected))
        for note in gc_output.notes(collected):
            say(note)


def _show(collected: Collected, output: str, *, quiet: bool = False) -> None:
    if output == "json":
        print_json(collected.model_dump(mode="json"))
    elif not quiet:
        gc_output.print_plan(collected)
        gc_output.print_sizes(collected)
    for problem in collected.problems:
        say(f"Warning: {problem}")
