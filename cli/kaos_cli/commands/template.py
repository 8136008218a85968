"""`kaos template`: a working example to start from."""

from __future__ import annotations

from pathlib import Path

import click

import kaos_templates
from kaos_cli.output import OutputOption, print_json, print_table, say


@click.group()
def template() -> None:
    """Get a working example to start from."""


@template.command("list")
@OutputOption
def list_templates(output: str) -> None:
    """List the templates.

    \b
    Example:
        kaos template list
    """
    rows = [{"name": found.name, "summary": found.summary} for found in kaos_templates.TEMPLATES]
    if output == "json":
        print_json(rows)
    else:
        print_table(["name", "summary"], [list(each.values()) for each in rows], title="TEMPLATES")


@template.command()
@click.option("-n", "--name", required=True, help="One of kaos template list.")
@click.option("-f", "--force", is_flag=True, help="Overwrite the template's files that are there.")
def get(name: str, force: bool) -> None:
    """Write a template to templates/NAME.

    \b
    Example:
        kaos template get --name mnist
    """
    kaos_templates.copy(name, Path("templates") / kaos_templates.find(name).name, force=force)
    say(f"Successfully loaded {name} template")
