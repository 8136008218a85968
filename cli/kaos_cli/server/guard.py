"""The guard: runs under supervisor and brings supervisor back when that is killed.

Supervisor restarts a killed guard; so each watches the other, and no third is needed.
"""

from __future__ import annotations

import os
import time

from kaos_cli.server import processes, supervision
from kaos_cli.server.instance import load
from kaos_cli.server.layout import Layout
from kaos_cli.server.postgres import Database, stop_leftover


def main() -> None:
    """Wait until supervisor dies, then clear up and become the new one, unless it was stopped on purpose."""
    layout, supervisor = Layout.current(), os.getppid()
    while os.getppid() == supervisor:
        time.sleep(0.25)
    instance = load(layout)
    if instance is None or layout.stopping.exists():
        return
    errors = os.open(supervision.error_log(layout), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nowhere = os.open(os.devnull, os.O_RDWR)
    # Standard output was a pipe to the dead supervisor.
    for descriptor, target in ((0, nowhere), (1, nowhere), (2, errors)):
        os.dup2(target, descriptor)
    os.write(2, f"{time.strftime('%FT%TZ', time.gmtime())} supervisord died; starting it anew\n".encode())
    database = Database.of(layout, instance)
    stop_leftover(database)
    # The kernel has ended Airflow's processes already (deathsignal); this is for where it does not.
    processes.end(processes.marked(instance.id, jobs=False), grace=0)
    command = supervision.command(layout)
    os.execve(command[0], command, {**os.environ, "KAOS_COMPONENT": "supervisord"})  # noqa: S606


if __name__ == "__main__":
    main()
