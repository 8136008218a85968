"""The parts of the local server that need no server."""

from __future__ import annotations

import configparser
import contextlib
import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from kaos.errors import AlreadyExistsError, InvalidNameError, LocalServerError, UnknownNameError
from kaos_cli.commands import server as commands
from kaos_cli.server import prepare, processes
from kaos_cli.server.files import private_folder, write_private
from kaos_cli.server.instance import create, load, save
from kaos_cli.server.layout import Layout
from kaos_cli.server.lock import exclusive
from kaos_cli.server.logs import follow, tail
from kaos_cli.server.ports import ensure_free
from kaos_cli.server.settings import environment, write_airflow_config
from kaos_cli.server.start import Failures
from kaos_cli.server.status import ProcessStatus
from kaos_cli.server.supervision import write_config


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "home")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def wait_for(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def opened() -> set[str]:
    """Return the files that this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return found


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestInstance:
    def test_is_kept_for_its_owner_alone(self, layout: Layout):
        instance = create("127.0.0.1", 8080)
        save(layout, instance)
        assert load(layout) == instance
        assert (mode(layout.home), mode(layout.instance)) == (0o700, 0o600)

    def test_is_none_before_the_first_start(self, layout: Layout):
        assert load(layout) is None

    def test_shows_no_secret(self):
        instance = create("127.0.0.1", 8080)
        assert not [secret for secret in secrets(instance) if secret in repr(instance)]

    def test_two_have_no_secret_in_common(self):
        assert not set(secrets(create("127.0.0.1", 1))) & set(secrets(create("127.0.0.1", 1)))

    def test_damaged(self, layout: Layout):
        private_folder(layout.home)
        write_private(layout.instance, "{")
        with pytest.raises(LocalServerError, match="damaged"):
            load(layout)

    @pytest.mark.parametrize("name", ["", "a:admin", "a,b:admin", "a b", "-a", "a\n", "é", "a" * 65])
    def test_names_that_would_break_the_list_of_users(self, name: str):
        with pytest.raises(InvalidNameError):
            create("127.0.0.1", 1).with_user(name, "user")

    def test_a_name_twice(self):
        with pytest.raises(AlreadyExistsError):
            create("127.0.0.1", 1).with_user("ada", "user").with_user("ada", "admin")

    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("127.0.0.1", "http://127.0.0.1:80"),
            ("0.0.0.0", "http://127.0.0.1:80"),
            ("::", "http://[::1]:80"),
            ("10.0.0.5", "http://10.0.0.5:80"),
        ],
    )
    def test_url_reaches_it_from_this_machine(self, host: str, url: str):
        assert create(host, 80).url == url


def secrets(instance) -> list[str]:
    keys = [instance.fernet_key, instance.jwt_secret, instance.secret_key, instance.database_password]
    return [*keys, *(user.password for user in instance.users.values())]


class TestSettings:
    def test_files_are_private_and_readable_for_airflow(self, layout: Layout):
        instance = create("127.0.0.1", 8123).with_user("ada", "viewer")
        write_airflow_config(layout, instance, "/run/with space/100%")
        assert (mode(layout.airflow_config), mode(layout.passwords)) == (0o600, 0o600)
        config = configparser.ConfigParser()
        config.read(layout.airflow_config)
        assert config["database"]["sql_alchemy_conn"].endswith(
            "@/airflow?host=%2Frun%2Fwith%20space%2F100%25"
        )
        assert config["api"]["base_url"] == "http://127.0.0.1:8123"
        assert config["core"]["simple_auth_manager_users"].endswith(",ada:viewer")
        assert json.loads(layout.passwords.read_text())["ada"] == instance.users["ada"].password
        bundles = json.loads(config["dag_processor"]["dag_bundle_config_list"])
        assert [bundle["name"] for bundle in bundles] == ["kaos", "dags-folder"]

    def test_own_settings_win(self, layout: Layout):
        private_folder(layout.home)
        layout.own_settings.write_text("[core]\nparallelism = 3\n[smtp]\nsmtp_host = mail\n")
        write_airflow_config(layout, create("127.0.0.1", 1), "/run")
        config = configparser.ConfigParser()
        config.read(layout.airflow_config)
        assert (config["core"]["parallelism"], config["smtp"]["smtp_host"]) == ("3", "mail")
        assert config["core"]["executor"] == "LocalExecutor"

    def test_environment_has_no_secret_and_nothing_astray(self, layout: Layout, monkeypatch):
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        monkeypatch.setenv("NO_PROXY", "intranet")
        instance = create("127.0.0.1", 1)
        found = environment(layout, instance)
        assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in found
        assert "PYTHONDONTWRITEBYTECODE" not in found
        assert not [secret for secret in secrets(instance) if secret in found.values()]
        assert found["NO_PROXY"].split(",")[:2] == ["intranet", "127.0.0.1"]
        assert found["KAOS_HOME"] == str(layout.home)
        assert found["AIRFLOW_HOME"] == str(layout.home / "airflow")
        assert found["AIRFLOW__KAOS__STORE"] == f"file://{layout.home}/store"
        assert found["AIRFLOW__KAOS__WORK_DIR"] == str(layout.home / "work")

    def test_supervisor_reads_its_configuration_in_a_strange_home(self, tmp_path: Path, monkeypatch):
        from supervisor.options import ServerOptions

        layout = Layout(tmp_path / "a b%s")
        for folder in (layout.home, layout.run, layout.logs):
            private_folder(folder)
        write_config(layout)
        monkeypatch.chdir(layout.home)
        options = ServerOptions()
        options.realize(["-n", "-c", str(layout.supervisor_config)])
        programs = {
            group.process_configs[0].name: group.process_configs[0] for group in options.process_group_configs
        }
        assert Path(programs["scheduler"].stdout_logfile).absolute() == layout.log("scheduler")
        assert programs["scheduler"].command == f"{sys.executable} -P -m kaos_cli.server.launch scheduler"


class TestLayout:
    def test_home_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("KAOS_HOME", "somewhere")
        assert Layout.current().home == Path.cwd() / "somewhere"
        monkeypatch.delenv("KAOS_HOME")
        assert Layout.current().home == Path.home() / ".kaos"

    def test_sockets_of_a_long_home_are_elsewhere(self):
        short, long = Layout(Path("/home/ada/.kaos")), Layout(Path("/home") / ("x" * 90))
        assert short.run == Path("/home/ada/.kaos/run")
        assert str(long.run).startswith(f"/tmp/kaos-{os.getuid()}-")
        assert long.run != Layout(Path("/home") / ("y" * 90)).run


class TestFiles:
    def test_a_folder_that_is_open_is_closed(self, tmp_path: Path):
        tmp_path.chmod(0o755)
        assert mode(private_folder(tmp_path)) == 0o700

    def test_a_folder_of_somebody_else_is_refused(self, tmp_path: Path, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(LocalServerError, match="belongs to user"):
            private_folder(tmp_path)

    def test_a_file_is_replaced_whole_and_stays_private(self, tmp_path: Path):
        path = tmp_path / "secret"
        path.write_text("old")
        path.chmod(0o644)
        write_private(path, "new")
        assert (path.read_text(), mode(path), len(list(tmp_path.iterdir()))) == ("new", 0o600, 1)


class TestLock:
    def test_the_second_waits_for_the_first(self, layout: Layout):
        order: list[str] = []

        def second() -> None:
            with exclusive(layout, order.append):
                order.append("second")

        with exclusive(layout, order.append):
            thread = threading.Thread(target=second)
            thread.start()
            wait_for(lambda: len(order) == 1)
            order.append("first")
        thread.join()
        assert order == [
            f"waiting for another kaos command at work here (process {os.getpid()})",
            "first",
            "second",
        ]


class TestPorts:
    def test_free(self):
        ensure_free("127.0.0.1", free_port())

    def test_a_taken_port_is_named_with_its_program(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(LocalServerError) as caught:
                ensure_free("127.0.0.1", port)
        assert f"Port {port} " in caught.value.message
        assert f"(process {os.getpid()})" in caught.value.message
        assert f"--port {port + 1}" in caught.value.next_step

    def test_an_address_of_another_machine(self):
        with pytest.raises(LocalServerError, match=r"192\.0\.2\.1"):
            ensure_free("192.0.2.1", 8080)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class TestLogs:
    def test_tail(self, tmp_path: Path):
        path = tmp_path / "log"
        path.write_text("".join(f"{number} {'x' * 1000}\n" for number in range(500)))
        assert [line.split()[0] for line in tail(path, 3)] == ["497", "498", "499"]
        assert len(tail(path, 10_000)) == 500
        assert tail(path, 0) == []
        assert tail(tmp_path / "none", 3) == []

    def test_follow_over_a_rotation(self, tmp_path: Path):
        path, late = tmp_path / "log", tmp_path / "late"
        path.write_text("old\n")
        lines = follow({"a": path, "b": late}, pause=0.01)
        found: list[tuple[str, str]] = []

        def read() -> None:
            with contextlib.closing(lines):
                for line in itertools.islice(lines, 4):
                    found.append(line)

        thread = threading.Thread(target=read)
        thread.start()
        wait_for(lambda: str(path) in opened())
        with path.open("a") as file:
            file.write("one\ntw")
            file.flush()
            wait_for(lambda: found == [("a", "one")])
            file.write("o\n")
        wait_for(lambda: len(found) == 2)
        path.rename(tmp_path / "log.1")
        path.write_text("three\n")
        late.write_text("four\n")
        thread.join(10)
        assert sorted(found) == [("a", "one"), ("a", "three"), ("a", "two"), ("b", "four")]


class TestProcesses:
    def test_are_found_by_their_mark_and_ended(self):
        jobs = [
            subprocess.Popen(
                ["sleep", "60"], env={"PATH": os.environ["PATH"], "KAOS_INSTANCE": "test-mark", **more}
            )
            for more in ({"KAOS_COMPONENT": "scheduler"}, {"KAOS_COMPONENT": "triggerer"}, {"KAOS_JOB": "j"})
        ]
        try:
            wait_for(lambda: len(processes.marked("test-mark")) == 3)
            assert [one.pid for one in processes.marked("test-mark", "scheduler")] == [jobs[0].pid]
            assert {one.pid for one in processes.marked("test-mark", jobs=False)} == {
                jobs[0].pid,
                jobs[1].pid,
            }
            assert processes.end(processes.marked("test-mark"), grace=5) == []
            assert [job.wait() for job in jobs] == [-signal.SIGTERM] * 3
            assert processes.marked("test-mark") == []
        finally:
            for job in jobs:
                job.kill()
                job.wait()

    def test_one_that_does_not_listen_is_killed(self):
        ignore = (
            "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", ignore], stdout=subprocess.PIPE) as stubborn:
            assert stubborn.stdout
            stubborn.stdout.readline()
            assert processes.end([psutil.Process(stubborn.pid)], grace=0.2) == []
            assert stubborn.wait() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_forked_children_die_with_their_parent_but_jobs_do_not(tmp_path: Path):
    program = tmp_path / "generations.py"
    program.write_text(
        "import os, subprocess, sys, time\n"
        "from kaos_cli.server.deathsignal import forked_children_die_with_us\n"
        "forked_children_die_with_us()\n"
        "if os.fork() == 0:\n"  # an executor's worker
        "    if os.fork() == 0:\n"  # the task in it
        "        job = subprocess.Popen(['sleep', '60'], start_new_session=True, preexec_fn=lambda: None,\n"
        "                               stdout=subprocess.DEVNULL)\n"
        "        print(os.getppid(), os.getpid(), job.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as scheduler:
        assert scheduler.stdout
        worker, task, job = map(int, scheduler.stdout.readline().split())
        try:
            assert all(map(is_alive, (worker, task, job)))
            scheduler.kill()
            wait_for(lambda: not is_alive(worker) and not is_alive(task))
            assert is_alive(job)
        finally:
            os.kill(job, signal.SIGKILL)


class TestCommands:
    """The commands where nothing runs; the home is an empty one (conftest)."""

    def run(self, *arguments: str):
        command = getattr(commands, arguments[0])
        return CliRunner().invoke(command, list(arguments[1:]))

    def test_down(self):
        result = self.run("down")
        assert (result.exit_code, result.output) == (0, "Nothing runs here.\n")

    def test_status(self):
        result = self.run("status")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "kaos up" in result.stderr

    def test_status_json(self):
        result = self.run("status", "-o", "json")
        assert result.exit_code == 1
        assert json.loads(result.stdout) == {
            "url": None,
            "healthy": False,
            "home": os.environ["KAOS_HOME"],
            "processes": [],
        }

    def test_logs_of_an_unknown_component(self):
        result = self.run("logs", "shceduler")
        assert isinstance(result.exception, UnknownNameError)
        assert "scheduler" in result.exception.next_step

    def test_logs_before_the_first_start(self):
        result = self.run("logs")
        assert (result.exit_code, result.stdout) == (0, "")
        assert "No log yet" in result.stderr

    def test_user_create_before_the_first_start(self):
        result = self.run("user", "create", "-n", "ada")
        assert isinstance(result.exception, LocalServerError)

    def test_user_list_before_the_first_start(self):
        assert json.loads(self.run("user", "list", "-o", "json").stdout) == []

    def test_without_the_server_extra(self, monkeypatch):
        monkeypatch.setattr(prepare, "_NEEDED", ("no_such_module",))
        result = self.run("up")
        assert isinstance(result.exception, LocalServerError)
        assert result.exception.next_step == "pip install 'airflow-provider-kaos[server]'"


def test_failures_are_counted_by_what_is_seen_or_by_pid() -> None:
    def row(state: str, pid: int | None) -> ProcessStatus:
        return ProcessStatus("scheduler", state, pid, 0 if pid else None, "log")

    calm = Failures()
    for _ in range(3):
        assert calm.count([row("starting", 1)]) == {"scheduler": 0}
    assert not calm.were_any()
    waiting = Failures()
    assert waiting.count([row("failed", None)]) == {"scheduler": 1}
    assert waiting.count([row("failed", None)]) == {"scheduler": 1}
    assert waiting.count([row("starting", 1)]) == {"scheduler": 1}
    assert waiting.were_any()
    assert waiting.count([row("failed", None)]) == {"scheduler": 2}
    restarted = Failures()  # at once, each time: never seen waiting
    assert [restarted.count([row("starting", pid)])["scheduler"] for pid in (1, 1, 2, 3)] == [0, 0, 1, 2]
    assert restarted.were_any()
