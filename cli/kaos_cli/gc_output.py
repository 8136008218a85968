"""What `kaos gc` prints."""

from __future__ import annotations

from datetime import datetime, timedelta

import click

from kaos.schema.retention import Amount, Collected, WorkspaceCollected
from kaos_cli.output import table_text

_MODELS = 20
_JOB = 12


def print_plan(collected: Collected, *, err: bool = False) -> None:
    """Print which models go, a table for each workspace that loses some, and why the others stay."""
    for found in collected.workspaces:
        click.echo(f"{found.workspace}: {found.policy.shown}{_reasons(found)}", err=err)
        if found.models:
            click.echo(_models(found, collected.at), err=err)


def print_sizes(collected: Collected) -> None:
    """Print what there is in the store, what goes, and what is removed beside it."""
    rows = [("store before", collected.before)]
    verb = "would be removed" if collected.dry_run else "removed"
    rows += [(verb, collected.discarded)]
    if collected.waiting.objects:
        rows += [("set aside, goes later", collected.waiting)]
    rows += [("store after", collected.after)]
    rows += [(f"{each.what}, {verb}", each.amount) for each in collected.machine if each.amount.objects]
    click.echo(
        table_text(["", "files", "size"], [(name, each.objects, size(each.bytes)) for name, each in rows])
    )
    if collected.disk_before is not None and collected.disk_after is not None:
        click.echo(f"On the disk: {size(collected.disk_before)} before, {size(collected.disk_after)} after")


def is_empty(plan: Collected) -> bool:
    """Tell whether there is nothing to remove."""
    going = any(each.models or each.jobs or each.trees for each in plan.workspaces)
    return not (going or plan.discarded.objects or any(each.amount.objects for each in plan.machine))


def question(plan: Collected) -> str:
    """Return what is asked before anything is removed."""
    models = sum(len(each.models) for each in plan.workspaces)
    beside = Amount(
        objects=sum(each.amount.objects for each in plan.machine),
        bytes=sum(each.amount.bytes for each in plan.machine),
    )
    more = f", and {size(beside.bytes)} beside it" if beside.objects else ""
    return f"Remove {_count(models, 'model')} and {size(plan.discarded.bytes)} of the store{more}?"


def summary(collected: Collected) -> str:
    """Return what was removed, in a line."""
    models = sum(len(each.models) for each in collected.workspaces)
    return (
        f"{_count(models, 'model')} removed; the store has {size(collected.after.bytes)},"
        f" it had {size(collected.before.bytes)}"
    )


def notes(collected: Collected) -> list[str]:
    """Return what is to be said besides."""
    found = []
    if collected.waiting.objects:
        found.append(
            f"{size(collected.waiting.bytes)} are set aside: jobs that run may have found them here. They go"
            " with the first kaos gc after those."
        )
    return found


def size(count: int) -> str:
    """Return bytes as people read them: ``1.2 MB``."""
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def _models(found: WorkspaceCollected, now: datetime) -> str:
    rows = [
        (each.model_id, each.job_id[:_JOB], _age(now - each.created_at), size(each.size))
        for each in found.models[:_MODELS]
    ]
    left = len(found.models) - _MODELS
    if left > 0:
        rows.append((f"and {left} more", "", "", size(sum(each.size for each in found.models[_MODELS:]))))
    return table_text(["Model ID", "job", "age", "size"], rows)


def _reasons(found: WorkspaceCollected) -> str:
    if not found.policy.is_set or not found.kept:
        return ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in list(found.reasons.items())[:4])
    return f"\n{_count(found.kept, 'model')} kept ({reasons})"


def _age(age: timedelta) -> str:
    seconds = age.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
