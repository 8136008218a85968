"""Who builds, pulls and pushes images: podman, buildah or docker, behind one small interface."""

from __future__ import annotations

import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from kaos.errors import ContainerEngineError, EnvironmentBuildError
from kaos.runtime.container.commands import Stream, call
from kaos.runtime.container.registry import Login, is_loopback
from kaos.value import Value

Log = Callable[[str], None]

BUILDERS = ("podman", "buildah", "docker")

_PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64})")


class BuildOrder(Value):
    """Say what to build.

    :param dockerfile: the file
    :param context: directory that it copies from
    :param name: what to call the image
    :param no_cache: build every layer anew
    :param network: that the build uses, empty for the builder's default
    :param labels: that the image gets, and none of its layers
    """

    dockerfile: Path
    context: Path
    name: str
    no_cache: bool = False
    network: str = ""
    labels: Mapping[str, str] = Field(default_factory=dict)


class ImageBuilder(ABC):
    """Build images into the storage of an engine, and move them from and to a registry.

    Every method passes the tool's lines on as they come, and can be ended from elsewhere by :meth:`cancel`.
    """

    name: ClassVar[str]

    @abstractmethod
    def build(self, order: BuildOrder, log: Log) -> None:
        """Build an image, from layers that are there already where they are the same.

        :raises EnvironmentBuildError: with the builder's reason
        """

    @abstractmethod
    def pull(self, reference: str, log: Log, login: Login | None = None) -> None:
        """Bring an image to this machine.

        :raises ContainerEngineError: with the tool's reason
        """

    @abstractmethod
    def push(self, image: str, target: str, log: Log, login: Login | None = None) -> str:
        """Send an image to a registry; return the ``sha256:...`` of its manifest there.

        :param target: registry, repository and tag
        :raises ContainerEngineError: with the tool's reason
        """

    @abstractmethod
    def cancel(self) -> None:
        """End what is being done; the method that does it raises ContainerEngineError."""


class _Tool(ImageBuilder):
    def __init__(self) -> None:
        self._stream = Stream()

    def cancel(self) -> None:
        self._stream.cancel()

    def build(self, order: BuildOrder, log: Log) -> None:
        command = [self.name, "build", *self._build_options()]
        command += [f"--file={order.dockerfile}", f"--tag={order.name}"]
        command += ["--no-cache"] if order.no_cache else []
        command += [f"--network={order.network}"] if order.network else []
        command += [f"--label={name}={value}" for name, value in order.labels.items()]
        code, said = self._stream.run([*command, str(order.context)], log, more=self._build_environment())
        if code:
            raise EnvironmentBuildError(
                f"The image could not be built: {_why(said)}",
                "Correct the Dockerfile or what it installs, and deploy again.",
            )

    def _move(self, verb: str, arguments: list[str], log: Log, more: Mapping[str, str]) -> list[str]:
        code, said = self._stream.run([self.name, verb, *arguments], log, more=more)
        if code:
            raise ContainerEngineError(f"`{self.name} {verb}` failed: {_why(said)}")
        return said

    def _build_options(self) -> list[str]:
        return []

    def _build_environment(self) -> dict[str, str]:
        return {}


class PodmanBuilder(_Tool):
    """``podman build``."""

    name = "podman"

    def pull(self, reference: str, log: Log, login: Login | None = None) -> None:
        """Bring an image to this machine."""
        with Login.written(login) as folder:
            self._move("pull", [*_options(reference, folder), reference], log, {})

    def push(self, image: str, target: str, log: Log, login: Login | None = None) -> str:
        """Send an image to a registry; return the ``sha256:...`` of its manifest there."""
        with Login.written(login) as folder, tempfile.TemporaryDirectory(prefix="kaos-") as scratch:
            digest = Path(scratch) / "digest"
            arguments = [*_options(target, folder), f"--digestfile={digest}", image, f"docker://{target}"]
            self._move("push", arguments, log, {})
            return digest.read_text().strip()

    def _build_options(self) -> list[str]:
        # Images of the OCI's format cannot hold all that a Dockerfile may say: SHELL, HEALTHCHECK.
        return ["--layers", "--force-rm", "--format=docker"]


class BuildahBuilder(PodmanBuilder):
    """``buildah build``, into the storage that podman uses too."""

    name = "buildah"


class DockerBuilder(_Tool):
    """``docker build``, by BuildKit where there is one."""

    name = "docker"

    def pull(self, reference: str, log: Log, login: Login | None = None) -> None:
        """Bring an image to this machine."""
        with Login.written(login) as folder:
            self._move("pull", [reference], log, _docker_config(folder))

    def push(self, image: str, target: str, log: Log, login: Login | None = None) -> str:
        """Send an image to a registry; return the ``sha256:...`` of its manifest there."""
        with Login.written(login) as folder:
            tagged = call(["docker", "tag", image, target])
            if tagged.returncode:
                raise ContainerEngineError(f"There is no image {image} to push.")
            said = self._move("push", [target], log, _docker_config(folder))
        for line in reversed(said):
            if found := _PUSHED.search(line):
                return found[1]
        raise ContainerEngineError(f"docker pushed {target} and named no digest.")

    def _build_environment(self) -> dict[str, str]:
        version = (
            call(["docker", "version", "--format={{.Client.Version}}"]).stdout.decode().partition(".")[0]
        )
        # BuildKit is in older clients themselves, and a program of its own beside newer ones.
        there = version.isdigit() and int(version) < 23
        there = there or call(["docker", "buildx", "version"]).returncode == 0
        return {"DOCKER_BUILDKIT": "1" if there else "0", "BUILDKIT_PROGRESS": "plain"}


def builder_named(name: str) -> ImageBuilder:
    """Return a builder by its name.

    :raises ContainerEngineError: it is none that we know
    """
    for builder in (PodmanBuilder, BuildahBuilder, DockerBuilder):
        if builder.name == name:
            return builder()
    raise ContainerEngineError(
        f"{name!r} builds no images.",
        f"[kaos] image_builder is {', '.join(BUILDERS[:-1])} or {BUILDERS[-1]}.",
    )


def _options(reference: str, folder: Path | None) -> list[str]:
    # docker takes a registry on loopback without TLS by itself.
    plain = ["--tls-verify=false"] if is_loopback(reference) else []
    return plain if folder is None else [*plain, f"--authfile={folder / 'config.json'}"]


def _docker_config(folder: Path | None) -> dict[str, str]:
    return {} if folder is None else {"DOCKER_CONFIG": str(folder)}


def _why(said: list[str]) -> str:
    lines = [line.strip() for line in said if line.strip()]
    errors = [line for line in lines if re.match(r"error\b", line, re.IGNORECASE)]
    return re.sub(r"^error:?\s*", "", (errors or lines or ["no reason given"])[-1], flags=re.IGNORECASE)
