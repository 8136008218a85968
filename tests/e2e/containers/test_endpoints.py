"""Endpoints in containers: deployed, replaced, turned back, killed, hurt; a bundle made for other systems."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import write_tree

from e2e.containers.conftest import DOCKERFILE, names
from e2e.harness import Kaos, Server, until
from e2e.serving import Endpoint, Load, write_serve

CONTAINER = ("--runtime", "container")

BOTH = """
paths = (model / "model" / "model.txt", Path("/opt/ml/model/model.txt"), Path("/opt/program/model.txt"))
"""

# The shape of the bundles that the original system and SageMaker's examples have: nginx before gunicorn.
NGINX_DOCKERFILE = """FROM python:3.11-slim

RUN apt-get -y update && apt-get install -y --no-install-recommends nginx-light gunicorn \\
    && rm -rf /var/lib/apt/lists/*

ENV PYTHONUNBUFFERED=TRUE
ENV PYTHONDONTWRITEBYTECODE=TRUE
ENV PATH="/opt/program:${PATH}"

COPY . /opt/program
WORKDIR /opt/program
RUN chmod +x serve
"""
NGINX_CONF = """worker_processes 1;
daemon off;
pid /tmp/nginx.pid;
error_log /var/log/nginx/error.log;

events { }

http {
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log /var/log/nginx/access.log combined;

  upstream gunicorn { server unix:/tmp/gunicorn.sock; }

  server {
    listen 8080 deferred;
    client_max_body_size 5m;
    keepalive_timeout 5;

    location ~ ^/(ping|invocations) {
      proxy_set_header Host $http_host;
      proxy_redirect off;
      proxy_pass http://gunicorn;
    }
    location / { return 404 "{}"; }
  }
}
"""
NGINX_SERVE = """#!/usr/bin/env python3
import multiprocessing, os, signal, subprocess, sys

workers = int(os.environ.get("MODEL_SERVER_WORKERS", multiprocessing.cpu_count()))


def sigterm_handler(nginx_pid, gunicorn_pid):
    os.kill(nginx_pid, signal.SIGQUIT)
    os.kill(gunicorn_pid, signal.SIGTERM)
    sys.exit(0)


print(f"Starting the inference server with {workers} workers.")
subprocess.check_call(["ln", "-sf", "/dev/stdout", "/var/log/nginx/access.log"])
subprocess.check_call(["ln", "-sf", "/dev/stderr", "/var/log/nginx/error.log"])
nginx = subprocess.Popen(["nginx", "-c", "/opt/program/nginx.conf"])
gunicorn = subprocess.Popen(
    ["gunicorn", "--timeout", "60", "-b", "unix:/tmp/gunicorn.sock", "-w", str(workers), "wsgi:app"]
)
signal.signal(signal.SIGTERM, lambda number, frame: sigterm_handler(nginx.pid, gunicorn.pid))
while os.wait()[0] not in (nginx.pid, gunicorn.pid):
    pass
sigterm_handler(nginx.pid, gunicorn.pid)
"""
NGINX_WSGI = """import os

model = open("/opt/ml/model/model.txt").read()


def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{model} {open('model.txt').read()} {body}".encode()]
"""


def bundle(root: Path, **fields: Any) -> Path:
    """Write a serve bundle with a Dockerfile that only a container can honour."""
    source = write_serve(root, **fields)
    (source / "echo" / "Dockerfile").write_text(f"{DOCKERFILE}RUN true\n")
    return source


@pytest.fixture
def model(kaos: Kaos, tmp_path: Path) -> str:
    """Return the id of a model as a training leaves it."""
    files: dict[str, bytes | str | None] = {"model/model.txt": "weights", "metrics/metrics.json": "{}"}
    directory = write_tree(tmp_path / "weights", files)
    return str(kaos.json("model", "import", directory, "--name", "weights")["model_id"])


@pytest.fixture
def endpoint(kaos: Kaos, tmp_path: Path) -> Endpoint:
    return Endpoint.deploy(kaos, bundle(tmp_path / "serve"), *CONTAINER)


def processes(container: str) -> list[int]:
    """Return the processes of a container that belong to user code."""
    found = subprocess.run(
        ["podman", "top", container, "hpid", "comm"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in found.splitlines()[1:]]
    return [int(pid) for pid, name in rows if "init" not in name and "catatonit" not in name]


def test_a_model_is_served_from_a_container_and_nothing_stays(kaos: Kaos, tmp_path: Path, model: str) -> None:
    answer = f"{BOTH.strip()}; self.answer(200, ' '.join(path.read_text() for path in paths))"
    source = bundle(tmp_path / "serve", answer=answer, sample="a sample")
    options = ("--memory", "512Mi", "--workers", "2", "--max-body", "100Mi")
    endpoint = Endpoint.deploy(kaos, source, "-m", model, *CONTAINER, *options)
    assert endpoint.ask() == (200, "weights weights weights")
    assert endpoint.ask(bytes(100 << 20))[0] == 200
    assert endpoint.ask(bytes((100 << 20) + 1))[0] == 413
    variables = ast.literal_eval(endpoint.ask(b"environment")[1])
    expected = {"PORT": "8080", "KAOS_HOST": "0.0.0.0", "WEB_CONCURRENCY": "2", "MODEL_SERVER_WORKERS": "2"}
    assert expected.items() <= variables.items()
    assert not [name for name in variables if "AIRFLOW" in name]
    (container,) = names(f"kaos.endpoint={endpoint.name}")
    (inspected,) = json.loads(
        subprocess.run(["podman", "inspect", container], capture_output=True, check=True).stdout
    )
    assert inspected["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostIp"] == "127.0.0.1"
    assert inspected["HostConfig"]["Memory"] == 512 << 20
    assert inspected["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
    assert not any(mount["RW"] for mount in inspected["Mounts"])
    (pid,) = processes(container)
    assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
    (revision,) = endpoint.info()["revisions"]
    assert revision["runtime"] == "container"
    assert revision["image"]["serve"] == "/opt/program/serve"
    assert revision["image"]["digest"].startswith("sha256:")
    assert "memory 512Mi by podman" in revision["applied"]
    assert _lives(endpoint) == 1
    assert "STEP" in kaos.run("serve", "build-logs", "-e", endpoint.name).stdout

    kaos.run("serve", "update", "-e", endpoint.name, "--cpu", "1", "--wait")
    (_, resources) = [each["resources"] for each in reversed(endpoint.info()["revisions"])]
    assert resources == {"cpu": 1.0, "memory": 512 << 20, "gpu": None}  # what is not given stays
    kaos.run("serve", "kill", "-e", endpoint.name, "--yes")
    until(lambda: names(f"kaos.endpoint={endpoint.name}") == [], 20, "the end of its containers")


def test_a_container_that_dies_comes_back_and_so_does_one_whose_image_is_gone(endpoint: Endpoint) -> None:
    (first,) = names(f"kaos.endpoint={endpoint.name}")
    for pid in processes(first):
        os.kill(pid, 9)
    endpoint.answers_within(60)
    (second,) = names(f"kaos.endpoint={endpoint.name}")
    assert second != first
    assert _lives(endpoint) == 2
    (revision,) = endpoint.info()["revisions"]
    assert revision["restarts"] == 1
    # Taken away with its image: that comes from the registry.
    # The keeper starts it again, should it look between the end of the container and that of the image.
    until(lambda: _is_removed(revision["image"]["id"]), 60, "the end of the image")
    endpoint.answers_within(60)


def test_a_container_that_cannot_start_again_says_so(
    kaos: Kaos, server: Server, workspace: str, tmp_path: Path
) -> None:
    # Each try is a new container, which remembers nothing: only what it is shown of this machine changes.
    directory = write_tree(tmp_path / "weights", {"licence": workspace})
    model_id = kaos.json("model", "import", directory, "--name", "weights")["model_id"]
    source = bundle(tmp_path / "serve")
    script = source / "echo" / "model" / "serve"
    first, _, rest = script.read_text().partition("\n")
    asks = (
        'import os\nif not os.path.exists(os.environ["KAOS_MODEL"] + "/licence"):\n'
        '    raise SystemExit("the licence has run out")\n'
    )
    script.write_text(f"{first}\n{asks}{rest}")
    endpoint = Endpoint.deploy(kaos, source, "-m", model_id, *CONTAINER)
    shown = (server.home / "work" / "trees").glob("*/licence")
    next(path for path in shown if path.read_text() == workspace).unlink()
    endpoint.ask(b"die")
    until(lambda: endpoint.state() == "PIPELINE_RESTARTING", 20, "PIPELINE_RESTARTING")
    until(lambda: endpoint.state() == "PIPELINE_FAILURE", 90, "PIPELINE_FAILURE")
    assert "the licence has run out" in endpoint.info()["reason"]
    assert endpoint.ask()[0] == 503
    until(lambda: names(f"kaos.endpoint={endpoint.name}") == [], 20, "the end of its containers")


def test_revisions_that_are_no_good_take_no_traffic(endpoint: Endpoint, tmp_path: Path) -> None:
    dead = "#!/usr/bin/env python3\nraise SystemExit('the model does not load: it has 3 features')\n"
    said = endpoint.update(bundle(tmp_path / "dead", script=dead), code=1)
    assert "exit code 1" in said
    assert "the model does not load: it has 3 features" in said
    mute = bundle(tmp_path / "mute")
    (mute / "echo" / "model" / "serve").chmod(0o644)
    said = endpoint.update(mute, code=1)
    assert "./serve is not executable" in said
    assert endpoint.revision() == 1
    until(lambda: len(names(f"kaos.endpoint={endpoint.name}")) == 1, 20, "the end of the others")
    slow = bundle(tmp_path / "slow", start=4)
    deployed = json.loads(
        endpoint.kaos.run("serve", "update", "-e", endpoint.name, "-s", slow, "-o", "json").stdout
    )
    states = set()

    def running() -> bool:
        states.add(endpoint.info()["revisions"][0]["state"])
        return endpoint.revision() == deployed["revision"]

    until(running, 60, "the slow start")
    assert "PIPELINE_STARTING" in states
    assert endpoint.info()["current"] == deployed["revision"]


def test_swaps_and_a_rollback_under_load_fail_no_request(endpoint: Endpoint, tmp_path: Path) -> None:
    with Load(endpoint, clients=4) as load:
        endpoint.update(bundle(tmp_path / "2", sample="x"))
        assert endpoint.revision() == 2
        endpoint.kaos.run("serve", "rollback", "-e", endpoint.name)
        assert endpoint.revision() == 1
    assert load.failures == []
    assert set(load.answers) == {"1", "2"}
    assert len(names(f"kaos.endpoint={endpoint.name}")) == 2  # one is kept warm


def test_two_deploys_at_once_to_one_name_do_not_mix(kaos: Kaos, workspace: str, tmp_path: Path) -> None:
    name = workspace[-40:].strip("-")
    sources = [
        bundle(tmp_path / str(n), answer=f'self.answer(200, os.environ["KAOS_REVISION"] + " {n}")')
        for n in range(2)
    ]
    started = [
        kaos.start("serve", "deploy", "-s", source, "--name", name, *CONTAINER, "--wait", "-o", "json")
        for source in sources
    ]
    numbers = {}
    for number, process in enumerate(started):
        out, err = process.communicate(timeout=120)
        deployed = json.loads(out)
        assert process.returncode == 0 or "A later deploy, revision 2, has taken" in err
        numbers[deployed["revision"]] = number
    assert set(numbers) == {1, 2}
    assert Endpoint(kaos, name, deployed["url"]).ask() == (200, f"2 {numbers[2]}")


def test_a_bundle_with_its_own_nginx_runs_as_it_is(kaos: Kaos, tmp_path: Path, model: str) -> None:
    source = write_tree(
        tmp_path / "original",
        {
            "mnist/Dockerfile": NGINX_DOCKERFILE,
            "mnist/model/serve": NGINX_SERVE,
            "mnist/model/nginx.conf": NGINX_CONF,
            "mnist/model/wsgi.py": NGINX_WSGI,
            "mnist/test_payload.txt": "a sample",
        },
    )
    endpoint = Endpoint.deploy(kaos, source, "-m", model, *CONTAINER, "--workers", "2")
    assert endpoint.ask(b"seven") == (200, "weights weights seven")
    log = kaos.run("serve", "logs", "-e", endpoint.name).stdout
    assert "Starting the inference server with 2 workers." in log
    assert '"POST /invocations HTTP/1.1" 200' in log
    kaos.run("serve", "kill", "-e", endpoint.name, "--yes")
    until(lambda: names(f"kaos.endpoint={endpoint.name}") == [], 20, "the end of the container")


def test_a_build_that_is_killed_leaves_nothing(kaos: Kaos, tmp_path: Path) -> None:
    source = bundle(tmp_path / "slow")
    line = f"sleep {os.getpid()}"
    (source / "echo" / "Dockerfile").write_text(f"{DOCKERFILE}RUN {line}\n")
    name = json.loads(kaos.run("serve", "deploy", "-s", source, *CONTAINER, "-o", "json").stdout)["name"]
    until(lambda: _runs(line), 60, "the build")
    kaos.run("serve", "kill", "-e", name, "--yes")
    until(lambda: not _runs(line), 20, "the end of the build")
    assert names(f"kaos.endpoint={name}") == []


def test_containers_outlive_what_is_killed_and_come_back_with_kaos_up(
    endpoint: Endpoint, server: Server
) -> None:
    before = names(f"kaos.endpoint={endpoint.name}")
    os.kill(server.pid("gateway"), 9)
    endpoint.answers_within(30)
    os.kill(server.pid("keeper"), 9)
    assert endpoint.revision() == 1
    os.kill(server.pid("supervisord"), 9)  # the gateway ends with it, the containers do not
    try:
        assert names(f"kaos.endpoint={endpoint.name}") == before
        server.owner.run("down", seconds=120)
        assert names(f"kaos.endpoint={endpoint.name}") == []
    finally:
        server.owner.run("up", seconds=280)  # also for the tests that come after
    endpoint.answers_within(60)


def _lives(endpoint: Endpoint) -> int:
    """Return how often the log says that the first revision has begun."""
    lines = endpoint.kaos.run("serve", "logs", "-e", endpoint.name).stdout.splitlines()
    return lines.count(f"serving {endpoint.name} revision 1")


def _is_removed(image: str) -> bool:
    subprocess.run(["podman", "rmi", "--force", image], capture_output=True, check=False)
    return subprocess.run(["podman", "image", "exists", image], check=False).returncode == 1


def _runs(line: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"{line}$"], capture_output=True, check=False).returncode == 0
