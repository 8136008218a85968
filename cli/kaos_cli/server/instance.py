"""What makes an instance: its id, its secrets and its users, kept in one file of mode 0600."""

from __future__ import annotations

import base64
import dataclasses
import getpass
import json
import os
import re
import secrets
from dataclasses import dataclass, field

from kaos.errors import AlreadyExistsError, InvalidNameError, LocalServerError
from kaos_cli.server.files import private_folder, write_private
from kaos_cli.server.layout import Layout

ROLES = ("viewer", "user", "op", "admin")

# Airflow splits its list of users at commas and colons.
_USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class User:
    """Be one person who may log in."""

    role: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Instance:
    """Be one local server, running or not."""

    id: str
    host: str
    port: int
    users: dict[str, User]
    fernet_key: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    secret_key: str = field(repr=False)
    database_password: str = field(repr=False)
    migrated: str = ""
    """The Airflow version whose tables the database has; empty before the first `up` is through."""
    registry: str = ""
    """Where images are pushed to; empty for nowhere."""
    gateway_port: int = 0
    """The port of all endpoints, on the loopback address; 0 before the first `up` that has a gateway."""

    @property
    def url(self) -> str:
        """Return the address of the UI and the API, as seen from this machine."""
        return f"http://{self.reachable_host}:{self.port}"

    @property
    def gateway_url(self) -> str:
        """Return the address below which endpoints are."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def reachable_host(self) -> str:
        """Return an address that reaches the server from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (a comparison)
        return f"[{host}]" if ":" in host else host

    @property
    def owner(self) -> tuple[str, User]:
        """Return the first user, the one whose machine this is."""
        return next(iter(self.users.items()))

    def with_user(self, name: str, role: str) -> Instance:
        """Add a user with a random password."""
        if not _USER_NAME.fullmatch(name):
            raise InvalidNameError("user", name, "Use letters, digits and . _ @ -, at most 64.")
        if name in self.users:
            raise AlreadyExistsError(f"There is a user {name!r} already.", "See: kaos user list")
        return dataclasses.replace(self, users={**self.users, name: User(role, new_password())})


def new_password() -> str:
    """Return 20 random characters."""
    return secrets.token_urlsafe(15)


def create(host: str, port: int) -> Instance:
    """Make up an instance with random secrets, whose one user is the login name, an admin."""
    return Instance(
        id=secrets.token_hex(8),
        host=host,
        port=port,
        users={_login_name(): User("admin", new_password())},
        fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        jwt_secret=secrets.token_urlsafe(64),
        secret_key=secrets.token_urlsafe(32),
        database_password=secrets.token_urlsafe(32),
    )


def _login_name() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return "admin"
    return name if _USER_NAME.fullmatch(name) else "admin"


def load(layout: Layout) -> Instance | None:
    """Read the instance of a home; None before the first `up`."""
    try:
        document = json.loads(layout.instance.read_text())
        users = {name: User(**user) for name, user in document.pop("users").items()}
        return Instance(users=users, **document)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise LocalServerError(f"{layout.instance} is not readable for user {os.geteuid()}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LocalServerError(
            f"{layout.instance} is damaged: {error}", "Restore it: it holds the key to the database."
        ) from error


def save(layout: Layout, instance: Instance) -> None:
    """Write the instance of a home."""
    private_folder(layout.home)
    write_private(layout.instance, json.dumps(dataclasses.asdict(instance), indent=1) + "\n")
