"""Who may log in to the local server."""

from __future__ import annotations

from collections.abc import Callable

from kaos.errors import LocalServerError
from kaos_cli.server.instance import User, load, save
from kaos_cli.server.layout import Layout
from kaos_cli.server.lock import exclusive
from kaos_cli.server.postgres import Database
from kaos_cli.server.settings import write_airflow_config
from kaos_cli.server.start import wait_until_ready
from kaos_cli.server.supervision import Supervisor


def create_user(layout: Layout, name: str, role: str, report: Callable[[str], None]) -> User:
    """Add a user with a random password; if the server runs, restart its API server, which alone knows users.

    :raises AlreadyExistsError: if there is one of that name
    """
    with exclusive(layout, report):
        instance = load(layout)
        if instance is None:
            raise LocalServerError("There is no local server here yet.", "Start it with: kaos up")
        instance = instance.with_user(name, role)
        save(layout, instance)
        write_airflow_config(layout, instance, str(Database.of(layout, instance).sockets))
        supervisor = Supervisor(layout)
        if supervisor.pid() is not None:
            report("restarting the API server")
            supervisor.stop("api-server", wait=True)
            supervisor.start("api-server")
            wait_until_ready(layout, instance, report)
        return instance.users[name]
