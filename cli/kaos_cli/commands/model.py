"""`kaos model`: models that were not trained here."""

from __future__ import annotations

from pathlib import Path

import click

from kaos.names import check_model
from kaos_cli.client import connect
from kaos_cli.config import current_workspace, load_config
from kaos_cli.endpoints import EndpointsClient
from kaos_cli.output import OutputOption, done, print_json, print_table, progress_bar, say, show_time


@click.group()
def model() -> None:
    """Bring models from elsewhere."""


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
    client = EndpointsClient(connect(config).connection, current_workspace(config))
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
@OutputOption
def list_models(output: str) -> None:
    """List the imported models of the workspace.

    \b
    Example:
        kaos model list
    """
    config = load_config()
    found = EndpointsClient(connect(config).connection, current_workspace(config)).imports().models
    if output == "json":
        print_json([each.model_dump(mode="json") for each in found])
    elif found:
        rows = [
            (each.model_id, each.files, each.size, show_time(each.imported_at), each.imported_by)
            for each in found
        ]
        print_table(["model_id", "files", "bytes", "imported_at", "imported by"], rows, title="IMPORTED")
    else:
        say("No model was imported yet: kaos model import DIRECTORY --name NAME")
