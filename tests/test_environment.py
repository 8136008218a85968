"""Environments are made by a real uv from a real index: once, whole, and shared."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kaos.errors import EnvironmentBuildError
from kaos.image import EnvironmentSpec
from kaos.runtime.environment import EnvironmentBuilder
from kaos.runtime.uv import uv_environment

SIX = EnvironmentSpec(requirements="six==1.16.0\n")
BUILD = """
import sys
from pathlib import Path
from kaos.image import EnvironmentSpec
from kaos.runtime.environment import EnvironmentBuilder
made = EnvironmentBuilder(Path(sys.argv[1])).build(EnvironmentSpec(requirements=sys.argv[2]), print)
print("MADE", made.digest, made.reused, flush=True)
"""


@pytest.fixture
def builder(tmp_path: Path) -> EnvironmentBuilder:
    return EnvironmentBuilder(tmp_path / "environments")


def start_build(builder: EnvironmentBuilder, requirements: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", BUILD, str(builder.directory), requirements],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def version_of_six(python: Path) -> str:
    code = "import six; print(six.__version__)"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_an_environment_is_made_once_and_then_there_at_once(builder: EnvironmentBuilder) -> None:
    lines: list[str] = []
    made = builder.build(SIX, lines.append)
    assert version_of_six(made.python) == "1.16.0"
    assert made.python_version == ".".join(map(str, sys.version_info[:3]))
    assert made.lock.startswith("six==1.16.0")
    assert "--hash=sha256:" in made.lock
    assert not made.reused
    assert any("six==1.16.0" in line for line in lines)

    again = builder.build(SIX, lines.append)
    assert again.reused
    assert again.seconds < 0.05
    assert again.model_copy(update={"seconds": 0, "reused": False}) == made.model_copy(update={"seconds": 0})
    assert "already" in lines[-1]


def test_a_lock_is_installed_as_it_is_and_shared_with_the_spec_that_gave_it(
    builder: EnvironmentBuilder,
) -> None:
    made = builder.build(SIX, print)
    loose = EnvironmentSpec(requirements="six\n")
    assert builder.build(loose, print, lock=made.lock).python == made.python

    elsewhere = EnvironmentBuilder(builder.directory / "elsewhere").build(loose, print, lock=made.lock)
    assert (elsewhere.digest, elsewhere.reused) == (made.digest, False)
    assert version_of_six(elsewhere.python) == "1.16.0"


def test_a_lock_with_a_wrong_hash_is_refused(builder: EnvironmentBuilder) -> None:
    lock = f"six==1.16.0 --hash=sha256:{'0' * 64}\n"
    with pytest.raises(EnvironmentBuildError, match=r"(?i)hash"):
        builder.build(SIX, print, lock=lock)


def test_requirements_with_hashes_are_the_lock(builder: EnvironmentBuilder) -> None:
    lock = builder.build(SIX, print).lock.replace("\\\n", "").replace("     ", " ")
    made = builder.build(EnvironmentSpec(requirements=lock), print)
    assert made.lock == lock
    with pytest.raises(EnvironmentBuildError, match=r"(?i)hash"):
        builder.build(EnvironmentSpec(requirements=f"six==1.16.0 --hash=sha256:{'0' * 64}\n"), print)


def test_an_environment_without_requirements_is_a_bare_python(builder: EnvironmentBuilder) -> None:
    made = builder.build(EnvironmentSpec(), print)
    assert made.lock == ""
    subprocess.run([made.python, "-c", "pass"], check=True)


def test_a_typo_gives_the_reason_of_uv(builder: EnvironmentBuilder) -> None:
    lines: list[str] = []
    spec = EnvironmentSpec(requirements="six==1.16.0\nsix-that-is-not-there==9.9\n")
    with pytest.raises(EnvironmentBuildError, match="six-that-is-not-there was not found"):
        builder.build(spec, lines.append)
    assert any("six-that-is-not-there" in line for line in lines)


def test_a_python_that_cannot_be_had_is_named_with_those_that_can(
    builder: EnvironmentBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    with pytest.raises(EnvironmentBuildError, match=r"asks for Python 3\.9\.99,") as caught:
        builder.build(EnvironmentSpec(python="3.9.99"), print)
    assert ".".join(map(str, sys.version_info[:3])) in caught.value.message


def test_two_processes_that_build_the_same_make_it_once(builder: EnvironmentBuilder) -> None:
    processes = [start_build(builder, "six==1.16.0\n") for _ in range(2)]
    ends = [process.communicate(timeout=60)[0].splitlines()[-1].split() for process in processes]
    assert ends[0][:2] == ends[1][:2]
    assert sorted(end[2] for end in ends) == ["False", "True"]


@pytest.mark.parametrize("after", ["Creating virtual environment", "Resolved"])
def test_a_build_that_was_killed_is_made_anew(builder: EnvironmentBuilder, after: str) -> None:
    process = start_build(builder, "six==1.16.0\n")
    assert process.stdout is not None
    for line in process.stdout:
        if after in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    made = builder.build(SIX, print)
    assert version_of_six(made.python) == "1.16.0"
    assert not made.reused


def test_an_incomplete_directory_is_made_anew(builder: EnvironmentBuilder) -> None:
    made = builder.build(SIX, print)
    (made.python.parent.parent / "environment.json").unlink()
    (made.python.parent.parent / "junk").touch()
    again = builder.build(SIX, print)
    assert not again.reused
    assert not (made.python.parent.parent / "junk").exists()


def test_who_waits_for_another_build_says_so(builder: EnvironmentBuilder, tmp_path: Path) -> None:
    path = builder.directory / "locks" / f"{SIX.digest}.lock"
    path.parent.mkdir(parents=True)
    lines: list[str] = []
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def let_go(line: str) -> None:
            lines.append(line)
            fcntl.flock(held, fcntl.LOCK_UN)

        builder.build(SIX, let_go)
    assert lines[0].startswith("Another build")


def test_uv_sees_no_secret_of_the_server() -> None:
    server = {
        "PATH": "/bin",
        "HOME": "/root",
        "AIRFLOW__CORE__FERNET_KEY": "x",
        "KAOS_TOKEN": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "HTTPS_PROXY": "http://proxy:1",
        "PIP_INDEX_URL": "https://example.org/simple",
        "UV_OFFLINE": "0",
    }
    seen = uv_environment(server)
    assert not [name for name in seen if name.startswith(("AIRFLOW", "KAOS", "AWS"))]
    assert seen["HTTPS_PROXY"] == "http://proxy:1"
    assert seen["UV_DEFAULT_INDEX"] == "https://example.org/simple"
    assert seen["UV_OFFLINE"] == "0"
