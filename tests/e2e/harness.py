"""What the end-to-end tests share: a server, its users, and bundles that train in no time."""

from __future__ import annotations

import configparser
import json
import os
import random
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import psycopg2
from conftest import write_tree

T = TypeVar("T")

_PORTS = range(5_000, 12_000)
"""Below those of services, and those that the kernel gives to outgoing connections: one of these could take
the port before a server listens, or while it is down, and keep it for a minute beyond its own end.
"""

DOCKERFILE = f"FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim\n"
"""Asks for the Python that runs here: nothing has to be downloaded."""

TRAIN = """
import json, os
from pathlib import Path
output = Path(os.environ["KAOS_OUTPUT"])
(output / "metrics").mkdir()
(output / "model").mkdir()
"""
"""How a script begins that writes a model."""


@dataclass
class Kaos:
    """A user at a shell: a home of her own, a directory that she works in."""

    home: Path
    directory: Path
    variables: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
        """Start a command and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "kaos_cli", *map(str, arguments)],
            cwd=self.directory,
            env={
                **os.environ,
                **self.variables,
                **variables,
                "KAOS_HOME": str(self.home),
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        *arguments: str | Path,
        code: int | None = 0,
        stdin: str = "",
        seconds: float = 120,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must have the exit code (None: any) and show no traceback."""
        with self.start(*arguments, **variables) as process:
            try:
                out, err = process.communicate(stdin, timeout=seconds)
            except BaseException:
                process.kill()
                raise
        result = subprocess.CompletedProcess(arguments, process.returncode, out, err)
        assert code in (None, result.returncode), f"{arguments}: {result.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return result

    def json(self, *arguments: str | Path) -> Any:
        """Return what a command prints with ``-o json``."""
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def deploy(self, *arguments: str | Path) -> str:
        """Deploy, and return the id of the job."""
        return str(self.json("train", "deploy", *arguments)["job_id"])

    def deploy_and_wait(self, *arguments: str | Path, code: int = 0) -> str:
        """Deploy, wait for the end of the job, and return its id."""
        done = self.run("train", "deploy", *arguments, "--wait", "-o", "json", code=code)
        assert done.stdout, done.stderr
        return str(json.loads(done.stdout)["job_id"])

    def info(self, job_id: str) -> Any:
        """Return what ``train info`` says of a job."""
        return self.json("train", "info", "-j", job_id)

    def ended(self, job_id: str, seconds: float = 240) -> Any:
        """Return what ``train info`` says of a job once it has ended."""
        return until(lambda: ended(self.info(job_id)), seconds, f"the end of job {job_id}")

    def damage(self, workspace: str) -> list[str]:
        """Return what ``bundle verify`` says of a workspace, or of objects that are nobody's."""
        result = self.run("bundle", "verify", code=None)
        assert result.returncode == (6 if result.stdout else 0), result
        lines = result.stdout.splitlines()
        return [line for line in lines if f"workspace {workspace}" in line or line.startswith("object ")]

    def log(self, job_id: str) -> list[str]:
        """Return the lines of a job's script."""
        return self.run("train", "logs", "-j", job_id).stdout.splitlines()


@dataclass
class Server:
    """A real `kaos up`, and its owner at the shell."""

    owner: Kaos
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        return self.owner.home

    @property
    def instance(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "instance.json").read_text()))

    @property
    def secrets(self) -> dict[str, str]:
        """Return what nobody may see, by name."""
        instance = self.instance
        keys = ("fernet_key", "jwt_secret", "secret_key", "database_password")
        passwords = {f"password of {name}": user["password"] for name, user in instance["users"].items()}
        return {key: instance[key] for key in keys} | passwords

    def pid(self, component: str) -> int:
        """Return the process of a component, once it has one: a test may have killed it a moment before."""

        def found() -> int | None:
            rows = json.loads(self.owner.start("status", "-o", "json").communicate()[0])["processes"]
            return next((row["pid"] for row in rows if row["name"] == component), None)

        return until(found, 60, f"a process of {component}")

    def processes(self) -> Iterator[psutil.Process]:
        """Iterate over all processes of the server and of its jobs."""
        instance = self.instance["id"]
        for process in psutil.process_iter():
            try:
                if process.environ().get("KAOS_INSTANCE") == instance:
                    yield process
            except psutil.Error:
                continue

    def token(self, user: str, password: str) -> str:
        """Return a token as Airflow gives it out."""
        body = {"username": user, "password": password}
        answer = httpx.post(f"{self.url}/auth/token", json=body, trust_env=False, timeout=30)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["access_token"])

    def http(self, token: str | None) -> httpx.Client:
        """Return a client of Airflow's API server, with a token or without."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    def sql(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """Execute a statement in Airflow's database; return the rows of one that has RETURNING."""
        config = configparser.ConfigParser()
        config.read(self.home / "airflow" / "airflow.cfg")
        address = config["database"]["sql_alchemy_conn"].replace("postgresql+psycopg2", "postgresql")
        with closing(psycopg2.connect(address)) as database, database, database.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def owner_token(self) -> str:
        """Return a token of the server's owner."""
        name, user = next(iter(self.instance["users"].items()))
        return self.token(name, user["password"])

    def create_user(self, name: str, role: str) -> str:
        """Create a user and return her password."""
        out = self.owner.run("user", "create", "-n", name, "--role", role).stdout
        return next(line.split()[1] for line in out.splitlines() if "password" in line)


def free_port() -> int:
    """Return a port on which nothing listens, nor on the next one, which `kaos up` takes for its gateway."""
    while True:
        port = random.SystemRandom().choice(_PORTS)  # not that of `random`, which hypothesis seeds
        doors = (("127.0.0.1", port), ("127.0.0.1", port + 1))
        with suppress(OSError), socket.create_server(doors[0]), socket.create_server(doors[1]):
            return port


def until(condition: Callable[[], T | None], seconds: float, what: str, every: float = 0.1) -> T:
    """Return what `condition` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(every)
    return found


def until_gone(http: httpx.Client, dag_id: str) -> None:
    """Wait until Airflow has no DAG of this id; the DAG processor may just have been reading its file."""
    until(lambda: http.get(f"/api/v2/dags/{dag_id}").status_code == 404, 60, f"the end of {dag_id}")


def task(server: Server) -> psutil.Process:
    """Return the process of the one task that runs, which a worker of the executor forked."""
    scheduler = psutil.Process(server.pid("scheduler"))

    def only() -> psutil.Process | None:
        try:
            found = [child for worker in scheduler.children() for child in worker.children()]
        except psutil.NoSuchProcess:  # a worker that ended between the two looks
            return None
        return found[0] if len(found) == 1 else None

    return until(only, 20, "the end of all other tasks")


def ended(job: dict[str, Any]) -> dict[str, Any] | None:
    """Return a job that has ended, None otherwise."""
    return None if job["state"] in ("JOB_STARTING", "JOB_RUNNING") else job


def write_source(
    root: Path, script: str, *, name: str = "mnist", requirements: str = "", dockerfile: str = DOCKERFILE
) -> Path:
    """Write a source bundle whose ``train`` is this Python; return the directory to deploy."""
    files: dict[str, bytes | str | None] = {
        f"{name}/Dockerfile": dockerfile,
        f"{name}/model/requirements.txt": requirements,
        f"{name}/model/train": script if script.startswith("#!") else f"#!/usr/bin/env python3\n{script}",
    }
    return write_tree(root, files)


def write_data(root: Path, content: str = "1,2,3\n", *, name: str = "features") -> Path:
    """Write a data bundle of one file; return the directory to deploy."""
    return write_tree(root, {f"{name}/table.csv": content})


def tree_of(root: Path) -> dict[str, bytes]:
    """Return all files below a directory."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def files_of(root: Path) -> dict[Path, os.stat_result]:
    """Return all files below a directory in which a server works: some go while they are looked for."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(FileNotFoundError):
                status = Path(folder, name).stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found[Path(folder, name)] = status
    return found


def content_of(path: Path) -> bytes:
    """Return the content of a file, nothing of one that went meanwhile, as those of a process do."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
