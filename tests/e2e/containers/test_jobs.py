"""Jobs in containers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from conftest import write_tree

from e2e.containers.conftest import DOCKERFILE, names
from e2e.harness import TRAIN, Kaos, Server, until, write_data, write_source
from e2e.test_survival import task

SCORE = f"""{TRAIN}
params = json.loads(Path(os.environ["KAOS_PARAMS"]).read_text())
table = (Path(os.environ["KAOS_DATA"]) / "table.csv").read_text()
(output / "model" / "model.txt").write_text(f"{{params.get('degree')}} {{table}}")
(output / "metrics" / "metrics.json").write_text(json.dumps({{"score": params.get("degree", 0)}}))
print("trained", flush=True)
"""

ORIGINAL = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path

out = sys.argv[1]
data_path = os.path.join('/pfs/data', os.listdir('/pfs/data')[0])
assert data_path == '/pfs/data/features', data_path
with open('params.json') as src:
    params = json.load(src)
path = next(Path('/pfs/hyper').rglob('*.json'))
params.update(json.loads(path.read_text()))
assert Path('/opt/program/train').samefile(sys.argv[0])
os.makedirs(f'{out}/model')
os.makedirs(f'{out}/metrics')
training = os.listdir(f'{data_path}/training')
rows = sum(len(open(f'{data_path}/training/{name}').readlines()) for name in training)
Path(out, 'model', 'model.pkl').write_text(f"{params['kernel']} {params['degree']} {rows}")
json.dump({'accuracy_train': 0.5}, open(f'{out}/metrics/metrics.json', 'w'))
"""
ORIGINAL_DOCKERFILE = """FROM python:3.11-slim

WORKDIR /opt/program
COPY . /opt/program/

# FYI -> train is run as an executable in kaos!
RUN chmod +x train
ENV PYTHONUNBUFFERED=TRUE
RUN if [ -f /opt/program/requirements.txt ] ; then pip3 install --no-cache-dir -r requirements.txt; fi
"""

SAGEMAKER = """#!/usr/bin/env python3
import json, os, sys, traceback

prefix = '/opt/ml/'
training_path = os.path.join(prefix, 'input/data', 'training')

def train():
    try:
        with open(os.path.join(prefix, 'input/config/hyperparameters.json')) as tc:
            params = json.load(tc)
        assert all(isinstance(value, str) for value in params.values()), params
        if params.get('degree') == '13':
            raise ValueError('thirteen is no degree')
        files = [os.path.join(training_path, name) for name in os.listdir(training_path)]
        assert files, training_path
        with open(os.path.join(prefix, 'input/config/resourceconfig.json')) as rc:
            assert json.load(rc)['current_host']
        with open(os.path.join(prefix, 'model', 'decision-tree.pkl'), 'w') as out:
            out.write(f"{params.get('degree')} {len(files)} {sys.argv[1:]}")
    except Exception as e:
        with open(os.path.join(prefix, 'output', 'failure'), 'w') as s:
            s.write('Exception during training: ' + str(e) + '\\n' + traceback.format_exc())
        sys.exit(255)

if __name__ == '__main__':
    train()
    sys.exit(0)
"""
SAGEMAKER_DOCKERFILE = """FROM python:3.11-slim
ENV PYTHONUNBUFFERED=TRUE
ENV PYTHONDONTWRITEBYTECODE=TRUE
ENV PATH="/opt/program:${PATH}"
COPY . /opt/program
WORKDIR /opt/program
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source", SCORE, dockerfile=DOCKERFILE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.json"
    path.write_text('{"degree": [3, 5]}')
    return path


def test_the_same_job_in_both_runtimes(kaos: Kaos, source: Path, data: Path, params: Path) -> None:
    inputs = ("-s", source, "-d", data, "-h", params)
    jobs = {
        runtime: kaos.info(kaos.deploy_and_wait(*inputs, "--runtime", runtime))
        for runtime in ("process", "container")
    }
    assert {name: job["runtime"] for name, job in jobs.items()} == {name: name for name in jobs}
    one, other = ({model["model_id"]: model for model in job["models"]} for job in jobs.values())
    # To the byte: the same files went in, the same came out.
    assert set(one) == set(other)
    assert all(model_id.count("_") == 2 for model_id in one)
    for key in ("source_digest", "data_digest", "hyperparams", "model_digest", "metrics"):
        assert [one[name][key] for name in one] == [other[name][key] for name in one]
    assert jobs["process"]["image"] is None
    image = jobs["container"]["image"]
    assert (image["engine"], image["train"]) == ("podman", "/opt/program/train")
    assert len(image["id"]) == 64
    assert image["digest"].startswith("sha256:")
    (base,) = image["bases"]
    assert (base["name"], base["digest"][:7]) == ("python:3.11-slim", "sha256:")
    shown = kaos.run("train", "info", "-j", jobs["container"]["job_id"]).stdout
    assert f"Image: build-train-mnist:{image['id'][:5]} (podman, pushed as {image['digest'][:19]})" in shown

    # Another data bundle: the image is there, and nothing is built.
    again = write_data(data.parent / "more", "4,5,6\n")
    done = kaos.run("train", "deploy", "-d", again, "--runtime", "container", "--wait")
    assert f"build-train-mnist:{image['id'][:5]}" in done.stdout
    job_id = kaos.json("train", "list")[0]["job_id"]
    assert "is there already" in kaos.run("train", "build-logs", "-j", job_id).stdout


def test_the_log_of_a_build_is_followed_and_a_kill_ends_it(kaos: Kaos, tmp_path: Path, data: Path) -> None:
    slow = write_source(
        tmp_path / "slow",
        SCORE,
        dockerfile=f"{DOCKERFILE}RUN echo beg''un $(date +%s.%N); sleep {os.getpid()}\n",
    )
    job_id = kaos.deploy("-s", slow, "-d", data, "--runtime", "container")

    def begun() -> float | None:
        for line in kaos.run("train", "build-logs", "-j", job_id).stdout.splitlines():
            if line.startswith("begun "):
                return float(line.split()[1])
        return None

    assert time.time() - until(begun, 60, "the build's line") < 10
    kaos.run("train", "kill", "-j", job_id)
    until(
        lambda: subprocess.run(["pgrep", "-f", f"sleep {os.getpid()}$"], capture_output=True).returncode == 1,
        10,
        "the end of the build",
    )
    assert kaos.info(job_id)["state"] == "JOB_KILLED"


def test_a_base_image_that_is_not_there_is_named(kaos: Kaos, tmp_path: Path, data: Path) -> None:
    strange = write_source(tmp_path / "strange", SCORE, dockerfile="FROM 127.0.0.1:1/no/such:1\n")
    job = kaos.info(kaos.deploy_and_wait("-s", strange, "-d", data, "--runtime", "container", code=1))
    assert "The base image 127.0.0.1:1/no/such:1 is not on this machine" in job["reason"]


def test_a_bundle_of_the_original_kaos_trains_as_it_is(kaos: Kaos, tmp_path: Path, params: Path) -> None:
    write_tree(
        tmp_path / "original" / "mnist",
        {
            "Dockerfile": ORIGINAL_DOCKERFILE,
            "model/train": ORIGINAL,
            "model/params.json": '{"kernel": "rbf", "degree": 1}',
            "model/requirements.txt": "# none\n",
        },
    )
    write_tree(tmp_path / "data" / "features", {"training/a.csv": "1\n2\n", "test/b.csv": "3\n"})
    job_id = kaos.deploy_and_wait(
        "-s", tmp_path / "original", "-d", tmp_path / "data", "-h", params, "--runtime", "container"
    )
    kaos.run("train", "get", "-j", job_id, "-m", "-o", tmp_path / "out")
    models = sorted(path.read_text() for path in (tmp_path / "out").rglob("model.pkl"))
    assert models == ["rbf 3 2", "rbf 5 2"]
    assert kaos.info(job_id)["metrics"] == ["accuracy_train"]


@pytest.mark.parametrize("entrypoint", [False, True])
def test_a_bundle_for_sagemaker_trains_as_it_is(kaos: Kaos, tmp_path: Path, entrypoint: bool) -> None:
    last = 'ENTRYPOINT ["python3", "/opt/program/train"]\nUSER 1000\n' if entrypoint else ""
    write_tree(
        tmp_path / "byoc" / "trees", {"Dockerfile": SAGEMAKER_DOCKERFILE + last, "model/train": SAGEMAKER}
    )
    write_tree(tmp_path / "data" / "iris", {"iris.csv": "setosa,1\n"})
    params = tmp_path / "params.json"
    params.write_text('{"degree": [7, 13]}')
    job_id = kaos.deploy_and_wait(
        "-s", tmp_path / "byoc", "-d", tmp_path / "data", "-h", params, "--runtime", "container"
    )
    kaos.run("train", "get", "-j", job_id, "-m", "-o", tmp_path / "out")
    (model,) = (tmp_path / "out").rglob("decision-tree.pkl")
    assert model.read_text() == f"7 1 {['train'] if entrypoint else ['/pfs/out']}"
    (failed,) = [model for model in kaos.info(job_id)["models"] if model["reason"]]
    assert failed["reason"] == "exit code 255: Exception during training: thirteen is no degree"


def test_what_a_container_may_not_do(kaos: Kaos, tmp_path: Path, data: Path) -> None:
    script = f"""{TRAIN}
import socket
data = Path(os.environ["KAOS_DATA"])
for attempt in (data / "new", data / "table.csv"):
    try:
        attempt.write_text("x")
    except OSError as error:
        print("data:", error.strerror)
print("interfaces:", sorted(name for _, name in socket.if_nameindex()))
status = Path("/proc/self/status").read_text()
print("new privileges:", [line.split()[1] for line in status.splitlines() if "NoNewPrivs" in line])
print("secrets:", sorted(name for name in os.environ if "AIRFLOW" in name or "CONTAINERS" in name))
print("processes:", len([name for name in os.listdir("/proc") if name.isdigit()]))
(output / "model" / "big").write_bytes(bytes(1 << 20))
bytearray(600 << 20)
"""
    source = write_source(tmp_path / "source", script, dockerfile=DOCKERFILE)
    job_id = kaos.deploy_and_wait(
        *("-s", source, "-d", data, "--runtime", "container", "--no-network", "--memory", "128Mi"), code=1
    )
    assert kaos.log(job_id) == [
        "data: Read-only file system",
        "data: Read-only file system",
        "interfaces: ['lo']",
        "new privileges: ['1']",
        "secrets: []",
        "processes: 2",
    ]
    job = kaos.info(job_id)
    assert "out of memory: limit 128Mi" in job["reason"]
    assert "memory 128Mi by podman" in job["limits"]
    assert names(f"kaos.job={job_id}") == []


def test_a_runtime_is_chosen_by_workspace_and_by_job(
    kaos: Kaos, source: Path, data: Path, workspace: str
) -> None:
    other = f"{workspace[:40]}-c"
    kaos.run("workspace", "create", "-n", other, "--runtime", "container")
    assert kaos.json("workspace", "info")["runtime"] == "container"
    job_id = kaos.deploy_and_wait("-s", source, "-d", data)
    assert kaos.info(job_id)["runtime"] == "container"
    assert kaos.info(kaos.deploy_and_wait("-d", data, "--runtime", "process"))["runtime"] == "process"
    kaos.run("workspace", "set", "-n", workspace)
    assert kaos.json("workspace", "info")["runtime"] == "process"

    refused = kaos.run("train", "deploy", "-s", source, "-d", data, "--runtime", "kubernetes", code=2)
    assert "This server does not run jobs in 'kubernetes'; it allows process and container." in refused.stderr
    refused = kaos.run("train", "deploy", "-s", source, "-d", data, "--no-network", code=2)
    assert "cannot keep a script from the network" in refused.stderr
    assert kaos.json("train", "list") == []
    refused = kaos.run("workspace", "create", "-n", f"{workspace[:40]}-k", "--runtime", "kubernetes", code=2)
    assert "does not run jobs in 'kubernetes'" in refused.stderr


def test_the_template_is_made_again_in_its_image(kaos: Kaos) -> None:
    kaos.run("template", "get", "--name", "mnist")
    template = kaos.directory / "templates" / "mnist"
    inputs = ("-s", template / "model-train", "-d", template / "data", "--runtime", "container")
    (model,) = kaos.info(kaos.deploy_and_wait(*inputs))["models"]
    found = kaos.json("train", "reproduce", "-m", model["model_id"])
    assert (found["verdict"], found["environment"], found["made"]) == ("identical", [], model["model_digest"])


def test_a_model_is_made_again_in_exactly_its_image(
    server: Server, kaos: Kaos, source: Path, data: Path
) -> None:
    job = kaos.info(kaos.deploy_and_wait("-s", source, "-d", data, "--runtime", "container"))
    (model,), image = job["models"], job["image"]
    remove = ["podman", "rmi", "--force", image["id"]]

    # Not on this machine any more: it is pulled by its digest, and nothing is built.
    subprocess.run(remove, capture_output=True, check=True)
    found = kaos.json("train", "reproduce", "-m", model["model_id"])
    assert (found["verdict"], found["environment"]) == ("identical", [])
    assert kaos.info(found["job_id"])["image"]["id"] == image["id"]
    log = kaos.run("train", "build-logs", "-j", found["job_id"]).stdout
    assert f"Pulling {image['repository']}@{image['digest']}" in log
    assert "STEP" not in log

    # Nor in the registry: that is said, with what can be done.
    subprocess.run(remove, capture_output=True, check=True)
    (stored,) = server.home.parent.rglob(
        "_manifests/revisions/sha256/" + image["digest"].removeprefix("sha256:")
    )
    shutil.rmtree(stored)
    gone = kaos.run("train", "reproduce", "-m", model["model_id"], code=1)
    assert f"The image sha256:{image['id'][:12]} that {model['model_id']} was made in is gone" in gone.stderr
    assert f"kaos train reproduce -m {model['model_id']} --rebuild" in gone.stderr
    rebuilt = kaos.json("train", "reproduce", "-m", model["model_id"], "--rebuild")
    made = kaos.info(rebuilt["job_id"])["image"]["id"]
    assert rebuilt["verdict"] == "identical"
    assert rebuilt["environment"] == [
        {"what": "image", "original": f"sha256:{image['id']}", "made": f"sha256:{made}"}
    ]


SLOW = f"""{TRAIN}
import time
for second in range(15):
    print("second", second, flush=True)
    time.sleep(1)
(output / "model" / "m").write_text("done")
"""


def test_a_killed_job_leaves_no_container(kaos: Kaos, tmp_path: Path, data: Path) -> None:
    slow = write_source(tmp_path / "slow", SLOW, dockerfile=DOCKERFILE)
    job_id = kaos.deploy("-s", slow, "-d", data, "--runtime", "container")
    until(lambda: "second 1" in kaos.log(job_id), 60, "the script's first lines")
    assert len(names(f"kaos.job={job_id}")) == 1
    kaos.run("train", "kill", "-j", job_id)
    until(lambda: names(f"kaos.job={job_id}") == [], 20, "the end of the container")
    assert kaos.info(job_id)["state"] == "JOB_KILLED"


def test_a_container_outlives_the_worker_that_started_it(
    server: Server, kaos: Kaos, tmp_path: Path, data: Path
) -> None:
    slow = write_source(tmp_path / "slow", SLOW, dockerfile=DOCKERFILE)
    job_id = kaos.deploy("-s", slow, "-d", data, "--runtime", "container")
    until(lambda: "second 1" in kaos.log(job_id), 60, "the script's first lines")
    (container,) = names(f"kaos.job={job_id}")
    worker: psutil.Process = task(server)
    worker.kill()
    job = kaos.ended(job_id, 150)
    assert job["state"] == "JOB_SUCCESS", job["reason"]
    assert kaos.log(job_id) == [f"second {second}" for second in range(15)]
    records = json.dumps(job)
    assert container not in records
    assert names(f"kaos.job={job_id}") == []


def test_containers_end_with_the_server(server: Server, kaos: Kaos, tmp_path: Path, data: Path) -> None:
    """Leave one behind, the last of all: the server's fixture looks for it after `kaos down`."""
    slow = write_source(tmp_path / "slow", SLOW.replace("15", "600"), dockerfile=DOCKERFILE)
    job_id = kaos.deploy("-s", slow, "-d", data, "--runtime", "container")
    until(lambda: names(f"kaos.job={job_id}"), 60, "its container")
    # Those of the endpoints run, too.
    assert set(names(f"kaos.job={job_id}")) <= set(names(f"kaos.instance={server.instance['id']}"))
