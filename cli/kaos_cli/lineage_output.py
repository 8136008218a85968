"""What `kaos lineage` prints."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from kaos.schema.lineage import Difference, LineageAnswer, LineageRow, ModelDifference, Rebuilt
from kaos_cli.output import print_json, print_table, say

_FILES = 10
_DIFFERENCES = 20
_TEXT = 200
_WIDTH = 36
_COLUMNS = ["kind", "name", "what is known"]


def show(answer: LineageAnswer, output: str, verb: str, *, everywhere: bool) -> None:
    """Print an answer, as a table or as JSON.

    :param verb: what the rows did to what was asked about
    :param everywhere: of all workspaces: the table says of which each row is
    """
    for record in answer.damaged:
        say(f"Warning: this record cannot be read, and is left out: {record}")
    if output == "json":
        print_json(answer.model_dump(mode="json"))
        return
    for file in answer.files[:_FILES]:
        of = f" of {file.workspace}" if everywhere else ""
        say(f"{file.path} in {file.kind} {file.holder}{of}")
    if len(answer.files) > _FILES:
        say(f"and {len(answer.files) - _FILES} more places")
    if not answer.rows:
        say(f"Nothing {verb} {answer.what}.")
        return
    title = ", ".join(f"{count} {_plural(kind, count)}" for kind, count in answer.counts.items())
    say(f"{title} {verb} {answer.what}:")
    if everywhere:
        print_table(["workspace", *_COLUMNS], [_cells_of(row) for row in answer.rows])
    else:
        print_table(_COLUMNS, [_cells(row) for row in answer.rows])
    rest = sum(answer.counts.values()) - len(answer.rows)
    if rest:
        say(f"and {rest} more: -n {sum(answer.counts.values())}, or -o json")


def print_difference(found: ModelDifference) -> None:
    """Print in what two models differ, part by part."""
    if not found.differences:
        say(f"{found.one} and {found.other} do not differ.")
        return
    for part, differences in groupby(found.differences, key=lambda each: each.of):
        shown = list(differences)
        print_table(["", part.upper(), found.one, found.other], [_row(each) for each in shown[:_DIFFERENCES]])
        if len(shown) > _DIFFERENCES:
            say(f"and {len(shown) - _DIFFERENCES} more in {part}: -o json")
    if found.same:
        say(f"The same in both: {', '.join(found.same)}.")


def print_rebuilt(found: Rebuilt) -> None:
    """Print what a server has again."""
    for record in found.damaged:
        say(f"Warning: this record cannot be read, and is left out: {record}")
    counts = {
        "workspaces": len(found.workspaces),
        "DAGs published": len(found.dags),
        "jobs listed": found.jobs,
        "jobs started": len(found.started),
        "models": found.models,
        "endpoints wanted": len(found.endpoints),
        "records left out": len(found.damaged),
    }
    print_table(["what", "count"], list(counts.items()))


def _row(found: Difference) -> list[str]:
    mark = "+" if found.one is None else "-" if found.other is None else "~"
    return [mark, _wrapped(found.what, 24), _wrapped(found.one or ""), _wrapped(found.other or "")]


def _cells(row: LineageRow, width: int = _WIDTH) -> list[str]:
    return [row.kind, _wrapped(row.name, 26), "\n".join(_lines(row.detail, width))]


def _cells_of(row: LineageRow) -> list[str]:
    return [_wrapped(row.workspace, 12), *_cells(row, _WIDTH - 18)]


def _wrapped(text: str, width: int = 22) -> str:
    text = text if len(text) <= _TEXT else f"{text[:_TEXT]}…"
    return "\n".join(_lines(text, width))


def _lines(text: str, width: int) -> Iterator[str]:
    """Yield a text in lines that fit, broken between words where there are any."""
    while len(text) > width:
        end = text.rfind(" ", 0, width + 1)
        end = end if end > 0 else width
        yield text[:end].rstrip()
        text = text[end:].lstrip()
    yield text


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 else {"hyperparams": "hyperparameters", "data": "data"}.get(kind, f"{kind}s")
