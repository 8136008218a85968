"""Images and the start of a container, beside `podman build` and `podman run` themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.home import server, source_bundle
from bench.measure import Figure, Sizes, alternate, median, say, spread
from kaos.digest import digest_bytes
from kaos.lineage import ImageRecord
from kaos.runtime.base import RunSpec
from kaos.runtime.container.builders import builder_named
from kaos.runtime.container.engine import Podman
from kaos.runtime.container.images import Images, ImageSpec
from kaos.runtime.container.runtime import ContainerRuntime

_TESTS = Path(__file__).parent.parent / "tests"
_DOCKERFILE = """FROM python:3.11-slim
WORKDIR /opt/program
COPY requirements.txt /opt/program/
RUN pip install --no-cache-dir -r /opt/program/requirements.txt
COPY . /opt/program/
"""
_TRAIN = "#!/usr/bin/env python3\nimport time\nprint(time.time(), flush=True)\n"
_WORKSPACE = "container"


class _Known(dict[str, ImageRecord]):
    def container_image(self, source: str) -> ImageRecord | None:
        return self.get(source)

    def set_container_image(self, source: str, record: ImageRecord) -> None:
        self[source] = record


def measure(scratch: Path, sizes: Sizes) -> list[Figure]:
    """Return the figures of the container runtime."""
    sys.path.append(str(_TESTS))
    from lab import containers, setup

    try:
        lab = containers.podman()
    except setup.LabError as error:
        return [Figure("containers", "", "", why=f"podman cannot be set up: {error}", reached=False)]
    os.environ.update(lab.variables)
    return [*_builds(scratch, sizes.runs), _start(scratch, sizes.runs * 2), _data_only(scratch, sizes.runs)]


def _builds(scratch: Path, runs: int) -> list[Figure]:
    say("container: builds")
    bench = _Builds(scratch / "images")
    found = []
    for what, ours, theirs in (
        ("an image built cold, with one package", bench.cold, bench.podman_cold),
        ("an image that is there", bench.warm, bench.podman_warm),
        ("an image after a change of `train` alone", bench.changed, bench.podman_changed),
    ):
        seconds = alternate({"kaos": ours, "podman build": theirs}, runs)
        mine, peer = median(seconds["kaos"]), median(seconds["podman build"])
        figure, beside = f"{mine:.2f} s", f"`podman build`: {peer:.2f} s"
        found.append(Figure(what, "", figure, beside, f"{mine / peer:.2f}x", None, spread(seconds["kaos"])))
    return found


class _Builds:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._images = Images(Podman(), builder_named("podman"), directory / "kaos")
        self._images.directory.mkdir(parents=True)
        self._known = _Known()
        self._count = 0

    def _context(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "requirements.txt").write_text("six==1.16.0\n")
        (directory / "train").write_text(f"{_TRAIN}# {self._count} {os.getpid()}\n")
        (directory / "train").chmod(0o755)

    def _ours(self, *, no_cache: bool = False) -> float:
        source = digest_bytes(f"{self._count} {os.getpid()}".encode())
        start = time.perf_counter()
        spec = ImageSpec("bench", source, _DOCKERFILE, self._context)
        self._images.build(spec, _quiet, self._known, no_cache=no_cache)
        return time.perf_counter() - start

    def _theirs(self, *options: str) -> float:
        context = self._directory / "podman"
        self._context(context)
        (self._directory / "Dockerfile").write_text(_DOCKERFILE)
        file = f"--file={self._directory / 'Dockerfile'}"
        start = time.perf_counter()
        command = ["podman", "build", "--quiet", *options, file, "--tag=localhost/bench:podman", str(context)]
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    def cold(self, number: int) -> float:
        """Build every layer."""
        return self._ours(no_cache=True)

    def podman_cold(self, number: int) -> float:
        """Do the same by hand."""
        return self._theirs("--no-cache")

    def warm(self, number: int) -> float:
        """Build what is there."""
        return self._ours()

    def podman_warm(self, number: int) -> float:
        """Do the same by hand."""
        return self._theirs()

    def changed(self, number: int) -> float:
        """Build after a change of the script."""
        self._count += 1
        return self._ours()

    def podman_changed(self, number: int) -> float:
        """Do the same by hand."""
        self._count += 1
        return self._theirs()


def _start(scratch: Path, runs: int) -> Figure:
    say("container: start")
    program = scratch / "start" / "program"
    program.mkdir(parents=True)
    (program / "train").write_text(_TRAIN)
    (program / "train").chmod(0o755)
    params = scratch / "start" / "params.json"
    params.write_text("{}")
    runtime, image = ContainerRuntime(Podman()), Podman().image("docker.io/library/python:3.11-slim")
    assert image is not None
    record = ImageRecord(engine="podman", name="base", id=image.id, train="/opt/program/train")

    def ours(number: int) -> float:
        lines: list[str] = []
        directory = scratch / "start" / str(number)
        spec = RunSpec(
            run_id="bench",
            job_id="0" * 32,
            program=program,
            params=params,
            output=directory / "output",
            directory=directory,
            environment=record,
        )
        start = time.time()
        runtime.follow(runtime.launch(spec), lines.append)
        return float(lines[0]) - start

    def theirs(number: int) -> float:
        command = ["podman", "run", "--rm", "--init", f"--volume={program}:/opt/program", image.id]
        start = time.time()
        done = subprocess.run([*command, "/opt/program/train"], check=True, capture_output=True, text=True)
        return float(done.stdout.split()[0]) - start

    seconds = alternate({"kaos": ours, "podman run": theirs}, runs)
    mine, peer = median(seconds["kaos"]), median(seconds["podman run"])
    return Figure(
        "from the launch of a container to the first line of `train`",
        "0.5 s beyond `podman run`",
        f"{mine - peer:+.2f} s ({mine:.2f} s)",
        f"`podman run`: {peer:.2f} s",
        f"{mine / peer:.2f}x",
        mine - peer <= 0.5,
        spread(seconds["kaos"]),
    )


def _data_only(scratch: Path, runs: int) -> Figure:
    say("container: a deploy of data alone")
    with server(scratch) as home:
        home.kaos("workspace", "create", "-n", _WORKSPACE, "--runtime", "container")
        source = source_bundle(home.scratch / "source", _TRAIN.partition("\n")[2])
        data = home.scratch / "data"
        data.mkdir()
        seconds: list[float] = []
        for number in range(runs + 1):
            (data / "data.csv").write_text(f"{number}\n")
            given: list[str | Path] = ["-s", source] if number == 0 else []
            ended = home.kaos("train", "deploy", *given, "-d", data, "-o", "json")
            job = str(json.loads(ended.stdout)["job_id"])
            home.wait(job)
            stages = json.loads(home.kaos("train", "info", "-j", job, "-o", "json").stdout)["stages"]
            seconds.append(next(stage["seconds"] for stage in stages if stage["task_id"] == "build"))
    return Figure(
        "the task `build` of a deploy of data alone",
        "",
        f"{median(seconds[1:]):.2f} s",
        f"the first deploy: {seconds[0]:.2f} s",
        f"{seconds[0] / median(seconds[1:]):.1f}x",
        None,
        spread(seconds[1:]),
    )


def _quiet(line: str) -> None:
    pass
