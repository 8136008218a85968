"""`kaos template`: a working example to start from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

import kaos_templates
from kaos.errors import InvalidInputError
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
    found = kaos_templates.find(name)
    kaos_templates.copy(name, Path("templates") / found.name, force=force)
    say(f"Successfully loaded {name} template")
    if found.remotes:
        manifests = " and ".join(remote.directory for remote in found.remotes)
        say(f"The remote files of {manifests} are served by kaos template serve {name}")


@template.command()
@click.argument("name")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port on this machine; 0 for a free one.  [default: 8790]"
)
def serve(name: str, port: int | None) -> None:
    """Serve the remote files of a template's manifests.

    They can be had on this machine only, until Ctrl-C.

    \b
    Example:
        kaos template serve mnist
    """
    from kaos_cli.file_server import FileServer
    from kaos_templates.remote import PORT, served

    found = kaos_templates.find(name)
    if not found.remotes:
        known = [each.name for each in kaos_templates.TEMPLATES if each.remotes]
        raise InvalidInputError(
            f"The template {name} has no data manifest, so that it has no remote files.",
            f"Templates with one: {', '.join(known)}.",
        )
    with FileServer(served(name), PORT if port is None else port) as server, suppress(KeyboardInterrupt):
        say(f"Serving the files of {name}, on this machine only; Ctrl-C ends it.")
        click.echo(server.url)
        if server.server_port != PORT:
            say(f"The manifests name port {PORT}. Write this one into your copies of them:")
            change = f"s/127.0.0.1:{PORT}/127.0.0.1:{server.server_port}/"
            say(f"    sed -i.bak {change} templates/{name}/data_manifest_*/data.mf")
        say("Next, in another terminal:")
        say(f"    kaos train deploy -s templates/{name}/model-train \\")
        say(f"        -m templates/{name}/{found.remotes[-1].directory}/data.mf")
        server.serve_forever()
