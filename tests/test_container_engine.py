"""What an engine is told, and what it does: options without an engine, services with a real one."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from pathlib import Path

import pytest
from e2e.harness import free_port, until
from hypothesis import given
from hypothesis import strategies as st
from lab import containers
from lab.containers import BASE

from kaos.baseimage import outline
from kaos.errors import ContainerEngineError
from kaos.resources import Resources
from kaos.runtime.container import engine as engines
from kaos.runtime.container.commands import engine_environment, reason
from kaos.runtime.container.contract import as_text
from kaos.runtime.container.engine import Container, Docker, Mount, Podman, Port, detect, engine_named
from kaos.runtime.container.logs import decode
from kaos.runtime.container.registry import Login, host_of, is_loopback


def options(engine: engines.ContainerEngine, **fields: object) -> list[str]:
    return list(engine.options(Container.model_validate({"name": "x", "image": "y", **fields})))


@pytest.mark.parametrize("engine", [Podman(), Docker()])
def test_every_container_is_safe_and_limited(engine: engines.ContainerEngine) -> None:
    given = options(engine, resources=Resources.parse("1.5", "512Mi"), network="none")
    assert {
        *("--security-opt=no-new-privileges", "--cap-drop=ALL", "--pids-limit=4096", "--pull=never"),
        *(f"--memory={512 << 20}b", f"--memory-swap={512 << 20}b", "--cpus=1.5", "--network=none"),
    } <= set(given)


def test_gpus_are_asked_for_as_devices() -> None:
    two = Resources(gpu=2)
    assert [each for each in options(Podman(), resources=two) if "gpu" in each] == [
        "--device=nvidia.com/gpu=0",
        "--device=nvidia.com/gpu=1",
    ]
    assert "--gpus=2" in options(Docker(), resources=two)
    assert not [each for each in options(Docker(), resources=Resources(gpu=0)) if "gpu" in each]


def test_ports_are_published_on_loopback_alone() -> None:
    given = options(Podman(), ports=(Port(container=8080), Port(container=80, host=1234)))
    assert "--publish=127.0.0.1::8080" in given
    assert "--publish=127.0.0.1:1234:80" in given


def test_data_is_mounted_read_only_unless_it_is_for_writing(tmp_path: Path) -> None:
    mounts = (Mount(source=tmp_path, target="/a"), Mount(source=tmp_path, target="/b", writable=True))
    given = options(Podman(), mounts=mounts)
    assert f"--volume={tmp_path}:/a:ro" in given
    assert f"--volume={tmp_path}:/b:rw" in given
    with pytest.raises(ContainerEngineError, match="colon"):
        options(Podman(), mounts=(Mount(source=Path("/a:b"), target="/a"),))


def test_engines_see_nothing_of_airflow() -> None:
    server = {"AIRFLOW__CORE__FERNET_KEY": "x", "KAOS_INSTANCE": "x", "PATH": "/bin", "DOCKER_HOST": "y"}
    assert engine_environment(server) == {"PATH": "/bin", "DOCKER_HOST": "y"}


def test_without_an_engine_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert detect() is None
    with pytest.raises(ContainerEngineError, match="apt install podman"):
        engines.find_engine()
    with pytest.raises(ContainerEngineError, match="not installed"):
        Podman().image("x")
    # A client without a daemon is no engine.
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\nexit 1\n")
    client.chmod(0o755)
    assert detect() is None
    client.write_text("#!/bin/sh\nexit 0\n")
    found = detect()
    assert found is not None
    assert found.name == "docker"
    with pytest.raises(ContainerEngineError, match="podman or docker"):
        engine_named("lxc")


def test_the_reason_is_found_in_what_an_engine_says() -> None:
    said = b"Error response from daemon: no space\nError: failed to start containers: x\n"
    assert reason(said) == "no space"
    assert reason(b"Error: short name\n") == "short name"
    assert reason(b"") == ""


@given(st.lists(st.tuples(st.binary(max_size=20).filter(lambda text: b"\n" not in text), st.booleans())))
def test_a_log_of_podman_gives_back_what_was_printed(lines: list[tuple[bytes, bool]]) -> None:
    stamp = b"2026-11-21T07:23:10.050301140+00:00 stdout "
    log = b"".join(stamp + (b"F " if whole else b"P ") + text + b"\n" for text, whole in lines)
    assert decode(log) == b"".join(text + (b"\n" if whole else b"") for text, whole in lines)


@pytest.mark.parametrize(
    ("dockerfile", "bases", "entrypoint"),
    [
        ("FROM python:3.11-slim\nENTRYPOINT python\n", ["python:3.11-slim"], True),
        ("# a\nARG V=3.11\nFROM --platform=linux/amd64 python:${V} AS a\nFROM a\n", ["python:3.11"], False),
        ("FROM a AS x\nENTRYPOINT b\nFROM scratch\nCOPY --from=x / /\nFROM c\n", ["a", "c"], False),
        ("FROM a\nRUN <<EOF\nFROM b\nENTRYPOINT c\nEOF\nRUN true \\\n  # comment\n  && FROM\n", ["a"], False),
        ("FROM ${BASE:-python:3}\nENTRYPOINT []\n", ["python:3"], False),
        ("FROM $UNKNOWN\n", [], False),
        ('from python\nentrypoint ["a"]\n', ["python"], True),
        ("# escape=`\nFROM a`\n  AS b\nFROM b\n", ["a"], False),
    ],
)
def test_base_images_are_read_from_any_dockerfile(
    dockerfile: str, bases: list[str], entrypoint: bool
) -> None:
    found = outline(dockerfile)
    assert (list(found.bases), found.entrypoint) == (bases, entrypoint)


@given(st.text())
def test_no_dockerfile_breaks_the_reader(text: str) -> None:
    assert "scratch" not in outline(text).bases


def test_hyperparameters_are_texts() -> None:
    assert [as_text(value) for value in (3, 0.5, True, "a", None, [1])] == [
        *("3", "0.5", "true", "a", "null", "[1]"),
    ]


def test_loopback_registries_are_known() -> None:
    assert [host_of(name) for name in ("a/b", "a.b/c", "localhost/x", "h:1/x", "a")] == [
        *("", "a.b", "localhost", "h:1", ""),
    ]
    assert [is_loopback(name) for name in ("127.0.0.1:5000/a", "localhost:5000/a", "10.0.0.1/a", "a/b")] == [
        *(True, True, False, False),
    ]


def test_a_password_is_in_a_file_for_us_alone_and_gone_afterwards() -> None:
    login = Login("registry:5000", "me", "secret")
    assert "secret" not in repr(login)
    with Login.written(login) as folder:
        assert folder is not None
        file = folder / "config.json"
        assert file.stat().st_mode & 0o077 == 0
        assert folder.stat().st_mode & 0o077 == 0
        assert json.loads(file.read_text()) == {"auths": {"registry:5000": {"auth": "bWU6c2VjcmV0"}}}
    assert not folder.exists()


@pytest.mark.container
def test_a_service_is_started_reached_restarted_and_stopped(podman: containers.Podman) -> None:
    engine, port, name = Podman(), free_port(), f"kaos-test-{os.getpid()}"
    code = (
        "import http.server, os, threading, time\n"
        "print('serving', flush=True)\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        if self.path == '/die': os._exit(3)\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'pong')\n"
        "http.server.HTTPServer(('', 8080), Handler).serve_forever()\n"
    )
    service = Container(
        name=name,
        image=BASE,
        command=("python3", "-c", code),
        labels={"kaos.endpoint": name},
        ports=(Port(container=8080, host=port),),
        restart="always",
    )

    def ping(path: str = "/ping") -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 60
        while True:
            try:
                with opener.open(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                    return bytes(answer.read())
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    try:
        engine.run(service)
        assert ping() == b"pong"
        state = engine.inspect(name)
        assert state is not None
        assert state.running
        assert state.ports == {8080: port}
        assert engine.find({"kaos.endpoint": name}) == [name]
        os.kill(state.pid, 9)
        assert ping() == b"pong"
        # The log is written by another process than the one that answers.
        until(lambda: engine.logs(name).count(b"serving") == 2, 20, "the second life's line")
        engine.stop(name, 1)
        state = engine.inspect(name)
        assert state is not None
        assert state.ended
    finally:
        engine.remove(name)
    assert engine.inspect(name) is None
    engine.remove(name)
