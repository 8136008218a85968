"""`kaos train provenance` and `kaos serve provenance`: the picture of what made a model or an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kaos_cli.client import connect
from kaos_cli.config import Config, current_workspace, load_config
from kaos_cli.lineage import LineageClient, Picture
from kaos_cli.options import EndpointOptions, chosen_endpoint
from kaos_cli.output import say

F = TypeVar("F", bound=Callable[..., Any])

_FORMATS = ["pdf", "svg", "png", "dot", "json", "openlineage"]


def PictureOptions(command: F) -> F:
    """Let a command say what picture is wanted, and where."""
    for option in (
        click.option(
            "--format",
            "wanted",
            type=click.Choice(_FORMATS),
            default="pdf",
            show_default=True,
            help="Of the file; the graph itself as json.",
        ),
        click.option(
            "-o",
            "--out-dir",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path(),
            help="Where to write; here by default.",
        ),
    ):
        command = option(command)
    return command


@click.command("provenance")
@click.option("-m", "--model-id", required=True, help="Id of the model, or a tag.")
@PictureOptions
def provenance_of_model(model_id: str, out_dir: Path, wanted: str) -> None:
    """Draw everything that made a model.

    The picture is written to WORKSPACE/provenance below the directory.

    \b
    Example:
        kaos train provenance -m e23a2_9fd9d:b82151
    """
    client = _client(load_config())
    _write(client, client.of_model(model_id, wanted), out_dir)


@click.command("provenance")
@EndpointOptions
@click.option("--all", "everything", is_flag=True, help="All revisions, not only those with its traffic.")
@PictureOptions
def provenance_of_endpoint(
    ind: int | None, endpoint: str | None, everything: bool, out_dir: Path, wanted: str
) -> None:
    """Draw everything that made an endpoint, training and serving.

    The picture is written to WORKSPACE/provenance below the directory.

    \b
    Example:
        kaos serve provenance -e serve-mnist-ae6466
    """
    config = load_config()
    client = _client(config)
    name = chosen_endpoint(config, client.workspace_name, ind, endpoint)
    _write(client, client.of_endpoint(name, wanted, everything=everything), out_dir)


def _write(client: LineageClient, picture: Picture, out_dir: Path) -> None:
    path = out_dir / client.workspace_name / "provenance" / picture.name
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_bytes(picture.content)
    scratch.replace(path)
    for note in picture.notes:
        say(f"Warning: {note}")
    click.echo(path)


def _client(config: Config) -> LineageClient:
    return LineageClient(connect(config).connection, current_workspace(config))
