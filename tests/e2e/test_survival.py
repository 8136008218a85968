"""Processes are killed in the middle of a training, which is not started twice for it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from e2e.harness import TRAIN, Kaos, Server, ended, until, write_data, write_source

# Every start leaves a line in a file outside of the job, and the pid in the job's own output.
SLOW = f"""{TRAIN}
import sys, time
with open({{starts!r}}, "a") as file:
    print(os.getpid(), file=file)
for second in range(20):
    print("second", second, flush=True)
    time.sleep(1)
(output / "model" / "pid").write_text(str(os.getpid()))
"""


class Training:
    """A job that takes 20 seconds, well under way."""

    def __init__(self, kaos: Kaos, directory: Path) -> None:
        self.kaos = kaos
        self._starts = directory / "starts"
        source = write_source(directory / "source", SLOW.format(starts=str(self._starts)))
        self.job_id = kaos.deploy("-s", source, "-d", write_data(directory / "data"))
        until(lambda: "second 1" in kaos.log(self.job_id), 60, "the script's first lines")

    @property
    def starts(self) -> list[int]:
        """Return the pids of all starts of the script."""
        return [int(line) for line in self._starts.read_text().split()]

    def check(self, killed: float, capsys: pytest.CaptureFixture[str], what: str) -> None:
        """Wait for the end: a success, out of the one start, with all the lines and the model."""
        process = psutil.Process(self.starts[0])
        until(lambda: not process.is_running(), 60, "the end of the script")
        over = time.monotonic()
        job = until(lambda: ended(self.kaos.info(self.job_id)), 120, "the end of the job", every=0.5)
        with capsys.disabled():
            print(
                f"\n{what}: the job ended {time.monotonic() - killed:.1f} s after the kill,"
                f" {time.monotonic() - over:.1f} s after its script"
            )
        assert job["state"] == "JOB_SUCCESS", job["reason"]
        assert len(self.starts) == 1
        assert self.kaos.log(self.job_id) == [f"second {second}" for second in range(20)]
        written = Path(self.kaos.run("train", "get", "-j", self.job_id, "-m").stdout.strip())
        assert (written / "model" / "pid").read_text() == str(self.starts[0])


def tasks(scheduler: int) -> list[psutil.Process]:
    """Return the processes of running tasks: their supervisors are what the executor's workers forked."""
    workers = psutil.Process(scheduler).children()
    return [child for worker in workers for child in worker.children()]


def test_a_training_survives_its_scheduler(
    server: Server, kaos: Kaos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    training = Training(kaos, tmp_path)
    scheduler = server.pid("scheduler")
    os.kill(scheduler, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: server.pid("scheduler") not in (0, scheduler), 30, "a new scheduler")
    training.check(killed, capsys, "scheduler")


def test_a_training_survives_the_process_of_its_task(
    server: Server, kaos: Kaos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    training = Training(kaos, tmp_path)
    running = tasks(server.pid("scheduler"))
    assert len(running) == 1
    running[0].kill()
    training.check(time.monotonic(), capsys, "task")


def test_a_training_survives_its_executors_worker(
    server: Server, kaos: Kaos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    training = Training(kaos, tmp_path)
    running = tasks(server.pid("scheduler"))
    assert len(running) == 1
    worker = running[0].parent()
    assert worker is not None
    worker.kill()
    training.check(time.monotonic(), capsys, "worker")
