"""What came of making a model again, for people."""

from __future__ import annotations

import json
from typing import Any

import click

from kaos.digest import is_digest
from kaos.reproduction import Reproduction
from kaos_cli.output import print_table

_SHOWN = 20
_SHORT = 12
_WIDEST = 26


def print_verdict(found: Reproduction) -> None:
    """Print the verdict, and what is not the same."""
    click.echo(f"{found.model_id}: {found.shown}")
    if found.reason:
        click.echo(found.reason)
    if found.environment:
        rows = [[each.what, _cut(each.original), _cut(each.made)] for each in found.environment]
        _table("ENVIRONMENT", ["what", "original", "made again"], rows)
    if found.metrics:
        rows = [
            [each.name, _cut(each.original), _cut(each.made), "yes" if each.within else "no"]
            for each in found.metrics
        ]
        _table("METRICS", ["metric", "original", "made again", "within"], rows)
    if found.changed:
        rows = [[each.path, each.what] for each in found.changed]
        _table(f"FILES ({len(found.changed)} of {found.files})", ["file", "what"], rows)
    if found.left_out:
        click.echo(f"{found.left_out} more differences are not listed.")


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    print_table(columns, rows[:_SHOWN], title=title)
    if len(rows) > _SHOWN:
        click.echo(f"and {len(rows) - _SHOWN} more: -o json")


def _cut(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    scheme, colon, digest = text.rpartition(":")
    if is_digest(digest):
        return f"{scheme}{colon}{digest[:_SHORT]}"
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
