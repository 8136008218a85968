"""`kaos lineage`: where models come from, what came of a file, and how two models differ."""

from __future__ import annotations

import click

from kaos.errors import InvalidInputError
from kaos_cli import lineage_output
from kaos_cli.client import connect
from kaos_cli.config import current_workspace, load_config
from kaos_cli.lineage import LineageClient, QuestionClient, RebuildClient
from kaos_cli.output import OutputOption, print_json

_ROWS = 50

LimitOption = click.option(
    "-n", "--limit", type=click.IntRange(1), help=f"Rows at most.  [default: {_ROWS}; all with -o json]"
)
AllOption = click.option("--all", "everywhere", is_flag=True, help="In all workspaces that you may read.")


@click.group()
def lineage() -> None:
    """Ask where models come from, and what came of a file."""


@lineage.command()
@click.argument("ref")
@AllOption
@LimitOption
@OutputOption
def upstream(ref: str, everywhere: bool, limit: int | None, output: str) -> None:
    """List everything that had a part in REF.

    REF is a model, a tag, an endpoint or one of its revisions (NAME@3), a job, an image, a bundle
    (/mnist:e23a2), a file in one (/mnist:e23a2/model/train) or its SHA-256, a manifest or a URL in one.

    \b
    Example:
        kaos lineage upstream e23a2_9fd9d:b82151
    """
    answer = _questions(everywhere).upstream(ref, _limit(limit, output))
    lineage_output.show(answer, output, "had a part in", everywhere=everywhere)


@lineage.command()
@click.argument("ref")
@AllOption
@LimitOption
@OutputOption
def downstream(ref: str, everywhere: bool, limit: int | None, output: str) -> None:
    """List everything that came of REF.

    Live endpoints come first. REF is what it is for upstream.

    \b
    Example:
        kaos lineage downstream /features:9fd9d/training/training.csv
    """
    answer = _questions(everywhere).downstream(ref, _limit(limit, output))
    lineage_output.show(answer, output, "came of", everywhere=everywhere)


@lineage.command()
@click.argument("model_a")
@click.argument("model_b")
@OutputOption
def diff(model_a: str, model_b: str, output: str) -> None:
    """List in what two models differ.

    Files, hyperparameters, packages and metrics of MODEL_A are compared with those of MODEL_B.

    \b
    Example:
        kaos lineage diff e23a2_9fd9d:b82151 production
    """
    if model_a == model_b:
        raise InvalidInputError("That is one model twice.", "Give two: kaos lineage diff MODEL_A MODEL_B")
    found = _client().difference(model_a, model_b)
    if output == "json":
        print_json(found.model_dump(mode="json"))
    else:
        lineage_output.print_difference(found)


@lineage.command()
@OutputOption
def rebuild(output: str) -> None:
    """Let a fresh server know what is in its store.

    DAGs are published again, jobs that never ended are started, endpoints too. It can be repeated.

    \b
    Example:
        kaos lineage rebuild
    """
    found = RebuildClient(connect(load_config()).connection).rebuild()
    if output == "json":
        print_json(found.model_dump(mode="json"))
    else:
        lineage_output.print_rebuilt(found)


def _limit(limit: int | None, output: str) -> int | None:
    return limit if limit is not None or output == "json" else _ROWS


def _questions(everywhere: bool) -> QuestionClient:
    return QuestionClient(connect(load_config()).connection) if everywhere else _client()


def _client() -> LineageClient:
    config = load_config()
    return LineageClient(connect(config).connection, current_workspace(config))
