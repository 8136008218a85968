"""`kaos init`: connect to a running server."""

from __future__ import annotations

import sys

import click

from kaos.errors import AlreadyExistsError, InvalidInputError
from kaos_cli.client import Client, Connection, check_url, sign_in
from kaos_cli.config import Config, read_config, read_local_server, save_config
from kaos_cli.output import done


@click.command()
@click.option("-e", "--endpoint", help="Address of Airflow's API server; your own `kaos up` if left out.")
@click.option(
    "-t", "--token", help="A token to use instead of user and password; `-` reads it from standard input."
)
@click.option("-f", "--force", is_flag=True, help="Replace the connection that is there.")
def init(endpoint: str | None, token: str | None, force: bool) -> None:
    """Connect to a running kaos server.

    Asks for user and password, unless the server is your own `kaos up`. The token is kept in a file that only
    you can read.

    \b
    Example:
        kaos init -e http://127.0.0.1:8080
    """
    local = read_local_server()
    if endpoint is None and local is None:
        raise InvalidInputError("Which server?", "Name it, kaos init -e URL, or start your own: kaos up")
    url = check_url(endpoint) if endpoint is not None else local.url if local else ""
    before = read_config()
    if before is not None and before.url != url and not force:
        raise AlreadyExistsError(
            f"kaos is connected to {before.url}.", f"Replace that: kaos init -f -e {url}"
        )
    if token == "-":  # noqa: S105 (as other tools take it)
        token = sys.stdin.readline().strip()
    if token is None:
        if local is not None and local.url == url:
            token = sign_in(url, local.username, local.password)
        else:
            user = click.prompt("User", err=True)
            token = sign_in(url, user, click.prompt("Password", hide_input=True, err=True))
    info = Client(Connection(url, token)).info
    workspace = before.workspace if before is not None and before.url == url else None
    save_config(Config(url=url, user=info.user, token=token, workspace=workspace))
    done(f"Connected to {url} as {info.user} (kaos {info.version})")
