"""Processes are killed in the middle of a training, which is not started twice for it."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from e2e.harness import TRAIN, Kaos, Server, ended, task, until, write_data, write_source

log = logging.getLogger(__name__)

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

    def check(self, killed: float) -> None:
        """Wait for the end: a success, out of the one start, with all the lines and the model."""
        until(lambda: not psutil.pid_exists(self.starts[0]), 60, "the end of the script")
        script_ended = time.monotonic()
        job = until(lambda: ended(self.kaos.info(self.job_id)), 150, "the end of the job", every=0.5)
        now = time.monotonic()
        log.info("ended %.1f s after the kill, %.1f s after its script", now - killed, now - script_ended)
        assert job["state"] == "JOB_SUCCESS", job["reason"]
        assert len(self.starts) == 1
        assert self.kaos.log(self.job_id) == [f"second {second}" for second in range(20)]
        written = Path(self.kaos.run("train", "get", "-j", self.job_id, "-m").stdout.strip())
        assert (self.kaos.directory / written / "model" / "pid").read_text() == str(self.starts[0])


@pytest.fixture(scope="module")
def orphan(server: Server, token: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, float]:
    """Return a training whose executor's worker was killed, and when.

    Airflow takes a minute to notice, in which the other tests run.
    """
    root = tmp_path_factory.mktemp("orphan")
    kaos = Kaos(root / ".kaos", root, {"HOME": str(root)})
    kaos.run("init", "-e", server.url, "-t", "-", stdin=f"{token}\n")
    kaos.run("workspace", "create", "-n", "orphan")
    training = Training(kaos, root)
    worker = task(server).parent()
    assert worker is not None
    worker.kill()
    return training, time.monotonic()


def test_a_training_survives_the_process_of_its_task(
    server: Server, orphan: tuple[Training, float], kaos: Kaos, tmp_path: Path
):
    training = Training(kaos, tmp_path)
    task(server).kill()
    training.check(time.monotonic())


def test_a_script_that_failed_while_nobody_looked_is_not_started_again(
    server: Server, orphan: tuple[Training, float], kaos: Kaos, tmp_path: Path
):
    starts, end = tmp_path / "starts", tmp_path / "end"
    script = f"""
import os, time
with open({str(starts)!r}, "a") as file:
    print(os.getpid(), file=file)
print("begun", flush=True)
while not os.path.exists({str(end)!r}):
    time.sleep(0.01)
raise SystemExit(3)
"""
    job_id = kaos.deploy("-s", write_source(tmp_path / "source", script), "-d", write_data(tmp_path / "data"))
    until(lambda: kaos.log(job_id), 60, "the script's start")
    task(server).kill()
    end.touch()
    job = kaos.ended(job_id)
    assert job["state"] == "JOB_FAILURE"
    assert "exit code 3" in job["reason"]
    assert kaos.log(job_id) == ["begun"]
    assert len(starts.read_text().split()) == 1


def test_a_training_survives_its_executors_worker(orphan: tuple[Training, float]):
    training, killed = orphan
    training.check(killed)


def test_a_training_survives_its_scheduler(server: Server, kaos: Kaos, tmp_path: Path):
    training = Training(kaos, tmp_path)
    scheduler = server.pid("scheduler")
    os.kill(scheduler, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: server.pid("scheduler") not in (0, scheduler), 30, "a new scheduler")
    training.check(killed)
