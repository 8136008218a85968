"""`kaos workspace`: a team's walled garden for one kind of model."""

from __future__ import annotations

import click

from kaos.errors import InvalidInputError
from kaos.schema.workspace import Workspace
from kaos_cli.client import connect
from kaos_cli.commands.retention import retention
from kaos_cli.config import Config, current_workspace, load_config, remember_rows, row, save_config
from kaos_cli.output import OutputOption, print_json, print_table, say, show_time

_LISTING = "workspaces"
_LIST = "kaos workspace list"


@click.group()
def workspace() -> None:
    """Create, choose, show and remove workspaces."""


workspace.add_command(retention)


@workspace.command()
@click.option("-n", "--name", required=True, help="Lower-case letters, digits, '-' and '_'.")
@click.option("--runtime", help="Where its jobs run: process or container.  [default: the server's]")
def create(name: str, runtime: str | None) -> None:
    """Create a workspace, with its DAGs in Airflow, and set it.

    \b
    Example:
        kaos workspace create -n mnist
    """
    config = load_config()
    connect(config).workspaces.create(name, runtime)
    save_config(load_config().model_copy(update={"workspace": name}))
    say(f"Successfully set {name} workspace")


@workspace.command("list")
@OutputOption
def list_workspaces(output: str) -> None:
    """List the workspaces that you may see.

    \b
    Example:
        kaos workspace list
    """
    config = load_config()
    found = connect(config).workspaces.list().workspaces
    remember_rows(config, _LISTING, [known.name for known in found])
    rows = [_row(index, known, config) for index, known in enumerate(found)]
    if output == "json":
        print_json(rows)
    elif rows:
        rows = [{**each, "current": "✔" if each["current"] else ""} for each in rows]
        print_table(list(rows[0]), [list(each.values()) for each in rows], title="WORKSPACES")
    else:
        say("There is no workspace yet. Create one: kaos workspace create -n NAME")


@workspace.command("set")
@click.option("-n", "--name", help="Its name.")
@click.option("-i", "--ind", type=int, help="Its row in the list that was printed last.")
def set_workspace(name: str | None, ind: int | None) -> None:
    """Set the workspace that other commands work in.

    \b
    Example:
        kaos workspace set -n mnist
    """
    config = load_config()
    if (name is None) == (ind is None):
        raise InvalidInputError(
            "Which workspace?", "Give its name, -n NAME, or its row of kaos workspace list, -i 0."
        )
    chosen = name if name is not None else row(config, _LISTING, ind or 0, _LIST)
    connect(config).workspaces.get(chosen)
    save_config(load_config().model_copy(update={"workspace": chosen}))
    say(f"Successfully set {chosen} workspace")


@workspace.command()
def current() -> None:
    """Print the workspace that is set.

    \b
    Example:
        kaos workspace current
    """
    click.echo(current_workspace(load_config()))


@workspace.command()
@click.option("-n", "--name", help="Its name; the current one if left out.")
@OutputOption
def info(name: str | None, output: str) -> None:
    """Show what is in a workspace.

    \b
    Example:
        kaos workspace info
    """
    config = load_config()
    found = connect(config).workspaces.get(name or current_workspace(config))
    if output == "json":
        print_json(found.model_dump(mode="json"))
        return
    killed = found.workspace.killed_at is not None
    rows = [
        ("created_at", show_time(found.workspace.created_at)),
        ("created_by", found.workspace.created_by),
        ("runtime", found.runtime),
        ("dags", "\n".join(found.dags) or ("none: the workspace was killed" if killed else "none yet")),
        ("bundles", found.bundles),
        ("jobs", found.jobs),
        ("models", found.models),
    ]
    print_table(["WORKSPACE", found.workspace.name], rows)


@workspace.command()
@click.option("-n", "--name", help="Its name; the current one if left out.")
@click.option("--keep-models", is_flag=True, help="Keep jobs and models readable (`kaos train get`).")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def kill(name: str | None, keep_models: bool, yes: bool) -> None:
    """Stop what runs in a workspace, remove its DAGs, and forget it.

    \b
    Example:
        kaos workspace kill -n mnist --keep-models
    """
    config = load_config()
    chosen = name or current_workspace(config)
    workspaces = connect(config).workspaces
    found = workspaces.get(chosen)
    if not yes:
        lost = "its models stay" if keep_models else "its models go too"
        has = f"{_count(found.jobs, 'job')} and {_count(found.models, 'model')}"
        click.confirm(f"Kill workspace {chosen} with {has} ({lost})?", abort=True, err=True)
    killed = workspaces.kill(chosen, keep_models=keep_models)
    config = load_config()
    if config.workspace == chosen and not keep_models:
        save_config(config.model_copy(update={"workspace": None}))
    stopped = f", {_count(len(killed.stopped_jobs), 'running job')} stopped" if killed.stopped_jobs else ""
    kept = f", {_count(killed.kept_models, 'model')} kept" if keep_models else ""
    say(f"Successfully killed {chosen} workspace{stopped}{kept}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _row(index: int, found: Workspace, config: Config) -> dict[str, object]:
    return {
        "ind": index,
        "name": found.name,
        "current": found.name == config.workspace,
        "created_at": show_time(found.created_at),
        "user": found.created_by,
        "state": "killed" if found.killed_at else "",
    }
