"""The gateway and the keeper of the endpoints, as components of a local server."""

from __future__ import annotations

import configparser
import os
import sys
from typing import NoReturn

from kaos.serving.gateway import Gateway
from kaos_cli.server.instance import Instance
from kaos_cli.server.layout import Layout
from kaos_cli.server.ports import first_free

_HOST = "127.0.0.1"


def gateway(layout: Layout) -> Gateway:
    """Return the gateway of a home."""
    return Gateway(layout.work / "gateway", layout.run)


def choose_port(instance: Instance, wanted: int | None) -> int:
    """Return the gateway's port: the one asked for, that of the last start, or one near the server's."""
    return wanted or instance.gateway_port or first_free(_HOST, instance.port + 1)


def become(component: str, layout: Layout, instance: Instance) -> NoReturn:
    """Turn this process into the gateway or the keeper."""
    if component == "gateway":
        here = gateway(layout)
        here.write_config(_HOST, instance.gateway_port)
        command = here.command()
    else:
        command = [sys.executable, "-P", "-m", "kaos.serving.keeper"]
        os.environ.update(_container_options(layout))
    os.execv(command[0], command)  # noqa: S606 (the component, under the same supervisor)


def _container_options(layout: Layout) -> dict[str, str]:
    """Return, as Airflow's variables, the options for containers: the keeper does without Airflow."""
    parser = configparser.RawConfigParser()
    parser.read(layout.airflow_config)
    names = ("container_network", "container_user")
    found = {name: parser.get("kaos", name, fallback="").replace("%%", "%") for name in names}
    return {f"AIRFLOW__KAOS__{name.upper()}": value for name, value in found.items() if value}
