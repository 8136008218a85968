"""Endpoints over a real server: deployed, replaced, turned back, killed, hurt."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from conftest import write_tree

from e2e.harness import Kaos, Server, task, tree_of, until, write_data, write_source
from e2e.serving import Endpoint, Load, write_serve

MODEL = """
import os
from pathlib import Path
output = Path(os.environ["KAOS_OUTPUT"])
(output / "metrics").mkdir()
(output / "metrics" / "metrics.json").write_text('{"accuracy": 1}')
(output / "model").mkdir()
(output / "model" / "model.txt").write_text("a model")
"""


@pytest.fixture
def endpoint(kaos: Kaos, tmp_path: Path) -> Endpoint:
    """Return a new endpoint without a model."""
    return Endpoint.deploy(kaos, write_serve(tmp_path / "serve"))


def services(name: str) -> dict[psutil.Process, str]:
    """Return the processes of an endpoint's services, with their revisions."""
    found = {}
    for process in psutil.process_iter():
        try:
            environ = process.environ()
        except psutil.Error:
            continue
        if environ.get("KAOS_ENDPOINT") == name:
            found[process] = environ["KAOS_REVISION"]
    return found


def test_a_trained_model_is_served_and_comes_back(kaos: Kaos, workspace: str, tmp_path: Path) -> None:
    job = kaos.deploy_and_wait(
        "-s", write_source(tmp_path / "train", MODEL), "-d", write_data(tmp_path / "data")
    )
    model_id = kaos.info(job)["models"][0]["model_id"]
    answer = 'self.answer(200, (model / "model" / "model.txt").read_text() + open("model.txt").read())'
    source = write_serve(tmp_path / "serve", answer=answer, sample="a sample")
    said = kaos.run("serve", "deploy", "-s", source, "-m", model_id, "--wait").stderr
    assert f"✔ Adding trained model_id: {model_id}" in said
    assert re.search(r"✔ Setting source bundle: /echo:[0-9a-f]{5}", said)
    (row,) = kaos.json("serve", "list")
    assert re.fullmatch(rf"serve-{workspace[:36].rstrip('-_')}-[0-9a-f]{{6}}", row["name"])
    assert row["state"] == "PIPELINE_RUNNING"
    endpoint = Endpoint(kaos, row["name"], row["url"])
    assert endpoint.ask(path="ping", method="GET") == (200, "pong")
    assert kaos.run("serve", "predict", "-i", "0", "-d", "x").stdout == "a modela model\n"
    variables = endpoint.ask(b"environment")[1]
    assert "AIRFLOW" not in variables
    path = Path(kaos.run("serve", "get", "-i", "0").stdout.strip())
    top = f"{workspace}/{endpoint.name}/code/echo:"
    assert str(path).startswith(top)
    assert set(tree_of(kaos.directory / path)) == {
        "Dockerfile",
        "model/serve",
        "model/model.txt",
        "test_payload.txt",
    }
    (revision,) = endpoint.info()["revisions"]
    assert revision["model"]["model_id"] == model_id
    got = kaos.directory / path  # what was got can be deployed again
    again = Endpoint.deploy(kaos, got, "-m", model_id, "--name", endpoint.name)
    assert again.info()["revisions"][0]["source"]["digest"] == revision["source"]["digest"]
    assert (
        kaos.run("serve", "kill", "-i", "0", "--yes").stderr
        == f"Successfully killed endpoint {endpoint.name}\n"
    )
    assert endpoint.ask()[0] == 404
    assert kaos.json("serve", "list") == []
    until(lambda: not services(endpoint.name), 30, "the end of the services")


def test_an_imported_model_is_served(kaos: Kaos, tmp_path: Path) -> None:
    directory = write_tree(tmp_path / "weights", {"model.txt": "from elsewhere"})
    model_id = kaos.json("model", "import", directory, "--name", "resnet")["model_id"]
    assert re.fullmatch("resnet:[0-9a-f]{6}", model_id)
    assert kaos.json("model", "import", directory, "--name", "resnet")["model_id"] == model_id
    answer = 'self.answer(200, (model / "model.txt").read_text() + open("model.txt").read())'
    endpoint = Endpoint.deploy(kaos, write_serve(tmp_path / "serve", answer=answer), "-m", model_id)
    assert endpoint.ask() == (200, "from elsewhere" * 2)
    kaos.run("model", "tag", model_id, "production", "--why", "the first one")
    (listed,) = kaos.json("model", "list")
    assert (listed["model_id"], listed["job_id"], listed["tags"]) == (model_id, None, ["production"])
    kaos.run("serve", "update", "-e", endpoint.name, "-m", "production", "--wait")
    assert kaos.json("serve", "info", "-e", endpoint.name)["revisions"][0]["model"]["model_id"] == model_id
    kaos.run("model", "untag", "production")
    assert [each["model_id"] for each in kaos.json("model", "tags", "production")] == [None, model_id]
    assert "production" in kaos.run("serve", "update", "-e", endpoint.name, "-m", "production", code=3).stderr


def test_swaps_and_rollbacks_under_load_fail_no_request(endpoint: Endpoint, tmp_path: Path) -> None:
    sources = [write_serve(tmp_path / str(number), sample=f"{number}") for number in range(2)]
    follow = endpoint.kaos.start("serve", "logs", "-e", endpoint.name, "--follow")
    lines: list[str] = []

    def read() -> None:
        for line in follow.stdout or ():
            lines.append(line.rstrip())

    def followed(revision: int) -> None:
        line = f"serving {endpoint.name} revision {revision}"
        until(lambda: line in lines, 30, f"the log of revision {revision}")

    with ThreadPoolExecutor(1) as reader, Load(endpoint) as load:
        ended = reader.submit(read)
        followed(1)
        for number in range(3):
            endpoint.update(sources[number % 2])
            assert endpoint.revision() == number + 2
            followed(number + 2)
        for expected in (3, 4, 3, 4, 3):
            began = time.monotonic()
            endpoint.kaos.run("serve", "rollback", "-e", endpoint.name)
            assert endpoint.revision() == expected
            assert time.monotonic() - began < 6  # most of it the start of the command, on a busy machine
        endpoint.update(sources[0], "--canary", "30")
        until(lambda: load.answers["5"] > 10, 20, "the canary's share")
        assert load.answers["5"] < load.answers.total() / 2
        endpoint.kaos.run("serve", "promote", "-e", endpoint.name)
        assert endpoint.revision() == 5
        followed(5)
        follow.kill()
    ended.result()
    follow.communicate()
    assert load.failures == []
    assert set(load.answers) == {"1", "2", "3", "4", "5"}
    assert [line for line in lines if line.startswith("serving")] == [
        f"serving {endpoint.name} revision {number}" for number in range(1, 6)
    ]
    total = load.answers.total() * 0.99  # a datagram each, which nobody waits for
    until(lambda: endpoint.info()["traffic"]["requests"] >= total, 15, "the counts")
    info = endpoint.info()
    assert 0 < info["traffic"]["p50"] < info["traffic"]["p99"] < 30
    whats = [change["what"] for change in info["changes"]]
    assert whats.count("rollback") == 5
    assert whats[-2:] == ["canary", "promote"]


def test_a_revision_that_fails_its_probe_takes_no_traffic(endpoint: Endpoint, tmp_path: Path) -> None:
    dead = "#!/usr/bin/env python3\nraise SystemExit('the model does not load: it has 3 features')\n"
    said = endpoint.update(write_serve(tmp_path / "dead", script=dead), code=1)
    assert "the model does not load: it has 3 features" in said
    assert endpoint.revision() == 1
    wrong = 'self.answer(500, "no such column")'
    said = endpoint.update(write_serve(tmp_path / "wrong", answer=wrong, sample="x"), code=1)
    assert "HTTP 500: no such column" in said
    assert endpoint.revision() == 1
    said = endpoint.update(write_serve(tmp_path / "slow", start=60), "--start-timeout", "2", code=1)
    assert "did not answer GET /ping on its port within 2 s" in said
    info = endpoint.info()
    assert info["state"] == "PIPELINE_RUNNING"
    assert [each["state"] for each in info["revisions"]] == ["PIPELINE_FAILURE"] * 3 + ["PIPELINE_RUNNING"]
    log = endpoint.kaos.run("serve", "logs", "-e", endpoint.name, "-r", "2").stdout
    assert "it has 3 features" in log
    until(lambda: set(services(endpoint.name).values()) == {"1"}, 30, "their end")


def test_the_first_revision_of_an_endpoint_fails(kaos: Kaos, tmp_path: Path) -> None:
    source = write_serve(tmp_path / "dead", script="#!/usr/bin/env python3\nraise SystemExit('no model')\n")
    failed = kaos.run(
        "serve", "deploy", "-s", source, "--name", f"dead-{tmp_path.name}"[:60], "--wait", code=1
    )
    assert "no model" in failed.stderr
    (row,) = kaos.json("serve", "list")
    assert row["state"] == "PIPELINE_FAILURE"
    assert row["reason"].count("no model") == 1  # it was started once
    assert Endpoint(kaos, row["name"], row["url"]).ask()[0] == 404


def test_a_slow_start_is_waited_for(kaos: Kaos, tmp_path: Path) -> None:
    source = write_serve(tmp_path / "slow", start=6)
    name = json.loads(kaos.run("serve", "deploy", "-s", source, "-o", "json").stdout)["name"]
    states = set()

    def running() -> bool:
        states.add(kaos.json("serve", "list")[0]["state"])
        return "PIPELINE_RUNNING" in states

    until(running, 60, "the start")
    assert states == {"PIPELINE_STARTING", "PIPELINE_RUNNING"}
    assert kaos.json("serve", "info", "-e", name)["current"] == 1


def test_a_deploy_that_is_stopped_in_airflow_leaves_no_service(
    kaos: Kaos, server: Server, token: str, workspace: str, tmp_path: Path
) -> None:
    source = write_serve(tmp_path / "slow", start=100)
    deployed = json.loads(kaos.run("serve", "deploy", "-s", source, "-o", "json").stdout)
    until(lambda: services(deployed["name"]), 60, "its service")
    until(lambda: _probing(kaos, deployed["name"]), 30, "the probe")
    with server.http(token) as http:
        path = f"/api/v2/dags/kaos.{workspace}.serve/dagRuns/{deployed['job_id']}"
        assert http.patch(path, json={"state": "failed"}).status_code == 200
    until(lambda: not services(deployed["name"]), 30, "its end")
    (row,) = kaos.json("serve", "list")
    assert row["state"] == "PIPELINE_FAILURE"
    assert "stopped in Airflow" in row["reason"]


def test_a_run_that_airflow_fails_between_its_tasks_leaves_no_service(
    kaos: Kaos, server: Server, token: str, workspace: str, tmp_path: Path
) -> None:
    source = write_serve(tmp_path / "slow", start=100)
    deployed = json.loads(kaos.run("serve", "deploy", "-s", source, "-o", "json").stdout)
    until(lambda: _probing(kaos, deployed["name"]), 60, "the probe")
    task(server).kill()  # nobody is left whom Airflow could end, and who would end the service
    with server.http(token) as http:
        path = f"/api/v2/dags/kaos.{workspace}.serve/dagRuns/{deployed['job_id']}"
        assert http.patch(path, json={"state": "failed"}).status_code == 200
    until(lambda: not services(deployed["name"]), 30, "its end")
    (row,) = kaos.json("serve", "list")
    assert row["state"] == "PIPELINE_FAILURE"
    assert "stopped in Airflow" in row["reason"]


def test_who_waits_for_a_deploy_hears_that_its_endpoint_was_killed(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    source = write_serve(tmp_path / "slow", start=100)
    waiting = endpoint.kaos.start("serve", "update", "-e", endpoint.name, "-s", source, "--wait")
    until(lambda: endpoint.info()["revisions"][0]["revision"] == 2, 30, "the update")
    endpoint.kaos.run("serve", "kill", "-e", endpoint.name, "--yes")
    said = waiting.communicate(timeout=60)[1]
    assert waiting.returncode == 1
    assert "was killed" in said


def test_two_deploys_at_once_to_one_name_do_not_mix(kaos: Kaos, tmp_path: Path) -> None:
    name = f"two-{tmp_path.name}".replace("_", "-")[:60].rstrip("-")
    sources = [
        write_serve(
            tmp_path / str(number), answer=f'self.answer(200, os.environ["KAOS_REVISION"] + " {number}")'
        )
        for number in range(2)
    ]
    started = [kaos.start("serve", "deploy", "-s", each, "--name", name, "-o", "json") for each in sources]
    numbers = {}
    for number, process in enumerate(started):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        numbers[json.loads(out)["revision"]] = number
    assert set(numbers) == {1, 2}
    endpoint = Endpoint(kaos, name, json.loads(out)["url"])
    until(lambda: endpoint.ask() == (200, f"2 {numbers[2]}"), 60, "the later one")
    until(
        lambda: all(each["state"] != "PIPELINE_STARTING" for each in endpoint.info()["revisions"]), 60, "both"
    )
    assert endpoint.ask() == (200, f"2 {numbers[2]}")
    assert endpoint.info()["current"] == 2


def test_limits_and_tokens_are_the_gateways(kaos: Kaos, server: Server, tmp_path: Path) -> None:
    source = write_serve(tmp_path / "serve")
    options = ("--auth", "--max-body", "1Mi", "--timeout", "1")
    done = kaos.run("serve", "deploy", "-s", source, *options, "--wait", "-o", "json")
    document = json.loads(done.stdout)
    token, endpoint = document["token"], Endpoint(kaos, document["name"], document["url"])
    key = {"Authorization": f"Bearer {token}"}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
        status, text = endpoint.ask(headers=headers)
        assert status == 401
        assert "token" in json.loads(text)["error"]
    assert endpoint.ask(headers=key) == (200, "1 1")
    assert token not in endpoint.ask(b"headers", headers=key)[1]
    assert endpoint.ask(bytes(1 << 20), headers=key) == (200, f"1 {1 << 20}")
    status, text = endpoint.ask(bytes((1 << 20) + 1), headers=key)
    assert status == 413
    assert "1048576 bytes" in json.loads(text)["error"]
    began = time.monotonic()
    status, text = endpoint.ask(b"sleep 5", headers=key)
    assert (status, time.monotonic() - began < 4) == (504, True)
    assert json.loads(text) == {"error": "The endpoint did not answer in time."}
    for path in ("elsewhere", "ping/more", "invocations/"):
        assert endpoint.ask(path=path, headers=key)[0] == 404
    status, text = Endpoint(kaos, "not-there", endpoint.url).ask()
    assert (status, json.loads(text)) == (404, {"error": "There is no endpoint not-there here."})
    kaos.run("serve", "predict", "-e", endpoint.name, "-d", "x", code=5)
    key_file = tmp_path / "token"
    key_file.write_text(token)
    out = kaos.run("serve", "predict", "-e", endpoint.name, "-d", "x", "--token-file", key_file).stdout
    assert out == "1 1\n"
    leaked = subprocess.run(["grep", "-rlF", token, server.home], capture_output=True, text=True, check=False)
    assert leaked.stdout == ""
    renewed = json.loads(kaos.run("serve", "update", "-e", endpoint.name, "--auth", "-o", "json").stdout)[
        "token"
    ]
    assert endpoint.ask(headers=key)[0] == 401
    assert endpoint.ask(headers={"Authorization": f"Bearer {renewed}"})[0] == 200


def test_a_hundred_mebibytes_pass_where_they_may(kaos: Kaos, tmp_path: Path) -> None:
    endpoint = Endpoint.deploy(kaos, write_serve(tmp_path / "serve"), "--max-body", "100Mi")
    body = bytes(100 << 20)
    assert endpoint.ask(body) == (200, f"1 {len(body)}")
    file = tmp_path / "large"
    file.write_bytes(body + b"x")
    failed = kaos.run("serve", "predict", "-e", endpoint.name, "-d", f"@{file}", code=1)
    assert "HTTP 413" in failed.stderr


def test_an_endpoint_that_dies_comes_back(endpoint: Endpoint) -> None:
    (process,) = {p for p in services(endpoint.name) if "serve" in " ".join(p.cmdline())}
    process.send_signal(signal.SIGKILL)
    endpoint.answers_within(30)
    for _ in range(3):  # its pauses grow
        endpoint.ask(b"die")
        endpoint.answers_within(30)
    (revision,) = endpoint.info()["revisions"]
    assert revision["restarts"] >= 4
    lines = endpoint.kaos.run("serve", "logs", "-e", endpoint.name).stdout.splitlines()
    assert lines.count(f"serving {endpoint.name} revision 1") >= 3


def test_an_endpoint_that_cannot_start_again_says_so(kaos: Kaos, tmp_path: Path) -> None:
    once = (
        'import os\nif os.path.exists("begun"): raise SystemExit("the disk is full of surprises")\n'
        'open("begun", "w")\n'
    )
    script = write_serve(tmp_path / "serve")
    path = script / "echo" / "model" / "serve"
    first, _, rest = path.read_text().partition("\n")
    path.write_text(f"{first}\n{once}{rest}")
    endpoint = Endpoint.deploy(kaos, script)
    endpoint.ask(b"die")
    until(lambda: endpoint.state() == "PIPELINE_RESTARTING", 20, "PIPELINE_RESTARTING")
    until(lambda: endpoint.state() == "PIPELINE_FAILURE", 60, "PIPELINE_FAILURE")
    assert "the disk is full of surprises" in endpoint.info()["reason"]
    assert endpoint.ask()[0] == 503


def test_the_gateway_comes_back_with_its_routes(endpoint: Endpoint, server: Server) -> None:
    os.kill(server.pid("gateway"), signal.SIGKILL)
    endpoint.answers_within(20)
    os.kill(server.pid("keeper"), signal.SIGKILL)
    assert endpoint.ask()[0] == 200  # needs no keeper


def test_supervisor_and_down_and_up_leave_endpoints(
    endpoint: Endpoint, server: Server, tmp_path: Path
) -> None:
    before = {process.pid for process in services(endpoint.name)}
    os.kill(server.pid("supervisord"), signal.SIGKILL)
    endpoint.answers_within(60)
    assert before <= {process.pid for process in services(endpoint.name)}  # the services went on
    server.owner.run("up", seconds=280)
    source = write_serve(tmp_path / "slow", start=10)
    deployed = json.loads(endpoint.kaos.run("serve", "deploy", "-s", source, "-o", "json").stdout)
    until(lambda: _probing(endpoint.kaos, deployed["name"]), 60, "the probe")
    server.owner.run("down", seconds=120)
    assert services(endpoint.name) == {}
    # What is not on disk any more comes from the store.
    shutil.rmtree(server.home / "work" / "endpoints" / endpoint.name)
    server.owner.run("up", seconds=280)
    endpoint.answers_within(90)  # the endpoints of all the tests before start with it
    assert endpoint.revision() == 1
    Endpoint(endpoint.kaos, deployed["name"], deployed["url"]).answers_within(60)  # its deploy went on


def test_a_rollback_starts_what_is_not_warm_any_more(kaos: Kaos, tmp_path: Path) -> None:
    source = write_serve(tmp_path / "serve")
    endpoint = Endpoint.deploy(kaos, source, "--keep-warm", "0", "--timeout", "1")
    kaos.run("serve", "update", "-e", endpoint.name, "--wait")
    until(
        lambda: endpoint.info()["revisions"][1]["state"] == "PIPELINE_STOPPED", 30, "the end of the old one"
    )
    with Load(endpoint, clients=2) as load:
        kaos.run("serve", "rollback", "-e", endpoint.name)
        assert endpoint.revision() == 1
    assert load.failures == []


def test_metrics_for_prometheus(endpoint: Endpoint) -> None:
    for _ in range(20):
        endpoint.ask()
    address = endpoint.url.partition(f"/{endpoint.name}/")[0]

    def counted() -> str | None:
        text = urllib.request.urlopen(f"{address}/metrics", timeout=10).read().decode()
        label = f'endpoint="{endpoint.name}",revision="1"'
        found = re.search(rf'^kaos_requests_total{{{label},status="200"}} (\d+)$', text, re.MULTILINE)
        return text if found and int(found[1]) >= 20 else None

    text = until(counted, 10, "the counts")
    assert f'kaos_request_seconds_bucket{{endpoint="{endpoint.name}",revision="1",le="+Inf"}}' in text


def test_killing_a_workspace_ends_its_endpoints(endpoint: Endpoint, kaos: Kaos, workspace: str) -> None:
    kaos.run("workspace", "kill", "-n", workspace, "--yes")
    assert endpoint.ask()[0] == 404
    until(lambda: not services(endpoint.name), 30, "the end of the services")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["serve", "deploy", "-s", "SOURCE", "-m", "aaaaa_bbbbb:cccccc"], 3, "There is no model"),
        (["serve", "deploy", "-s", "SOURCE", "-m", ""], 3, "There is no model or tag ''"),
        (["serve", "deploy", "-s", "SOURCE", "--name", "Not A Name"], 2, "is not a valid endpoint name"),
        (["serve", "deploy", "-s", "SOURCE", "--name", "metrics"], 2, "is not a valid endpoint name"),
        (["serve", "deploy", "-s", "SOURCE", "--max-body", "lots"], 2, "is not a valid --max-body"),
        (["serve", "deploy", "-s", "SOURCE", "--gpu", "99"], 2, "--gpu asks for 99 GPUs, the machine has no"),
        (["serve", "deploy", "-s", "SOURCE", "--runtime", "kubernetes"], 2, "cannot run in 'kubernetes'"),
        (["serve", "deploy", "-s", "TRAIN"], 2, "has no model/serve"),
        (["train", "deploy", "-s", "SOURCE"], 2, "has no model/train"),
        (["serve", "update", "-e", "not-there"], 3, "There is no endpoint 'not-there'"),
        (["serve", "rollback", "-e", "not-there"], 3, "There is no endpoint 'not-there'"),
        (["serve", "info", "-i", "7"], 3, "There is no row"),
        (["serve", "kill", "-e", "../x", "--yes"], 3, "There is no endpoint"),
    ],
)
def test_refusals(kaos: Kaos, tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    places = {
        "SOURCE": str(write_serve(tmp_path / "serve")),
        "TRAIN": str(write_source(tmp_path / "train", "pass")),
    }
    failed = kaos.run(*(places.get(word, word) for word in arguments), code=code)
    assert said in failed.stderr
    assert kaos.json("serve", "list") == []


def _probing(kaos: Kaos, name: str) -> bool:
    """Tell whether the service of a first revision was launched, and Airflow knows."""
    return "serving" in kaos.run("serve", "logs", "-e", name).stdout
