"""A real `kaos up`: what it leaves on disk and in the process list, and what it survives."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from e2e.harness import content_of, files_of, free_port, until

from kaos_cli.server.layout import AIRFLOW_COMPONENTS, COMPONENTS

pytestmark = pytest.mark.e2e

PROCESSES = (*COMPONENTS, "supervisord")


@dataclass
class Server:
    """A home, and the commands run in it."""

    home: Path
    port: int

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "KAOS_HOME": str(self.home)}
        return subprocess.Popen(
            [sys.executable, "-m", "kaos_cli", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=280)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    @property
    def instance(self) -> dict[str, Any]:
        return json.loads((self.home / "instance.json").read_text())

    def status(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in json.loads(self.run("status", "-o", "json").stdout)["processes"]}

    def wait_until_ready(self, seconds: float, other_than: tuple[str, int] | None = None) -> None:
        deadline = time.monotonic() + seconds
        while True:
            rows = self.status()
            is_new = other_than is None or rows[other_than[0]]["pid"] != other_than[1]
            if is_new and all(row["state"] == "ready" for row in rows.values()):
                return
            assert time.monotonic() < deadline, {name: row["state"] for name, row in rows.items()}
            time.sleep(0.2)

    def log_in(self, name: str, password: str) -> httpx.Response:
        body = {"username": name, "password": password}
        return httpx.post(f"http://127.0.0.1:{self.port}/auth/token", json=body, trust_env=False, timeout=30)


def marked(instance: str) -> dict[int, tuple[str, str | None]]:
    """Return the processes of an instance: component and job by pid (PostgreSQL's by its parent)."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            environ = process.environ()
            if environ.get("KAOS_INSTANCE") != instance:
                continue
            found[process.pid] = environ.get("KAOS_COMPONENT", ""), environ.get("KAOS_JOB")
            if environ.get("KAOS_COMPONENT") == "postgres":
                found |= {child.pid: ("postgres", None) for child in process.children(recursive=True)}
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # A path with spaces, and too long for a socket.
    home = tmp_path_factory.mktemp("server") / "a home of ada's, 100% hers" / ("long " * 12).strip()
    server = Server(home, free_port())
    # Two at once: one starts the server, the other waits and finds it.
    both = [server.start("up", "--port", str(server.port)) for _ in range(2)]
    results = [(*process.communicate(timeout=280), process.returncode) for process in both]
    try:
        assert [code for _, _, code in results] == [0, 0], results
        firsts = sorted(out.splitlines()[0] for out, _, _ in results)
        assert firsts[0].startswith("kaos is up, after ")
        assert firsts[1] == "kaos was running already."
        yield server
    finally:
        server.run("down", "--purge", "--yes")
        shutil.rmtree(server.home, ignore_errors=True)


def test_a_second_up_finds_the_first(server: Server):
    before = marked(server.instance["id"])
    second = server.run("up")
    assert second.returncode == 0
    name, user = next(iter(server.instance["users"].items()))
    assert f"http://127.0.0.1:{server.port}\n" in second.stdout
    assert f"user      {name}\n" in second.stdout
    assert f"password  {user['password']}\n" in second.stdout
    assert "kaos down" in second.stdout
    assert {pid for pid, (name, _) in before.items() if name != "postgres"} <= set(
        marked(server.instance["id"])
    )


def test_another_port_is_refused_while_it_runs(server: Server):
    result = server.run("up", "--port", str(free_port()))
    assert result.returncode == 1
    assert f"runs at http://127.0.0.1:{server.port} already" in result.stderr


def test_a_taken_port_is_named_before_anything_starts(server: Server, tmp_path: Path):
    other = Server(tmp_path / "other", server.port)
    result = other.run("up", "--port", str(server.port))
    assert result.returncode == 1
    assert f"Port {server.port} on 127.0.0.1 is taken by " in result.stderr
    assert str(server.status()["api-server"]["pid"]) in result.stderr
    assert not (other.home / "instance.json").exists()


def test_files_are_the_owners_alone(server: Server):
    modes = {
        path: stat.S_IMODE(status.st_mode)
        for path, status in files_of(server.home).items()
        if status.st_uid == os.geteuid()
    }
    assert {oct(mode) for path, mode in modes.items() if "store" not in path.parts} == {"0o600"}
    assert oct(stat.S_IMODE(server.home.stat().st_mode)) == "0o700"
    secrets = secrets_of(server)
    open_files = [path for path, mode in modes.items() if mode != 0o600]
    assert not [path for path in open_files if any(secret in content_of(path) for secret in secrets)]


def test_no_secret_in_the_process_list_or_a_log(server: Server):
    secrets = secrets_of(server)
    for pid in marked(server.instance["id"]):
        for name in ("cmdline", "environ"):
            found = content_of(Path(f"/proc/{pid}/{name}"))
            assert not any(secret in found for secret in secrets), (pid, name, found[:100])
    for log in (server.home / "logs").iterdir():
        assert not any(secret in log.read_bytes() for secret in secrets), log


def secrets_of(server: Server) -> list[bytes]:
    names = ("fernet_key", "jwt_secret", "secret_key", "database_password")
    passwords = [user["password"] for user in server.instance["users"].values()]
    return [secret.encode() for secret in [*(server.instance[name] for name in names), *passwords]]


def test_only_loopback_is_listened_on(server: Server):
    own = marked(server.instance["id"])
    found = [
        one.laddr
        for one in psutil.net_connections("inet")
        if one.pid in own and (one.status == psutil.CONN_LISTEN or one.type == socket.SOCK_DGRAM)
    ]
    assert sorted(found) == sorted(
        ("127.0.0.1", port) for port in (server.port, server.instance["gateway_port"])
    )


def test_the_client_can_log_in_without_asking(server: Server):
    told = json.loads((server.home / "server.json").read_text())
    assert told["url"] == f"http://127.0.0.1:{server.port}"
    assert told["instance"] == server.instance["id"]
    answer = server.log_in(told["username"], told["password"])
    assert answer.status_code == 201
    token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert httpx.get(f"{told['url']}/api/v2/pools", headers=token, trust_env=False).status_code == 200
    assert server.log_in(told["username"], "wrong").status_code == 401


def test_the_processes_have_the_environment_that_was_agreed(server: Server):
    for name in AIRFLOW_COMPONENTS:
        environ = psutil.Process(server.status()[name]["pid"]).environ()
        assert environ["KAOS_INSTANCE"] == server.instance["id"]
        assert environ["KAOS_HOME"] == str(server.home)
        assert environ["AIRFLOW_HOME"] == f"{server.home}/airflow"
        assert environ["AIRFLOW__KAOS__STORE"] == (server.home / "store").as_uri()
        assert environ["AIRFLOW__KAOS__WORK_DIR"] == f"{server.home}/work"
        assert "PYTHONDONTWRITEBYTECODE" not in environ


def test_status(server: Server):
    result = server.run("status")
    assert result.returncode == 0, result
    assert all(name in result.stdout for name in (*PROCESSES, f"http://127.0.0.1:{server.port}"))
    assert set(server.status()) == set(PROCESSES)


def test_logs(server: Server):
    assert "database system is ready to accept connections" in server.run("logs", "postgres").stdout
    both = server.run("logs", "-n", "1").stdout
    assert all(any(line.startswith(name) for line in both.splitlines()) for name in AIRFLOW_COMPONENTS)
    seen = threading.Event()

    def write() -> None:
        # Again and again: on a busy machine the follower may begin behind the first line.
        while not seen.wait(0.3):
            with (server.home / "logs" / "api-server.log").open("a") as log:
                log.write("a new line\n")

    with server.start("logs", "api-server", "--follow", "-n", "0") as follower:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert follower.stdout
            assert any(line == "a new line\n" for line in follower.stdout)
        finally:
            seen.set()
            writer.join()
            follower.send_signal(signal.SIGINT)
        assert follower.wait(30) == 0


@pytest.mark.parametrize("name", PROCESSES)
def test_a_killed_process_comes_back(server: Server, name: str):
    """Everything that it forked ends with it, but the process of a user's job goes on."""
    mark = {"KAOS_INSTANCE": server.instance["id"], "KAOS_JOB": "a-job", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sleep", "300"], env=mark, start_new_session=True) as job:
        try:
            before = marked(server.instance["id"])
            pid = server.status()[name]["pid"]
            children = {child.pid for child in psutil.Process(pid).children(recursive=True)}
            os.kill(pid, signal.SIGKILL)
            server.wait_until_ready(150, other_than=(name, pid))
            after = marked(server.instance["id"])
            if name != "supervisord":  # its children became its successor's, the guard itself
                assert not children & set(after)
            assert before[job.pid] == after[job.pid] == ("", "a-job")
            if name == "scheduler":  # itself and its eight workers, none of its predecessor's
                until(lambda: len(processes_of(server, "scheduler")) == 9, 60, "nine processes")
        finally:
            job.kill()


def processes_of(server: Server, component: str) -> list[int]:
    return [pid for pid, (name, _) in marked(server.instance["id"]).items() if name == component]


def test_a_new_user_can_log_in(server: Server):
    result = server.run("user", "create", "-n", "ada", "--role", "viewer")
    assert result.returncode == 0, result
    password = next(line.split()[1] for line in result.stdout.splitlines() if "password" in line)
    assert server.log_in("ada", password).status_code == 201
    assert server.run("status").returncode == 0
    assert {"name": "ada", "role": "viewer"} in json.loads(server.run("user", "list", "-o", "json").stdout)
    assert password not in server.run("user", "list").stdout
    assert stat.S_IMODE((server.home / "airflow" / "passwords.json").stat().st_mode) == 0o600


def test_it_starts_after_a_crash_of_everything(server: Server):
    """A power cut leaves pid files and sockets of processes that are gone."""
    instance = server.instance["id"]
    while left := marked(instance):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert server.run("status").returncode == 1
    result = server.run("up")
    assert result.returncode == 0, result
    assert server.instance["port"] == server.port
    assert server.run("status").returncode == 0


def test_down_leaves_no_process_and_no_door(server: Server):
    mark = {"KAOS_INSTANCE": server.instance["id"], "KAOS_JOB": "a-job", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sleep", "300"], env=mark, start_new_session=True) as job:
        pids = marked(server.instance["id"])
        assert job.pid in pids
        result = server.run("down")
        assert result.returncode == 0, result
        assert marked(server.instance["id"]) == {}
        assert not [pid for pid in pids if is_alive(pid)]
    assert "scheduler" in result.stdout
    assert not (server.home / "server.json").exists()
    assert "database system is shut down" in (server.home / "logs" / "postgres.log").read_text()
    again = server.run("down")
    assert (again.returncode, again.stdout) == (0, "Nothing runs here.\n")


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_component_that_does_not_start_is_named_with_its_log(server: Server):
    """Runs after `down`: the same home, with a setting that the DAG processor cannot live with."""
    (server.home / "airflow.local.cfg").write_text("[dag_processor]\ndag_bundle_config_list = nonsense\n")
    result = server.run("up")
    assert result.returncode == 1
    assert "does not start" in result.stderr
    assert "nonsense" in result.stderr or "dag_bundle_config_list" in result.stderr
    assert str(server.home / "logs") in result.stderr
    assert marked(server.instance["id"]) == {}
    assert not (server.home / "server.json").exists()


def test_purge_leaves_nothing(server: Server):
    (server.home / "airflow.local.cfg").unlink()
    instance = server.instance["id"]
    assert server.run("down", "--purge", "--yes").returncode == 0
    assert list(server.home.iterdir()) == []
    assert not Path("/var/lib/kaos", instance).exists()
