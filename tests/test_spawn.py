"""Many runs from one spawner: the same as from commands of their own, and cheaper."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from kaos.errors import KaosError
from kaos.runtime import proctree, spawn
from kaos.runtime.base import Environment, RunSpec, RunState
from kaos.runtime.process import ProcessRuntime, many_runs


def spec_of(root: Path, script: str) -> RunSpec:
    """Return a run of a shell script."""
    (root / "program").mkdir(parents=True)
    (root / "program" / "train").write_text(f"#!/bin/sh\n{script}\n")
    (root / "program" / "train").chmod(0o755)
    (root / "params.json").write_text("{}")
    environment = Environment(
        digest="0" * 64,
        python=Path(sys.executable),
        python_version="3.11",
        lock="",
        lock_digest="0" * 64,
        seconds=0,
        reused=True,
    )
    return RunSpec(
        run_id=root.name,
        job_id="a" * 32,
        program=root / "program",
        params=root / "params.json",
        output=root / "output",
        directory=root / "run",
        environment=environment,
    )


def spawner_process() -> psutil.Process:
    deadline = time.monotonic() + 10
    while True:  # forked first, it then becomes another program
        found = [each for each in psutil.Process().children() if "--serve" in each.cmdline()]
        if found or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    (found,) = found
    return found


def test_runs_end_as_they_would_alone_and_nothing_stays(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    with many_runs():
        process = spawner_process()
        for number, (script, code) in enumerate([("echo $PWD", 0), ("exit 3", 3), ("kill -9 $$", 137)]):
            lines: list[str] = []
            spec = spec_of(tmp_path / str(number), script)
            status = runtime.follow(runtime.launch(spec), lines.append)
            assert status.exit_code == code
            assert lines == ([str(spec.program)] if code == 0 else [])
            assert (spec.directory / "wrapper.log").read_text() == ""
        assert process.children() == []  # a wrapper belongs to nobody
    assert not process.is_running()
    assert spawn.current() is None


def test_a_run_outlives_its_spawner_in_a_session_of_its_own(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    with many_runs():
        handle = runtime.launch(spec_of(tmp_path / "long", "sleep 60"))
    record = json.loads((tmp_path / "long" / "run" / "process.json").read_text())
    keeper = psutil.Process(record["wrapper"][0])
    assert runtime.observe(handle).state is RunState.RUNNING
    assert os.getsid(keeper.pid) != os.getsid(0)
    runtime.terminate(handle, 0.2)
    assert runtime.observe(handle).terminated
    assert proctree.Process.of(keeper.pid) is None  # a zombie at most, where nobody collects them


def test_spawner_that_was_killed_is_done_without(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    with many_runs():
        spawner_process().send_signal(signal.SIGKILL)
        time.sleep(0.1)
        status = runtime.follow(runtime.launch(spec_of(tmp_path / "after", "exit 0")), lambda line: None)
    assert status.state is RunState.SUCCEEDED


def test_wrapper_that_cannot_start_says_why(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "broken", "exit 0")
    spec.directory.mkdir()
    (spec.directory / "process.json.new").mkdir()  # where the wrapper writes its record
    with many_runs(), pytest.raises(KaosError, match="could not be started: IsADirectoryError"):
        ProcessRuntime().launch(spec)
    with pytest.raises(KaosError, match="could not be started: IsADirectoryError"):
        ProcessRuntime().launch(spec)
