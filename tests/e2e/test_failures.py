"""Jobs that cannot succeed, and whether the user is told why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.harness import DOCKERFILE, TRAIN, Kaos, until, write_data, write_source

pytestmark = pytest.mark.second


def fail(kaos: Kaos, source: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Deploy what must fail, and return what ``--wait`` said and what ``train info`` says."""
    data = write_data(source.parent / "data")
    result = kaos.run("train", "deploy", "-s", source, "-d", data, *arguments, "--wait", "-o", "json", code=1)
    info = kaos.info(json.loads(result.stdout)["job_id"])
    assert info["state"] == "JOB_FAILURE"
    assert f"Job {info['job_id']} ended as JOB_FAILURE: " in result.stderr
    assert kaos.json("train", "list")[0]["state"] == "JOB_FAILURE"
    return result.stderr, info


def test_a_script_that_raises_fails_with_its_traceback_in_the_log(kaos: Kaos, tmp_path: Path):
    source = write_source(tmp_path / "s", "print('here we go')\nprices = {}\nprices['bread']\n")
    told, info = fail(kaos, source)
    assert "exit code 1" in info["reason"]
    assert "exit code 1" in told
    assert " ✗ train" in told
    lines = kaos.log(info["job_id"])
    assert lines[0] == "here we go"
    assert "Traceback (most recent call last):" in lines
    assert lines[-1] == "KeyError: 'bread'"
    shown = kaos.run("train", "info", "-j", info["job_id"]).stdout
    assert "    State: JOB_FAILURE\n" in shown
    assert "    Reason: train: exit code 1" in shown
    refused = kaos.run("train", "get", "-j", info["job_id"], "-m", code=2)
    assert f"Job {info['job_id']} has no model (JOB_FAILURE)" in refused.stderr
    assert kaos.run("train", "get", "-j", info["job_id"]).stdout.count("\n") == 2


def test_a_script_that_is_killed_says_by_what(kaos: Kaos, tmp_path: Path):
    _, info = fail(kaos, write_source(tmp_path / "s", "import os\nos.kill(os.getpid(), 9)\n"))
    assert "killed by signal 9 (SIGKILL)" in info["reason"]


def test_a_script_without_its_executable_bit_is_told_to_chmod(kaos: Kaos, tmp_path: Path):
    source = write_source(tmp_path / "s", TRAIN)
    (source / "mnist" / "model" / "train").chmod(0o644)
    result = kaos.run("train", "deploy", "-s", source, "-d", write_data(tmp_path / "d"), "--wait", code=1)
    assert "./train is not executable: run `chmod +x` on it and deploy again" in result.stderr


def test_a_missing_interpreter_is_named(kaos: Kaos, tmp_path: Path):
    _, info = fail(kaos, write_source(tmp_path / "s", "#!/usr/bin/no-such-python\nprint(1)\n"))
    assert "train wants an interpreter that is not there: #!/usr/bin/no-such-python" in info["reason"]


def test_a_typo_in_the_requirements_is_in_the_build_log(kaos: Kaos, tmp_path: Path):
    lines = ("WORKDIR /opt/p", "COPY . /opt/p/", "RUN pip install -r requirements.txt")
    dockerfile = "\n".join([DOCKERFILE, *lines])
    source = write_source(
        tmp_path / "s", TRAIN, requirements="scikit-laern-typo==0.0\n", dockerfile=dockerfile
    )
    told, info = fail(kaos, source)
    assert info["stage"] == "TRAINING"  # ended jobs are listed there
    assert "scikit-laern-typo" in info["reason"]
    assert "scikit-laern-typo" in told
    log = kaos.run("train", "build-logs", "-j", info["job_id"]).stdout
    assert re.search(
        "scikit-laern-typo.*not found in the package registry|no versions? of scikit-laern-typo", log
    )
    assert kaos.run("train", "logs", "-j", info["job_id"]).stdout == ""


def test_a_dockerfile_beyond_the_subset_names_line_and_runtime(kaos: Kaos, tmp_path: Path):
    source = write_source(tmp_path / "s", TRAIN, dockerfile=f"{DOCKERFILE}\nRUN apt-get install -y gcc\n")
    told, info = fail(kaos, source)
    assert "Dockerfile line 3: `RUN apt-get install -y gcc`" in info["reason"]
    assert "`container` runtime" in info["reason"]
    assert "Dockerfile line 3" in told
    assert "Dockerfile line 3" in kaos.run("train", "build-logs", "-j", info["job_id"]).stdout


def test_a_memory_limit_that_is_hit_is_the_reason(kaos: Kaos, tmp_path: Path):
    source = write_source(
        tmp_path / "s", "print('filling')\nhoard = bytearray(600 << 20)\nprint(len(hoard))\n"
    )
    _, info = fail(kaos, source, "--memory", "256Mi")
    assert "out of memory: limit 256Mi" in info["reason"]
    assert info["limits"].startswith("memory 256Mi by ")
    assert info["resources"]["memory"] == 256 << 20


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("--cpu", "0", "positive number"),
        ("--cpu", "two", "positive number"),
        ("--cpu", "-1", "positive number"),
        ("--memory", "512", "suffixes k, M, G, T, Ki, Mi, Gi, Ti"),
        ("--memory", "512MB", "suffixes k, M, G, T, Ki, Mi, Gi, Ti"),
        ("--memory", "0Gi", "positive number"),
        ("--gpu", "0.5", "whole number"),
        ("--cpu", "100000", "the machine has"),
        ("--memory", "900T", "--memory asks for 900T, the machine has"),
        ("--gpu", "64", "--gpu asks for 64 GPUs, the machine has"),
    ],
)
def test_resources_that_cannot_be_are_refused_before_anything_starts(
    kaos: Kaos, tmp_path: Path, option: str, value: str, rule: str
):
    source, data = write_source(tmp_path / "s", TRAIN), write_data(tmp_path / "d")
    result = kaos.run("train", "deploy", "-s", source, "-d", data, f"{option}={value}", code=2)
    assert result.stderr.splitlines()[-2].startswith("Error: ")
    assert rule in result.stderr
    assert option in result.stderr
    assert kaos.json("train", "list") == []
    assert set(kaos.json("workspace", "info")["inputs"].values()) == {None}


def test_what_a_script_leaves_running_ends_with_it(kaos: Kaos, tmp_path: Path):
    script = f"""{TRAIN}
import subprocess
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
print(child.pid, flush=True)
"""
    job_id = kaos.deploy_and_wait(
        "-s", write_source(tmp_path / "s", script), "-d", write_data(tmp_path / "d")
    )
    pid = int(kaos.log(job_id)[0])
    until(lambda: not psutil.pid_exists(pid), 5, "the end of what the script left")
