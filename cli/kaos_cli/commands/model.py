"""`kaos model`: the models of a workspace, those from elsewhere among them, and their tags."""

from __future__ import annotations

from pathlib import Path

import click

from kaos.names import check_model, check_tag
from kaos_cli.client import connect
from kaos_cli.config import current_workspace, load_config
from kaos_cli.models import ModelsClient
from kaos_cli.output import OutputOption, done, narrow, print_json, print_table, progress_bar, say, show_time

_WIDE = 120


@click.group()
def model() -> None:
    """List and tag models, and bring some from elsewhere."""


@model.command("import")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-n", "--name", required=True, help="Lower-case letters, digits, '-' and '_'.")
@OutputOption
def import_model(directory: Path, name: str, output: str) -> None:
    """Version the files in DIRECTORY as a model.

    Its lineage is who imported it, and when.

    \b
    Example:
        kaos model import downloads/resnet --name resnet
    """
    from kaos.transfer.scan import walk
    from kaos_cli.transfer import scan_directory, submit, target_of

    check_model(name)
    config = load_config()
    client = ModelsClient(connect(config).connection, current_workspace(config))
    workspace = client.workspace(client.workspace_name)
    walked = walk(directory)
    target = target_of(workspace)
    say(f"Submitting model: {directory}")
    with progress_bar("Compressing model", walked.size) as progress:
        scanned = scan_directory(walked, target, progress)
        bundle = submit(workspace, "data", scanned, target, lambda _: None)
    for warning in scanned.warnings:
        say(f"Warning: {warning}")
    imported = client.import_model(name, bundle.pin.digest)
    done(f"Setting model: {imported.model_id}")
    if output == "json":
        print_json(imported.model_dump(mode="json"))
    else:
        say(f"Serve it: kaos serve deploy -s SOURCE -m {imported.model_id}")


@model.command("list")
@click.option("-n", "number", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@OutputOption
def list_models(number: int, output: str) -> None:
    """List the models of the workspace.

    \b
    Example:
        kaos model list
    """
    found = _models().list(number).models
    if output == "json":
        print_json([each.model_dump(mode="json") for each in found])
    elif found:
        rows = [
            {
                "ind": index,
                "model_id": each.model_id,
                "from": each.job_id or "imported",
                "created_at": show_time(each.at),
                "user": each.by,
                "tags": "removed" if each.removed else ", ".join(each.tags) or "✗",
            }
            for index, each in enumerate(found)
        ]
        columns = [name for name in rows[0] if name not in ("from", "created_at") or not narrow(_WIDE)]
        print_table(columns, [[row[name] for name in columns] for row in rows], title="MODELS")
    else:
        say("There is no model yet: kaos train deploy, or kaos model import DIRECTORY --name NAME")


@model.command("tag")
@click.argument("model_id")
@click.argument("tag")
@click.option("--why", default="", help="Kept with the move, for people.")
@OutputOption
def tag_model(model_id: str, tag: str, why: str, output: str) -> None:
    """Let TAG name the model MODEL_ID from now on.

    A tag can be given wherever a model id can; each of its moves is recorded.

    \b
    Example:
        kaos model tag e23a2_9fd9d:b82151 production
    """
    check_tag(tag)
    move = _models().tag(tag, model_id, why)
    if output == "json":
        print_json(move.model_dump(mode="json"))
    else:
        done(f"{tag} names {move.model_id}")


@model.command("untag")
@click.argument("tag")
@click.option("--why", default="", help="Kept with the move, for people.")
def untag_model(tag: str, why: str) -> None:
    """Take TAG away from its model. What it has named stays recorded.

    \b
    Example:
        kaos model untag production
    """
    check_tag(tag)
    _models().untag(tag, why)
    done(f"{tag} names no model")


@model.command("tags")
@click.argument("tag", required=False)
@OutputOption
def list_tags(tag: str | None, output: str) -> None:
    """List tags, or the models TAG has named.

    \b
    Example:
        kaos model tags production
    """
    if tag is not None:
        check_tag(tag)
    found = (_models().tags() if tag is None else _models().tag_moves(tag)).moves
    if output == "json":
        print_json([each.model_dump(mode="json") for each in found])
    elif found:
        rows = [
            (each.name, each.model_id or "✗", show_time(each.at), each.by, each.why or "✗") for each in found
        ]
        title = "TAGS" if tag is None else f"MOVES OF {tag}"
        print_table(["tag", "model_id", "since", "by", "why"], rows, title=title)
    else:
        say("No model has a tag yet: kaos model tag MODEL_ID TAG")


def _models() -> ModelsClient:
    config = load_config()
    return ModelsClient(connect(config).connection, current_workspace(config))
