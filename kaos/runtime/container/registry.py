"""Where images are pushed to and pulled from, and how one logs in there."""

from __future__ import annotations

import base64
import ipaddress
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Login:
    """Be a user of a registry.

    :param registry: its host, with the port
    """

    registry: str
    username: str
    password: str = field(repr=False)

    @staticmethod
    @contextmanager
    def written(login: Login | None) -> Iterator[Path | None]:
        """Yield a folder with a ``config.json`` as docker and podman read it; None without a login.

        A file and not an argument: arguments are in the process list. It is gone afterwards.
        """
        if login is None:
            yield None
            return
        token = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
        with tempfile.TemporaryDirectory(prefix="kaos-") as name:
            file = Path(name) / "config.json"
            file.touch(0o600)
            file.write_text(json.dumps({"auths": {login.registry: {"auth": token}}}))
            yield file.parent


@dataclass(frozen=True)
class Registry:
    """Be a repository of images.

    :param repository: host, port and path, such as ``registry.example.com/team/kaos``; images differ by tag
    :param login: returns how to log in, asked before each push and pull since passwords may be short-lived;
        None for the logins that the engine has itself
    """

    repository: str
    login: Callable[[], Login | None] = lambda: None


def host_of(reference: str) -> str:
    """Return the registry's host, with its port, of an image's name; empty where it names none."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def is_loopback(reference: str) -> bool:
    """Tell whether an image's registry is on this machine."""
    host = host_of(reference).rpartition(":")[0] or host_of(reference)
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
