"""How the processes of an instance are, and whether each does its work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from kaos_cli.server.instance import Instance
from kaos_cli.server.layout import AIRFLOW_COMPONENTS, COMPONENTS, Layout
from kaos_cli.server.postgres import Database
from kaos_cli.server.serving import gateway
from kaos_cli.server.supervision import Process, Supervisor

# supervisor's words for a process that ended too soon
_FAILED = ("BACKOFF", "FATAL")
_ALIVE = ("STARTING", "RUNNING")

_ANSWER_SECONDS = 30


@dataclass(frozen=True)
class ProcessStatus:
    """Be one process of the instance."""

    name: str
    state: str
    """ready, starting, failed or stopped"""
    pid: int | None
    uptime: int | None
    """Seconds since it started."""
    log: str


def observe(layout: Layout, instance: Instance) -> list[ProcessStatus]:
    """Ask supervisor, PostgreSQL and Airflow; every process is `stopped` if supervisor does not run.

    A component of Airflow is ready when its heartbeat is younger than its process, for after a crash Airflow
    takes the heartbeat of the dead one for half a minute.
    """
    supervisor = Supervisor(layout)
    pid, found = supervisor.pid(), supervisor.processes()
    health = _airflow_health(instance) if found else None
    accepts = bool(found) and Database.of(layout, instance).is_ready()
    log, uptime = str(layout.log("supervisord")), _uptime(pid) if pid else None
    rows = [ProcessStatus("supervisord", "ready" if pid else "stopped", pid, uptime, log)]
    for name in COMPONENTS:
        process, log = found.get(name), str(layout.log(name))
        if process is None or process.state not in (*_ALIVE, *_FAILED):
            rows.append(ProcessStatus(name, "stopped", None, None, log))
        elif process.state in _FAILED:
            rows.append(ProcessStatus(name, "failed", None, None, log))
        else:
            works = gateway(layout).answers() if name == "gateway" else _works(process, health, accepts)
            state = "ready" if works else "starting"
            rows.append(ProcessStatus(name, state, process.pid, max(0, process.now - process.started), log))
    return rows


def _uptime(pid: int) -> int | None:
    import psutil

    try:
        return max(0, int(time.time() - psutil.Process(pid).create_time()))
    except psutil.NoSuchProcess:
        return None


def _works(process: Process, health: dict[str, Any] | None, accepts: bool) -> bool:
    if process.name == "postgres":
        return accepts
    if process.name not in AIRFLOW_COMPONENTS:
        return True
    if health is None:
        return False
    if process.name == "api-server":
        return bool(health["metadatabase"]["status"] == "healthy")
    name = process.name.replace("-", "_")
    heartbeat = health[name].get(f"latest_{name}_heartbeat")
    if health[name]["status"] != "healthy" or not heartbeat:
        return False
    return datetime.fromisoformat(heartbeat).timestamp() >= process.started


def _airflow_health(instance: Instance) -> dict[str, Any] | None:
    import urllib3

    pool = urllib3.PoolManager(timeout=_ANSWER_SECONDS, retries=False)
    try:
        # What tasks talk to is put together at its first request, which takes seconds: not in the first job.
        pool.request("GET", f"{instance.url}/execution/health")
        answer = pool.request("GET", f"{instance.url}/api/v2/monitor/health")
        document: dict[str, Any] = answer.json()
    except (urllib3.exceptions.HTTPError, ValueError):
        return None
    return document if answer.status == HTTPStatus.OK and "metadatabase" in document else None
