"""What the client remembers: the server, the token, the workspace, and the rows it printed last."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from kaos.errors import InvalidInputError, UnauthenticatedError, UnknownNameError
from kaos.value import Value

V = TypeVar("V", bound=Value)


def home() -> Path:
    """Return the directory of everything that kaos keeps for this user: `KAOS_HOME`, or ``~/.kaos``."""
    return Path(os.environ.get("KAOS_HOME") or "~/.kaos").expanduser().absolute()


class Config(Value):
    """A connection, as `kaos init` made it.

    :param url: of Airflow's API server, without a slash at the end
    """

    url: str
    user: str
    token: str
    workspace: str | None = None


class LocalServer(Value):
    """This user's own `kaos up`."""

    url: str
    username: str
    password: str
    instance: str


def load_config() -> Config:
    """Return the connection.

    :raises UnauthenticatedError: there is none yet
    """
    config = read_config()
    if config is None:
        raise UnauthenticatedError("kaos is not connected to a server.", "Connect it: kaos init -e URL")
    return config


def read_config() -> Config | None:
    """Return the connection, or None."""
    return _read(home() / "client.json", Config)


def save_config(config: Config) -> None:
    """Keep the connection, for this user's eyes only."""
    write_private(home() / "client.json", config.encode())


def read_local_server() -> LocalServer | None:
    """Return this user's own running server, or None."""
    return _read(home() / "server.json", LocalServer)


def current_workspace(config: Config) -> str:
    """Return the workspace that commands work in.

    :raises UnknownNameError: none is set
    """
    if config.workspace is None:
        raise InvalidInputError(
            "No workspace is set.",
            "Create one, kaos workspace create -n NAME, or set one, kaos workspace set -n NAME.",
        )
    return config.workspace


def remember_rows(config: Config, listing: str, ids: list[str]) -> None:
    """Keep the rows of a list as it was printed: `-i` means these, whatever starts meanwhile."""
    path = home() / "listings.json"
    listings = _listings(path)
    listings[f"{config.url} {listing}"] = ids
    write_private(path, json.dumps(listings).encode())


def row(config: Config, listing: str, index: int, command: str) -> str:
    """Return the id in a row of the list that was printed last.

    :raises UnknownNameError: no list was printed, or it has no such row
    """
    ids = _listings(home() / "listings.json").get(f"{config.url} {listing}")
    if ids is None:
        raise UnknownNameError("row", str(index), next_step=f"Print the list first: {command}")
    if not 0 <= index < len(ids):
        raise UnknownNameError(
            "row", str(index), next_step=f"The list that was printed last has {len(ids)} rows: {command}"
        )
    return str(ids[index])


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    scratch.replace(path)


def _listings(path: Path) -> dict[str, Any]:
    try:
        listings = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return listings if isinstance(listings, dict) else {}


def _read(path: Path, kind: type[V]) -> V | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return kind.parse(content)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{path} is damaged: {error.message}", "Remove it, and connect again: kaos init"
        ) from error
