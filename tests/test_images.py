"""Images are built by real builders: once, from layers that are there, pushed and pulled by digest."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import write_tree
from e2e.harness import free_port
from lab import containers
from lab.containers import BASE

import kaos_templates
from kaos.digest import digest_bytes
from kaos.errors import ContainerEngineError, EnvironmentBuildError
from kaos.lineage import ImageRecord
from kaos.runtime.container.builders import BUILDERS, builder_named
from kaos.runtime.container.engine import Docker, Podman
from kaos.runtime.container.images import Images, ImageSpec
from kaos.runtime.container.registry import Login, Registry

pytestmark = pytest.mark.container

DOCKERFILE = """FROM python:3.11-slim
WORKDIR /opt/program
COPY requirements.txt /opt/program/
RUN echo packages > /packages && date +%N >> /packages
COPY . /opt/program/
"""
TRAIN = "#!/usr/bin/env python3\nprint('first')\n"


class Memory(dict[str, ImageRecord]):
    """What was built before, as a workspace remembers it."""

    def container_image(self, source: str) -> ImageRecord | None:
        return self.get(source)

    def set_container_image(self, source: str, record: ImageRecord) -> None:
        self[source] = record


Bundle = Callable[..., ImageSpec]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Return what makes a source bundle, unlike those of every other test."""
    return bundles(f"# {tmp_path}\n")


def bundles(salt: str) -> Bundle:
    """Return what makes a source bundle, unlike those with another salt."""

    def make(train: str = TRAIN, dockerfile: str = DOCKERFILE, mode: int = 0o755, **files: str) -> ImageSpec:
        content = {"train": train + salt, "requirements.txt": salt, **files}

        def lay_out(context: Path) -> None:
            write_tree(context, dict(content))
            (context / "train").chmod(mode)

        source = digest_bytes(json.dumps([dockerfile, content, mode]).encode())
        return ImageSpec("mnist", source, dockerfile, lay_out)

    return make


@pytest.fixture(params=["podman", "buildah"])
def images(request: pytest.FixtureRequest, podman: containers.Podman, tmp_path: Path) -> Images:
    return Images(Podman(), builder_named(request.param), tmp_path, store="test")


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def quick(podman: containers.Podman, tmp_path: Path) -> Images:
    return Images(Podman(), builder_named("podman"), tmp_path, store="test")


def output_of(image: ImageRecord, *command: str) -> str:
    done = subprocess.run(
        [image.engine, "run", "--rm", "--network=none", image.id, *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_image_is_built_once_and_then_there_at_once(
    images: Images, bundle: Bundle, memory: Memory
) -> None:
    lines: list[str] = []
    record, reused = images.build(bundle(), lines.append, memory)
    assert not reused
    assert any("COPY" in line for line in lines)
    assert output_of(record, record.train) == "first\n"
    assert (record.train, record.workdir, record.user) == ("/opt/program/train", "/opt/program", "")
    (base,) = record.bases
    assert base.name == "python:3.11-slim"
    assert base.digest.startswith("sha256:")
    assert record.name.startswith(f"localhost/kaos/build-train-mnist:{bundle().source[:12]}-")

    lines.clear()
    again, reused = images.build(bundle(), lines.append, memory)
    assert (again, reused) == (record, True)
    assert lines == [f"The image {record.name} is there already."]


def test_a_changed_script_builds_only_the_layers_after_it(
    quick: Images, bundle: Bundle, memory: Memory
) -> None:
    first, _ = quick.build(bundle(), print, memory)
    second, _ = quick.build(bundle(TRAIN.replace("first", "second")), print, memory)
    assert output_of(second, second.train) == "second\n"
    assert output_of(second, "cat", "/packages") == output_of(first, "cat", "/packages")
    anew, reused = quick.build(bundle(), print, memory, no_cache=True)
    assert not reused
    assert output_of(anew, "cat", "/packages") != output_of(first, "cat", "/packages")


def layers(image: ImageRecord) -> list[str]:
    command = [image.engine, "image", "inspect", "--format={{json .RootFS.Layers}}", image.id]
    found: list[str] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def test_the_dockerfiles_of_the_templates_are_ordered_for_this(
    quick: Images, bundle: Bundle, memory: Memory
) -> None:
    folder = Path(kaos_templates.__file__).parent / "bundles"
    (dockerfile,) = {path.read_text() for path in folder.glob("*/model-train/*/Dockerfile")}
    first, _ = quick.build(bundle(dockerfile=dockerfile), print, memory)
    second, _ = quick.build(bundle(TRAIN.replace("first", "second"), dockerfile=dockerfile), print, memory)
    assert layers(first)[:-1] == layers(second)[:-1]
    assert layers(first)[-1] != layers(second)[-1]


def test_another_base_image_of_the_same_name_builds_anew(
    quick: Images, bundle: Bundle, memory: Memory
) -> None:
    spec = bundle(dockerfile=DOCKERFILE.replace("python:3.11-slim", "localhost/lab-base:1"))
    quick.engine.tag(BASE, "localhost/lab-base:1")
    try:
        record, _ = quick.build(spec, print, memory)
        quick.engine.tag(record.id, "localhost/lab-base:1")
        lines: list[str] = []
        other, reused = quick.build(spec, lines.append, memory)
        assert not reused
        assert "The base image localhost/lab-base:1 is another one than before." in lines
        assert other.bases != record.bases
    finally:
        quick.engine.untag("localhost/lab-base:1")


def test_a_base_image_that_cannot_be_had_is_named_with_what_to_do(
    quick: Images, bundle: Bundle, memory: Memory
) -> None:
    spec = bundle(dockerfile="FROM 127.0.0.1:1/nobody/has-this:1\nCOPY . /opt/program/\n")
    with pytest.raises(EnvironmentBuildError) as caught:
        quick.build(spec, print, memory)
    assert "The base image 127.0.0.1:1/nobody/has-this:1 is not on this machine" in caught.value.message
    assert "could not be pulled: " in caught.value.message
    assert "podman pull 127.0.0.1:1/nobody/has-this:1" in caught.value.next_step
    assert BASE in caught.value.next_step


def test_a_build_that_fails_says_why(images: Images, bundle: Bundle, memory: Memory) -> None:
    lines: list[str] = []
    with pytest.raises(EnvironmentBuildError, match="status 3"):
        images.build(bundle(dockerfile=f"{DOCKERFILE}RUN echo ouch; exit 3\n"), lines.append, memory)
    assert "ouch" in lines


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mode": 0o644}, "./train is not executable"),
        ({"train": "print(1)\n"}, "./train does not say what runs it"),
        ({"train": "#!/bin/sh\r\ntrue\r\n"}, "Unix line ends"),
        ({"dockerfile": "FROM python:3.11-slim\nCOPY . /elsewhere/\n"}, "The image has no `train`"),
    ],
)
def test_an_image_that_cannot_train_is_refused_when_it_is_built(
    quick: Images, bundle: Bundle, fields: dict[str, object], says: str, memory: Memory
) -> None:
    with pytest.raises(EnvironmentBuildError, match=says):
        quick.build(bundle(**fields), print, memory)


def test_the_script_is_found_where_sagemaker_has_it(quick: Images, bundle: Bundle, memory: Memory) -> None:
    dockerfile = 'FROM python:3.11-slim\nENV PATH="/opt/ml/code:$PATH"\nCOPY . /opt/ml/code/\n'
    record, _ = quick.build(bundle(dockerfile=dockerfile), print, memory)
    assert record.train == "/opt/ml/code/train"
    record, _ = quick.build(
        bundle(dockerfile=f'{dockerfile}ENTRYPOINT ["python3", "/opt/ml/code/train"]\nUSER 1000\n'),
        print,
        memory,
    )
    assert (record.train, record.user) == ("", "1000")


def test_a_build_can_be_ended(quick: Images, bundle: Bundle, memory: Memory) -> None:
    begun = threading.Event()
    failures: list[BaseException] = []
    marker = f"{os.getpid()}.5"

    def build() -> None:
        try:
            quick.build(
                bundle(dockerfile=f"{DOCKERFILE}RUN echo begun; sleep {marker}\n"),
                lambda line: begun.set() if line == "begun" else None,
                memory,
            )
        except ContainerEngineError as error:
            failures.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    assert begun.wait(60)
    start = time.monotonic()
    quick.builder.cancel()
    thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - start < 5
    assert [str(error) for error in failures] == ["The build was ended."]
    assert subprocess.run(["pgrep", "-f", f"sleep {marker}"], capture_output=True).returncode == 1


def test_two_builds_of_the_same_source_make_one_image(quick: Images, bundle: Bundle, memory: Memory) -> None:
    built: list[tuple[ImageRecord, bool]] = []

    def build() -> None:
        built.append(quick.build(bundle(), print, memory))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [reused for _, reused in built] == [False, True]
    assert built[0][0] == built[1][0]


# A registry

PASSWORDS = "lab:$2y$04$v5AaS.TwZ0hPimTMRmu9YefXunv2pz4To3OtLs26f7HCvogfZctAG\n"
"""As `htpasswd -nbB lab secret` writes it."""


@pytest.fixture(scope="module")
def registry(podman: containers.Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a registry that wants a login; yield a repository of it."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "htpasswd").write_text(PASSWORDS)
    with containers.registry(folder, free_port()) as host:
        yield f"{host}/team/kaos"


def _login(repository: str, password: str = "secret") -> Registry:
    return Registry(repository, lambda: Login(repository.partition("/")[0], "lab", password))


def test_an_image_is_pushed_and_pulled_by_its_digest(
    images: Images, bundle: Bundle, registry: str, tmp_path: Path, memory: Memory
) -> None:
    pushing = Images(images.engine, images.builder, tmp_path, registry=_login(registry))
    record, _ = pushing.build(bundle(), print, memory)
    assert record.pinned.startswith(f"{registry}@sha256:")
    images.engine.untag(record.name)
    assert images.engine.image(record.id) is None
    # Another machine: without the image, and without having built it.
    lines: list[str] = []
    found, reused = pushing.build(bundle(), lines.append, memory)
    assert (found, reused) == (record, True)
    assert f"Pulling {record.pinned}" in lines
    assert output_of(record, record.train) == "first\n"
    images.engine.untag(record.id)


def test_an_image_that_is_nowhere_says_so(quick: Images, bundle: Bundle, memory: Memory) -> None:
    record, _ = quick.build(bundle(), print, memory)
    quick.engine.untag(record.name)
    with pytest.raises(ContainerEngineError, match="pushed to no registry"):
        quick.provide(record, print)


def test_a_wrong_password_pushes_nothing_and_is_not_shown(
    quick: Images, bundle: Bundle, registry: str, tmp_path: Path, memory: Memory
) -> None:
    pushing = Images(quick.engine, quick.builder, tmp_path, registry=_login(registry, "wrong-password"))
    lines: list[str] = []
    with pytest.raises(ContainerEngineError) as caught:
        pushing.build(bundle(), lines.append, memory)
    assert "podman push" in caught.value.message
    assert "wrong-password" not in str(caught.value) + "".join(lines)


# docker


def test_docker_builds_pushes_and_pulls(
    docker: Docker, bundle: Bundle, registry: str, tmp_path: Path, memory: Memory
) -> None:
    images = Images(docker, builder_named("docker"), tmp_path, "host", _login(registry), store="test")
    lines: list[str] = []
    record, reused = images.build(bundle(), lines.append, memory)
    assert not reused
    assert record.pinned.startswith(f"{registry}@sha256:")
    assert any("COPY" in line for line in lines)
    assert output_of(record, record.train) == "first\n"
    second, _ = images.build(bundle(TRAIN.replace("first", "second")), print, memory)
    assert output_of(second, "cat", "/packages") == output_of(record, "cat", "/packages")
    subprocess.run(["docker", "rmi", "--force", record.id], check=True, capture_output=True)
    assert images.build(bundle(), print, memory) == (record, True)
    assert output_of(record, record.train) == "first\n"
    with pytest.raises(EnvironmentBuildError, match=r"could not be pulled: "):
        images.build(bundle(dockerfile="FROM 127.0.0.1:1/none:1\n"), print, memory)


def test_builders_are_known_by_name() -> None:
    assert [builder_named(name).name for name in BUILDERS] == list(BUILDERS)
    with pytest.raises(ContainerEngineError, match="podman, buildah or docker"):
        builder_named("kaniko")
