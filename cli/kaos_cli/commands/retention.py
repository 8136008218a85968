"""`kaos workspace retention`: which models a workspace keeps."""

from __future__ import annotations

import click

from kaos.errors import InvalidInputError
from kaos.retention import RetentionPolicy
from kaos_cli.client import connect
from kaos_cli.config import current_workspace, load_config
from kaos_cli.options import PolicyOptions
from kaos_cli.output import OutputOption, print_json, print_table, say, show_time
from kaos_cli.retention import RetentionClient


@click.command()
@PolicyOptions
@click.option("--keep-all", is_flag=True, help="Keep all models, as without a policy.")
@click.option("-n", "--name", help="Its name; the current one if left out.")
@OutputOption
def retention(
    keep_last: int | None, keep_days: float | None, keep_all: bool, name: str | None, output: str
) -> None:
    """Show or set which models the workspace keeps.

    \b
    Example:
        kaos workspace retention --keep-last 10 --keep-days 30
    """
    config = load_config()
    chosen = name or current_workspace(config)
    client = RetentionClient(connect(config).connection)
    policy = RetentionPolicy(keep_last=keep_last, keep_days=keep_days)
    if keep_all and policy.is_set:
        raise InvalidInputError("--keep-all goes with no other rule.", "Leave it out, or the others.")
    found = client.set(chosen, policy) if policy.is_set or keep_all else client.get(chosen)
    if output == "json":
        print_json(found.model_dump(mode="json"))
        return
    rows = [
        ("policy", found.policy.shown),
        ("set_by", found.set.by if found.set else ""),
        ("set_at", show_time(found.set.at) if found.set else ""),
        ("removed models", found.removed),
    ]
    print_table(["WORKSPACE", found.workspace], rows)
    if policy.is_set:
        say("It is applied once a day. See what would go: kaos gc --dry-run")
