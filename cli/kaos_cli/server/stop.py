"""Stop the local server: afterwards no process of it is left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from kaos.errors import LocalServerError
from kaos_cli.server import processes
from kaos_cli.server.containers import remove_containers
from kaos_cli.server.files import write_private
from kaos_cli.server.instance import Instance, load
from kaos_cli.server.layout import AIRFLOW_COMPONENTS, SERVING_COMPONENTS, Layout
from kaos_cli.server.lock import exclusive
from kaos_cli.server.postgres import Database, stop_leftover
from kaos_cli.server.supervision import Supervisor


def down(layout: Layout, report: Callable[[str], None]) -> list[str]:
    """Stop everything, jobs included.

    :returns: the names of the components that ran; empty if nothing did
    """
    if not layout.instance.exists():
        return []
    with exclusive(layout, report):
        instance = load(layout)
        return stop(layout, instance, report) if instance else []


def stop(layout: Layout, instance: Instance, report: Callable[[str], None]) -> list[str]:
    """Stop everything; for callers that hold the lock."""
    supervisor = Supervisor(layout)
    stopped = [name for name, process in supervisor.processes().items() if process.pid]
    if not stopped and not processes.marked(instance.id) and not stop_leftover(Database.of(layout, instance)):
        return _remove_containers(instance)
    layout.run.mkdir(exist_ok=True, mode=0o700)
    write_private(layout.stopping, "")
    if supervisor.pid() is not None:
        # Airflow first: a scheduler that sees its jobs end would take them for failed and try them again.
        # And the keeper, which would start the services again.
        report("stopping Airflow")
        before = (*AIRFLOW_COMPONENTS, *reversed(SERVING_COMPONENTS))
        for name in before:
            supervisor.stop(name, wait=False)
        _wait(lambda: not any(one.pid for one in supervisor.processes().values() if one.name in before), 10)
    layout.server.unlink(missing_ok=True)
    stopped += _end_jobs(instance, report)
    report("stopping PostgreSQL")
    pid = supervisor.pid()
    supervisor.shutdown()
    if pid is not None:
        _wait(lambda: supervisor.pid() is None and not _is_running(pid), 30)
    # What is left now was left by a crash, or hung.
    left = processes.end(processes.marked(instance.id), grace=3)
    stop_leftover(Database.of(layout, instance))
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise LocalServerError(f"These processes do not end: {pids}.", "Try: kill -9")
    layout.stopping.unlink(missing_ok=True)
    return stopped


def purge(layout: Layout, instance: Instance) -> None:
    """Delete the state of a stopped server: what kaos made in its home, and the database."""
    shutil.rmtree(Database.of(layout, instance).folder, ignore_errors=True)
    for folder in (layout.airflow, layout.store, layout.work, layout.logs, layout.run):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (layout.supervisor_config, layout.instance, layout.server, layout.lock):
        file.unlink(missing_ok=True)


def _end_jobs(instance: Instance, report: Callable[[str], None]) -> list[str]:
    jobs = processes.marked(instance.id, components=False)
    if jobs:
        report("stopping jobs")
        processes.end(jobs, grace=5)
    ended = [f"{len(jobs)} processes of jobs"] if jobs else []
    return ended + _remove_containers(instance)


def _remove_containers(instance: Instance) -> list[str]:
    count = remove_containers(instance.id)
    return [f"{count} containers"] if count else []


def _is_running(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)
