"""A real `kaos up` in a temporary home, gone afterwards however that comes about."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import urllib3

from bench.measure import Ended, run, say

KAOS = Path(sys.executable).with_name("kaos")
DOCKERFILE = "FROM python:3.11-slim\nWORKDIR /opt/program\nCOPY . /opt/program/\n"


@dataclass(frozen=True)
class Home:
    """The temporary home of a running server.

    :param scratch: for the files that are measured; on the same file system as the store
    :param state: KAOS_HOME
    """

    scratch: Path
    state: Path
    url: str

    @cached_property
    def env(self) -> dict[str, str]:
        """Return the environment of a client of this server."""
        return client_environment(self.state)

    @property
    def objects(self) -> Path:
        """Return the directory of the store's objects."""
        return self.state / "store" / "objects"

    def kaos(self, *arguments: str | Path, http: bool = False) -> Ended:
        """Run a `kaos` command; with `http` its bytes do not take the short way into the store."""
        env = {**self.env, "KAOS_TRANSFER": "http"} if http else self.env
        return run([KAOS, *arguments], env=env)

    def new_workspace(self, name: str) -> None:
        """Make a workspace and work in it."""
        self.kaos("workspace", "create", "-n", name)

    def newest_job(self) -> str:
        """Return the id of the workspace's newest job."""
        return str(json.loads(self.kaos("train", "list", "-n", "1", "-o", "json").stdout)[0]["job_id"])

    def wait(self, job: str) -> None:
        """Wait until a job has ended well."""
        while True:
            state = json.loads(self.kaos("train", "info", "-j", job, "-o", "json").stdout)["state"]
            if state == "JOB_SUCCESS":
                return
            if state not in ("JOB_STARTING", "JOB_RUNNING"):
                raise RuntimeError(
                    f"Job {job} ended as {state}: {self.kaos('train', 'logs', '-j', job).stdout}"
                )
            time.sleep(0.2)

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until Airflow knows the DAG of a file that was just put into its folder."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if any(dag["dag_id"] == dag_id for dag in self.api("GET", "/api/v2/dags?limit=100")["dags"]):
                return
            time.sleep(0.5)
        raise TimeoutError(f"Airflow does not find {dag_id} in its dags folder.")

    def forget_objects(self, size: int) -> None:
        """Take the objects of this size out of the store, and forget what the client remembers of files.

        They are moved away, not deleted: for some seconds after 10,000 deletions ext4 is several times slower
        at creating files.
        """
        trash = self.trash()
        for directory in self.objects.glob("??"):
            for entry in os.scandir(directory):
                if entry.stat().st_size == size:
                    Path(entry.path).rename(trash / entry.name)
        self.forget_cache()

    def trash(self) -> Path:
        """Return a new directory for what is deleted at the end."""
        trash = self.scratch / "trash"
        trash.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(dir=trash))

    def forget_cache(self) -> None:
        """Remove what the client remembers of files."""
        shutil.rmtree(self.state / "cache", ignore_errors=True)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask Airflow's own REST API."""
        token = json.loads((self.state / "client.json").read_text())["token"]
        response = _pool.request(
            method, f"{self.url}{path}", json=body, headers={"Authorization": f"Bearer {token}"}
        )
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: HTTP {response.status}: {response.data[:500]!r}")
        return response.json()

    def processes(self, component: str) -> list[psutil.Process]:
        """Return the processes of one component of the server."""
        found = []
        for process in psutil.process_iter():
            try:
                environ = process.environ()
            except psutil.Error:
                continue
            if environ.get("KAOS_HOME") == str(self.state) and environ.get("KAOS_COMPONENT") == component:
                found.append(process)
        return found


_pool = urllib3.PoolManager()


@contextmanager
def server(directory: Path | None) -> Iterator[Home]:
    """Start a server in a temporary directory, connect to it, and remove both at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory, ignore_cleanup_errors=True) as scratch:
        state, port = Path(scratch) / "home", _free_port()
        env = client_environment(state)
        try:
            say(f"starting a server in {state}")
            started = run([KAOS, "up", "--port", str(port)], env=env)
            say(f"it is up after {started.seconds:.1f} s")
            run([KAOS, "init"], env=env)
            yield Home(Path(scratch), state, f"http://127.0.0.1:{port}")
        finally:
            say("stopping the server and removing its state")
            subprocess.run(
                [KAOS, "down", "--purge", "--yes"], env=env, stdout=subprocess.DEVNULL, check=False
            )


def client_environment(state: Path) -> dict[str, str]:
    """Return this process's environment with another KAOS_HOME and nothing else of kaos or Airflow.

    Bytecode is kept, as on the machine of a user.
    """
    foreign = ("KAOS_", "AIRFLOW", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "KAOS_HOME": str(state)}


def source_bundle(directory: Path, script: str) -> Path:
    """Write a source bundle whose `train` is this Python script, without requirements."""
    model = directory / directory.name / "model"
    model.mkdir(parents=True)
    (model.parent / "Dockerfile").write_text(DOCKERFILE)
    (model / "requirements.txt").touch()
    (model / "train").write_text(f"#!/usr/bin/env python3\n{script}")
    (model / "train").chmod(0o755)
    return directory


def _free_port() -> int:
    for port in range(19_100, 20_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("No free port between 19100 and 20000.")
