"""The contract of services, over real ones, and a real gateway before them."""

from __future__ import annotations

import ast
import ctypes
import http.client
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import write_tree
from e2e.harness import free_port
from e2e.serving import ANSWER, SERVE

from kaos.errors import ServingFailedError
from kaos.lineage import ImageRecord
from kaos.resources import Resources
from kaos.runtime.base import Environment, RunState
from kaos.runtime.container.builders import DockerBuilder, PodmanBuilder
from kaos.runtime.container.engine import Docker, Podman
from kaos.runtime.container.images import Images, ImageSpec
from kaos.serving import probe, service
from kaos.serving.container import ContainerServices
from kaos.serving.gateway import Gateway, Route, Target
from kaos.serving.process import ProcessServices
from kaos.serving.service import Services, ServiceSpec, last_lines

Prepare = Callable[..., ServiceSpec]

ENVIRONMENT = Environment(
    digest="0" * 64,
    python=Path(sys.executable),
    python_version="3.11",
    lock="",
    lock_digest="0" * 64,
    seconds=0,
    reused=True,
)

_PR_CAPBSET_DROP = _CAP_SYS_RESOURCE = 24

only_processes = pytest.mark.parametrize("services", ["process"], indirect=True)


@pytest.fixture(params=["process", pytest.param("container", marks=pytest.mark.container)])
def services(request: pytest.FixtureRequest) -> Services:
    return ProcessServices() if request.param == "process" else ContainerServices()


@pytest.fixture
def built(request: pytest.FixtureRequest, services: Services) -> Environment | ImageRecord:
    """Return what services run in."""
    if isinstance(services, ProcessServices):
        return ENVIRONMENT
    image: ImageRecord = request.getfixturevalue("image")
    return image


class Nothing:
    """Know of no image from before."""

    def container_image(self, source: str) -> None: ...

    def set_container_image(self, source: str, record: ImageRecord) -> None: ...


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageRecord:
    """Return an image whose `serve` is the code in a variable: one build for all tests."""
    request.getfixturevalue("podman")
    return build(Images(Podman(), PodmanBuilder(), tmp_path_factory.mktemp("images")))


def build(images: Images) -> ImageRecord:
    script = "#!/usr/bin/env python3\nimport os\nexec(os.environ['CODE'])\n"
    spec = ImageSpec(
        name="echo",
        source="e" * 64,
        dockerfile="FROM python:3.11-slim\nWORKDIR /opt/program\nCOPY . .\n",
        lay_out=lambda context: write_tree(context, {"serve": script}) and None,
        script="serve",
    )
    return images.build(spec, print, Nothing())[0]


@pytest.fixture
def prepare(tmp_path: Path, services: Services, built: Environment | ImageRecord) -> Iterator[Prepare]:
    """Return what makes a service; whatever still runs in the end is ended."""
    made: list[Path] = []

    def make(answer: str = ANSWER, revision: int = 1, start: float = 0) -> ServiceSpec:
        directory = tmp_path / "endpoints" / "echo" / f"{revision:06d}"
        code = SERVE.replace("START", str(start)).replace("ANSWER", answer)
        program = directory / "program"
        if built is ENVIRONMENT:
            write_tree(program, {"serve": code})
        made.append(directory)
        return ServiceSpec(
            name="echo",
            revision=revision,
            job_id="a" * 32,
            program=program if built is ENVIRONMENT else None,
            model=None,
            directory=directory,
            environment=built,
            env={} if built is ENVIRONMENT else {"CODE": code},
            resources=Resources(),
            workers=3,
        )

    yield make
    for directory in made:
        services.terminate(directory, 0)


def ready(services: Services, spec: ServiceSpec) -> int:
    port = services.launch(spec)
    probe.wait_until_ready(port, 20, lambda: None)
    return port


def ask(port: int, body: bytes, path: str = "/invocations", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def ended(services: Services, directory: Path) -> bool:
    status = services.observe(directory)
    return status is not None and status.state is not RunState.RUNNING


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_service_finds_what_the_contract_says(services: Services, prepare: Prepare) -> None:
    port = ready(services, prepare())
    variables = ast.literal_eval(ask(port, b"environment")[1])
    inside = port if isinstance(services, ProcessServices) else 8080
    expected = {
        "PORT": str(inside),
        "WEB_CONCURRENCY": "3",
        "KAOS_REVISION": "1",
        "KAOS_ENDPOINT": "echo",
    }
    assert expected.items() <= variables.items()
    assert "KAOS_MODEL" not in variables


def test_launching_a_living_service_again_starts_nothing(services: Services, prepare: Prepare) -> None:
    spec = prepare()
    port = ready(services, spec)
    assert services.launch(spec) == services.relaunch(spec.directory) == services.port(spec.directory) == port
    assert services.observe(spec.directory) is not None


def test_a_service_that_died_gets_its_port_again_and_its_logs_stay(
    services: Services, prepare: Prepare
) -> None:
    spec = prepare()
    port = ready(services, spec)
    _, position = wait_for_log(services, spec, "")
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(port, b"die")
    wait(lambda: ended(services, spec.directory))
    status = services.observe(spec.directory)
    assert status is not None
    assert status.reason == "exit code 3"
    assert services.relaunch(spec.directory) == port
    probe.wait_until_ready(port, 20, lambda: None)
    assert wait_for_log(services, spec, position)[0] == b"serving echo revision 1\n"
    assert last_lines(services, spec.directory) == ["serving echo revision 1"] * 2


def test_only_the_last_logs_are_kept(services: Services, prepare: Prepare) -> None:
    spec = prepare()
    for _ in range(5):
        services.terminate(spec.directory, 0)
        ready(services, spec)
    services.terminate(spec.directory, 0)  # what it printed is in its log now
    assert len(last_lines(services, spec.directory, 100)) == 4


def test_two_services_have_ports_of_their_own(services: Services, prepare: Prepare) -> None:
    assert services.launch(prepare()) != services.launch(prepare(revision=2))


def test_another_program_on_the_port_is_not_the_service(services: Services, prepare: Prepare) -> None:
    spec = prepare(start=30)
    port = services.launch(spec)
    assert not services.listens(spec.directory)
    if isinstance(services, ProcessServices):  # else the engine keeps the port for it
        with socket.create_server(("127.0.0.1", port)):
            assert probe.listens(port)
            assert not services.listens(spec.directory)
    quick = prepare(revision=2)
    ready(services, quick)
    assert services.listens(quick.directory)


def test_terminate_lets_go_and_nothing_is_left(services: Services, prepare: Prepare) -> None:
    spec = prepare()
    port = ready(services, spec)
    services.terminate(spec.directory, 1)
    assert ended(services, spec.directory)
    assert not probe.listens(port)


def test_what_was_never_launched(services: Services, tmp_path: Path) -> None:
    assert services.observe(tmp_path / "none") is None
    assert services.port(tmp_path / "none") is None
    services.terminate(tmp_path / "none", 0)
    with pytest.raises(FileNotFoundError):
        services.relaunch(tmp_path / "none")


def test_the_sample_request_must_be_answered(services: Services, prepare: Prepare) -> None:
    port = ready(services, prepare(answer='self.answer(422, "a column is missing")'))
    with pytest.raises(ServingFailedError, match=r"HTTP 422: a column is missing"):
        probe.try_sample(port, "test_payload.json", b"{}", 5)
    with pytest.raises(ServingFailedError, match=r"gave no answer to the sample request test_payload\.json"):
        probe.try_sample(port, "test_payload.json", b"die", 5)
    with pytest.raises(ServingFailedError, match=r"within 0.2 s"):
        probe.wait_until_ready(port, 0.2, lambda: None)


@pytest.fixture
def docked(docker: Docker, tmp_path: Path) -> Iterator[ServiceSpec]:
    """Return a service for docker, in the only network that our daemon has."""
    spec = ServiceSpec(
        name="echo",
        revision=1,
        job_id="a" * 32,
        program=None,
        model=None,
        directory=tmp_path / "endpoints" / "echo" / "000001",
        environment=build(Images(docker, DockerBuilder(), tmp_path, network="host")),
        env={"CODE": SERVE.replace("START", "0").replace("ANSWER", ANSWER)},
        network="host",
    )
    yield spec
    ContainerServices().terminate(spec.directory, 0)


@pytest.mark.container
def test_docker_in_the_network_of_the_machine(docked: ServiceSpec, docker: Docker) -> None:
    services = ContainerServices()
    port = ready(services, docked)
    assert services.listens(docked.directory)
    variables = ast.literal_eval(ask(port, b"environment")[1])
    assert (variables["PORT"], variables["KAOS_HOST"]) == (str(port), "127.0.0.1")
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(port, b"die")
    wait(lambda: ended(services, docked.directory))
    assert services.relaunch(docked.directory) == port
    probe.wait_until_ready(port, 20, lambda: None)
    wait(lambda: last_lines(services, docked.directory) == ["serving echo revision 1"] * 2)
    services.terminate(docked.directory, 1)
    assert docker.find({"kaos.endpoint": "echo"}) == []


def test_a_line_that_is_not_whole_waits_for_its_end(services: Services, prepare: Prepare) -> None:
    answer = 'print(body.decode(), end="", flush=True); self.answer(200, "")'
    spec = prepare(answer=answer)
    port = ready(services, spec)
    _, position = wait_for_log(services, spec, "")
    ask(port, b"half a ")
    time.sleep(0.2)
    assert services.logs(spec.directory, position) == (b"", position)
    ask(port, b"line\nand ")
    assert wait_for_log(services, spec, position)[0] == b"half a line\n"
    services.terminate(spec.directory, 1)
    assert last_lines(services, spec.directory)[-2:] == ["half a line", "and "]


@only_processes
def test_a_long_log_comes_in_whole_lines_and_a_huge_one_is_not_kept(
    services: Services, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = prepare().directory
    expected = [f"line {number} é".encode() for number in range(100_000)]
    write_tree(directory, {"log.0": b"\n".join(expected) + b"\n", "run/run.log": b"\n".join(expected)})
    found, position = [], ""
    while (chunk := services.logs(directory, position))[0]:
        text, position = chunk
        found += text.removesuffix(b"\n").split(b"\n")
    assert found == expected * 2
    monkeypatch.setattr(service, "LARGEST_LOG", 1000)
    monkeypatch.setattr(service, "_LARGEST_PAST", 2000)
    services.trim(directory)
    assert (directory / "run" / "run.log").stat().st_size == 0
    kept = (directory / "log.1").read_bytes()
    assert 1900 < len(kept) <= 2000
    assert kept.split(b"\n") == expected[-len(kept.split(b"\n")) :]


def test_an_answer_that_comes_byte_by_byte_keeps_nobody_waiting() -> None:
    def drip(listener: socket.socket) -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            for byte in b"HTTP/1.1 200 OK\r\nX: " + bytes(200):
                connection.sendall(bytes([byte]))
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=[listener])
        thread.start()
        began = time.monotonic()
        assert not probe.ping(listener.getsockname()[1], 0.5)
        assert time.monotonic() - began < 3
        thread.join()


def wait_for_log(services: Services, spec: ServiceSpec, position: str) -> tuple[bytes, str]:
    wait(lambda: services.logs(spec.directory, position)[0])
    return services.logs(spec.directory, position)


def test_the_model_is_where_scripts_look_for_it(services: Services, prepare: Prepare, tmp_path: Path) -> None:
    model = write_tree(tmp_path / "tree", {"model/model.pkl": "weights", "metrics/metrics.json": "{}"})
    answer = 'self.answer(200, (model / "model" / "model.pkl").read_text() + str(os.path.exists(body)))'
    port = ready(services, prepare(answer=answer).model_copy(update={"model": model}))
    inside = isinstance(services, ContainerServices)
    assert ask(port, b"/opt/ml/model/model.pkl") == (200, f"weights{inside}")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[Gateway, int]]:
    """Return a gateway that runs, and its port."""
    port = free_port()
    made = Gateway(tmp_path / "gateway", tmp_path)
    made.write_config("127.0.0.1", port)
    with subprocess.Popen(made.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait(made.answers)
            yield made, port
        finally:
            process.kill()


def set_routes(gateway: Gateway, **routes: Route) -> None:
    gateway._apply({name: route.line for name, route in routes.items()})


@only_processes
def test_the_gateway_routes_and_shares(
    gateway: tuple[Gateway, int], services: Services, prepare: Prepare
) -> None:
    table, port = gateway
    first, second = (Target(n, ready(services, prepare(revision=n))) for n in (1, 2))
    assert ask(port, b"x", "/echo/invocations")[0] == 404
    set_routes(table, echo=Route(first, 100, 5, None, None, 0))
    assert ask(port, b"x", "/echo/invocations") == (200, "1 1")
    set_routes(table, echo=Route(first, 100, 5, None, second, 30))
    shares = Counter(ask(port, b"x", "/echo/invocations")[1] for _ in range(300))
    assert 40 < shares["2 1"] < 150
    set_routes(table, echo=Route(second, 100, 5, None, None, 0))
    assert {ask(port, b"x", "/echo/invocations")[1] for _ in range(20)} == {"2 1"}
    set_routes(table)
    assert ask(port, b"x", "/echo/invocations")[0] == 404


@only_processes
def test_a_body_of_unknown_length_is_refused(
    gateway: tuple[Gateway, int], services: Services, prepare: Prepare
) -> None:
    table, port = gateway
    set_routes(table, echo=Route(Target(1, ready(services, prepare())), 100, 5, None, None, 0))
    request = (
        "POST /echo/invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 411 ")


def test_a_body_of_unknown_length_does_not_come_by_another_protocol_either(
    gateway: tuple[Gateway, int],
) -> None:
    _, port = gateway
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_the_gateway_runs_with_few_descriptors(tmp_path: Path) -> None:
    made = Gateway(tmp_path / "gateway", tmp_path)
    made.write_config("127.0.0.1", free_port())

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_RESOURCE, 0, 0, 0)  # root may raise it, else

    with subprocess.Popen(made.command(), preexec_fn=few, stderr=subprocess.DEVNULL) as process:
        try:
            wait(made.answers)
        finally:
            process.kill()


def test_names_in_a_path_cannot_break_the_answer(gateway: tuple[Gateway, int]) -> None:
    _, port = gateway
    for name in ('a"b', "a%22b", "a\\b", "%[var(x)]"):
        status, text = ask(port, b"x", f"/{name}/invocations")
        assert status == 404
        assert "There is no endpoint" in json.loads(text)["error"]
