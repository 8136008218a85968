"""podman and docker behind one interface: containers and images by name, for runs and for services."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from kaos.errors import ContainerEngineError
from kaos.resources import Resources
from kaos.runtime.container.commands import call, engine_environment, reason
from kaos.value import Value

ENGINES = ("podman", "docker")
NO_NETWORK = "none"

OUT_OF_MEMORY = "oom"
"""File that podman makes where a container was started, when the container's memory runs out."""

# What root in a container may do beyond an ordinary user: give files away, become another user.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")
_CATATONIT = (
    "/usr/libexec/podman/catatonit",
    "/usr/lib/podman/catatonit",
    "/usr/local/libexec/podman/catatonit",
)
_MISSING = ("no such", "image not known", "does not exist")
_USED = ("in use by", "being used by", "is using", "dependent child images")
_NAMES = ("more than one tag", "multiple repositories")


class Mount(Value):
    """A directory or file of the machine that a container sees.

    :param source: on the machine
    :param target: in the container
    """

    source: Path
    target: str
    writable: bool = False


class Port(Value):
    """A port of a container that the machine's loopback interface reaches.

    :param host: port of 127.0.0.1; 0 for any free one
    """

    container: int
    host: int = 0


class Container(Value):
    """Describe a container to make.

    :param name: of the container; there is never a second one of that name
    :param image: name or id of an image that is on the machine
    :param command: arguments for the image's entry point, or what to run where it has none; the image's own
        if empty
    :param entrypoint: in the place of the image's entry point; None keeps it, an empty text drops it
    :param variables: besides those of the image
    :param workdir: in the place of the image's
    :param user: in the place of the image's
    :param network: ``none``, the name of a network, or empty for the engine's default
    :param ports: published on loopback
    :param restart: ``no``, ``always``, ``unless-stopped`` or ``on-failure:N``; ``no`` for a run
    :param user_namespace: podman's ``--userns``
    :param log: file that podman writes the log to; docker keeps its own
    :param log_bytes: of docker's own, at most; None for all
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    entrypoint: str | None = None
    variables: Mapping[str, str] = Field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    workdir: str | None = None
    user: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    resources: Resources = Resources()
    network: str = ""
    ports: tuple[Port, ...] = ()
    restart: str = "no"
    user_namespace: str = ""
    log: Path | None = None
    log_bytes: int | None = None
    pids: int = 4096
    shared_memory: str = "1g"


class ContainerState(Value):
    """Say how a container is.

    :param status: the engine's word, such as ``created``, ``running``, ``exited``
    :param pid: of its first process on this machine, 0 if there is none
    :param ports: port of 127.0.0.1 by port of the container, while it runs
    """

    id: str
    name: str
    status: str
    pid: int
    exit_code: int
    out_of_memory: bool
    error: str
    labels: dict[str, str]
    ports: dict[int, int]
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def running(self) -> bool:
        """Whether it may still print something."""
        return self.status in ("running", "paused", "restarting", "stopping", "removing")

    @property
    def ended(self) -> bool:
        """Whether it ran, and does not any more."""
        return self.status in ("exited", "stopped", "dead")


class ImageState(Value):
    """Say what an image on this machine is.

    :param id: SHA-256 of its configuration
    :param digest: ``sha256:...`` of its manifest, of the configuration where the engine knows no manifest
    :param names: with their tags
    :param size: in bytes, with all layers
    :param layers: the digests of their content, those of the base image first
    :param last_step: of its build, empty where the engine does not keep it
    """

    id: str
    digest: str
    names: tuple[str, ...]
    size: int
    layers: tuple[str, ...]
    last_step: str
    variables: dict[str, str]
    user: str
    workdir: str
    entrypoint: tuple[str, ...]


class ContainerEngine:
    """Make, look at and remove containers. The commands ``podman`` and ``docker`` do the work.

    It has no state: what one process starts any other finds by name or label.
    """

    name: ClassVar[str]

    def run(self, container: Container) -> str:
        """Make and start a container; return its id.

        :raises ContainerEngineError: it cannot be made or started, with the engine's reason; a container that
            was made and cannot start stays, for its state to be looked at
        """
        made = self.create(container)
        self.start(container.name)
        return made

    def create(self, container: Container) -> str:
        """Make a container and return its id."""
        return self._do("create", *self.options(container), container.image, *container.command).strip()

    def start(self, name: str, directory: Path | None = None) -> None:
        """Start a container that was made.

        :param directory: where a file :data:`OUT_OF_MEMORY` may appear, if the engine is podman
        """
        self._do("start", name, cwd=directory)

    def inspect(self, name: str) -> ContainerState | None:
        """Return how a container is, None if there is none of that name or id."""
        found = self._inspect("container", name)
        return None if found is None else _container(found)

    def find(self, labels: Mapping[str, str]) -> list[str]:
        """Return the names of all containers, running or not, that carry all these labels."""
        filters = [f"--filter=label={name}={value}" for name, value in labels.items()]
        return self._do("ps", "--all", *filters, "--format={{.Names}}").split()

    def logs(self, name: str) -> bytes:
        """Return all that a container printed, both of its streams in one."""
        with tempfile.TemporaryFile() as file:
            code = self.write_log(name, file.fileno())
            file.seek(0)
            content = file.read()
        if code:
            raise self._failure("logs", content)
        return content

    def write_log(self, name: str, descriptor: int) -> int:
        """Write all that a container printed to a file; return the exit code."""
        return self._log([self.name, "logs", name], descriptor)

    def follow_log(self, name: str, descriptor: int, hold: int) -> None:
        """Leave a process behind, nobody's child, that writes to a file what a container prints.

        :param hold: a descriptor that it keeps open as long as it runs
        """
        self._log(["sh", "-c", '"$@" &', "sh", self.name, "logs", "--follow", name], descriptor, hold)

    def _log(self, command: list[str], descriptor: int, *hold: int) -> int:
        done = subprocess.run(
            command,
            env=engine_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            pass_fds=hold,
            start_new_session=True,
            check=False,
        )
        return done.returncode

    def signal(self, name: str, signal_name: str) -> None:
        """Send a signal (``TERM``, ``KILL``) to a container's first process, if it still runs."""
        call([self.name, "kill", f"--signal={signal_name}", name])

    def stop(self, name: str, grace_seconds: int = 10) -> None:
        """Ask a container to end, make it end after the grace; it is not started again."""
        call([self.name, "stop", f"--time={grace_seconds}", name], seconds=grace_seconds + 60)

    def remove(self, name: str) -> None:
        """Kill and remove a container, running or not; nothing happens if there is none."""
        done = call([self.name, "rm", "--volumes", name])
        if done.returncode and not _is_missing(done.stderr):
            # podman would wait for 10 s for one that runs, and older versions cannot be told not to.
            self.signal(name, "KILL")
            done = call([self.name, "rm", "--force", "--volumes", name])
        if done.returncode and not _is_missing(done.stderr):
            raise self._failure("rm", done.stderr)

    def copy_out(self, name: str, path: str) -> bytes | None:
        """Return a file of a container, running or not, as a tar archive; None if there is no such file."""
        done = call([self.name, "cp", f"{name}:{path}", "-"])
        return None if done.returncode else done.stdout

    def image(self, reference: str) -> ImageState | None:
        """Return what an image is, None if it is not on this machine."""
        found = self._inspect("image", reference)
        return None if found is None else _image(found)

    def images(self) -> list[str]:
        """Return the names of the images on this machine."""
        listed = self._do("images", "--format={{.Repository}}:{{.Tag}}").split()
        return sorted({name for name in listed if "<none>" not in name})

    def image_states(self, labels: Mapping[str, str], *, layers: bool = False) -> list[ImageState]:
        """Return all images on this machine that carry all these labels, with names or without.

        :param layers: and images without a name that others were built on
        """
        filters = [f"--filter=label={name}={value}" for name, value in labels.items()]
        options = [*filters, "--all"] if layers else filters
        ids = list(dict.fromkeys(self._do("images", "--quiet", "--no-trunc", *options).split()))
        if not ids:
            return []
        done = call([self.name, "image", "inspect", *ids])
        # Of one that was removed meanwhile it is said that it is missing; the others are told all the same.
        if done.returncode and not _is_missing(done.stderr):
            raise self._failure("image inspect", done.stderr)
        return [_image(found) for found in json.loads(done.stdout or "[]")]

    def remove_image(self, image: ImageState) -> bool:
        """Remove an image with all its names; return False if a container or another image uses it."""
        # By its id it goes only if it has no second name. Of several the last takes it away, or its digest
        # in a registry is left as a name.
        for references in ((image.id,), image.names, (image.id,)):
            done = call([self.name, "rmi", *references])
            if done.returncode == 0 or _says(done.stderr, _MISSING):
                if references == (image.id,):
                    return True
            elif _says(done.stderr, _USED):
                return False
            elif not _says(done.stderr, _NAMES):
                raise self._failure("rmi", done.stderr)
        return False

    def tag(self, image: str, name: str) -> None:
        """Give an image another name."""
        self._do("tag", image, name)

    def untag(self, name: str) -> None:
        """Take a name away; the image goes with its last one."""
        self._do("rmi", name)

    def options(self, container: Container) -> Sequence[str]:
        """Return the options of ``create`` that make a container as described, and safe."""
        return tuple(self._options(container))

    def _options(self, container: Container) -> Iterator[str]:
        yield from ("--pull=never", f"--name={container.name}")
        if self._has_init():
            yield "--init"
        yield from ("--security-opt=no-new-privileges", "--cap-drop=ALL")
        yield from (f"--cap-add={name}" for name in _CAPABILITIES)
        yield from (f"--pids-limit={container.pids}", f"--shm-size={container.shared_memory}")
        yield from self._limits(container.resources)
        yield from self._own(container)
        if container.network:
            yield f"--network={container.network}"
        for port in container.ports:
            yield f"--publish=127.0.0.1:{port.host or ''}:{port.container}"
        if container.restart != "no":
            yield f"--restart={container.restart}"
        for mount in container.mounts:
            if ":" in str(mount.source):
                raise ContainerEngineError(
                    f"{mount.source} cannot be shown to a container: it has a colon.", "Move [kaos] work_dir."
                )
            yield f"--volume={mount.source}:{mount.target}:{'rw' if mount.writable else 'ro'}"
        yield from (f"--env={name}={value}" for name, value in container.variables.items())
        yield from (f"--label={name}={value}" for name, value in container.labels.items())
        if container.workdir is not None:
            yield f"--workdir={container.workdir}"
        if container.user is not None:
            yield f"--user={container.user}"
        if container.entrypoint is not None:
            yield f"--entrypoint={container.entrypoint}"

    def _limits(self, resources: Resources) -> Iterator[str]:
        if resources.memory is not None and self.limits:
            # As much with swap as without: no swap.
            yield from (f"--memory={resources.memory}b", f"--memory-swap={resources.memory}b")
        if resources.cpu is not None and self.limits:
            yield f"--cpus={resources.cpu:g}"
        if resources.gpu:
            yield from self._gpus(resources.gpu)

    @property
    def rootless(self) -> bool:
        """Whether root in a container is an ordinary user of the machine."""
        raise NotImplementedError

    @property
    def limits(self) -> bool:
        """Whether memory and CPU can be limited here."""
        return not self.rootless or Path("/sys/fs/cgroup/cgroup.controllers").exists()

    def _has_init(self) -> bool:
        raise NotImplementedError

    def _own(self, container: Container) -> Iterator[str]:
        raise NotImplementedError

    def _gpus(self, count: int) -> Iterator[str]:
        raise NotImplementedError

    def _inspect(self, kind: str, name: str) -> dict[str, object] | None:
        done = call([self.name, kind, "inspect", name])
        if done.returncode:
            if _is_missing(done.stderr):
                return None
            raise self._failure(f"{kind} inspect", done.stderr)
        found: dict[str, object] = json.loads(done.stdout)[0]
        return found

    def _do(self, *arguments: str, cwd: Path | None = None) -> str:
        done = call([self.name, *arguments], cwd=cwd)
        if done.returncode:
            raise self._failure(arguments[0], done.stderr)
        return done.stdout.decode(errors="replace")

    def _failure(self, verb: str, said: bytes) -> ContainerEngineError:
        return ContainerEngineError(f"`{self.name} {verb}` failed: {reason(said) or 'no reason given'}.")


class Podman(ContainerEngine):
    """podman, as root or not; nothing has to run beforehand."""

    name = "podman"

    @property
    def rootless(self) -> bool:
        """Whether we are not root."""
        return os.geteuid() != 0

    def _has_init(self) -> bool:
        return shutil.which("catatonit") is not None or any(Path(path).exists() for path in _CATATONIT)

    def _own(self, container: Container) -> Iterator[str]:
        # Our proxies, with the passwords in them, are not for user code. Labels of SELinux would have to be
        # written to files that the store shares.
        yield from ("--http-proxy=false", "--security-opt=label=disable")
        if container.log is not None:
            yield from ("--log-driver=k8s-file", f"--log-opt=path={container.log}")
        if container.user_namespace:
            yield f"--userns={container.user_namespace}"

    def _gpus(self, count: int) -> Iterator[str]:
        # By the names of the Container Device Interface, which `nvidia-ctk cdi generate` writes down.
        return (f"--device=nvidia.com/gpu={index}" for index in range(count))


class Docker(ContainerEngine):
    """docker, with its daemon."""

    name = "docker"

    @property
    def rootless(self) -> bool:
        """Whether the daemon is not root's; not asked for: such a one limits nothing on old kernels only."""
        return False

    def _has_init(self) -> bool:
        return True

    def _own(self, container: Container) -> Iterator[str]:
        yield "--log-driver=json-file"  # whatever the daemon's default is: this one can be read back
        if container.log_bytes is not None:
            yield f"--log-opt=max-size={container.log_bytes}"

    def _gpus(self, count: int) -> Iterator[str]:
        yield f"--gpus={count}"


def engine_named(name: str) -> ContainerEngine:
    """Return an engine by its name.

    :raises ContainerEngineError: it is none that we know
    """
    for engine in (Podman(), Docker()):
        if engine.name == name:
            return engine
    raise ContainerEngineError(
        f"{name!r} is no container engine.", f"[kaos] container_engine is {' or '.join(ENGINES)}."
    )


def detect() -> ContainerEngine | None:
    """Return podman if it is installed, else docker if its daemon answers, else None."""
    if shutil.which("podman") is not None:
        return Podman()
    if shutil.which("docker") is not None:
        try:
            answer = call(["docker", "version", "--format={{.Server.Version}}"], seconds=10)
        except ContainerEngineError:
            return None
        if answer.returncode == 0:
            return Docker()
    return None


def find_engine(name: str = "") -> ContainerEngine:
    """Return the engine that was named, or the one that is there.

    :raises ContainerEngineError: there is none
    """
    if name:
        return engine_named(name)
    found = detect()
    if found is None:
        raise ContainerEngineError(
            "There is neither podman nor a docker that answers on this machine.",
            "Install podman (`apt install podman`), start docker, or use the `process` runtime.",
        )
    return found


def _is_missing(said: bytes) -> bool:
    return _says(said, _MISSING)


def _says(said: bytes, words: Sequence[str]) -> bool:
    text = said.decode(errors="replace").lower()
    return any(each in text for each in words)


def _container(found: dict[str, object]) -> ContainerState:
    state, config = _object(found["State"]), _object(found["Config"])
    network = _object(found.get("NetworkSettings"))
    status = str(state["Status"])
    return ContainerState(
        id=str(found["Id"]),
        name=str(found["Name"]).removeprefix("/"),
        status=status,
        pid=_number(state.get("Pid")),
        exit_code=_number(state.get("ExitCode")),
        out_of_memory=bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        labels={name: str(value) for name, value in _object(config.get("Labels")).items()},
        ports=dict(_ports(_object(network.get("Ports")))),
        started_at=_time(state.get("StartedAt")),
        ended_at=_time(state.get("FinishedAt")),
    )


def _image(found: dict[str, object]) -> ImageState:
    config = _object(found.get("Config"))
    identity = str(found["Id"]).removeprefix("sha256:")
    history = _list(found.get("History"))
    pinned = [str(name).partition("@")[2] for name in _list(found.get("RepoDigests"))]
    return ImageState(
        id=identity,
        digest=str(found.get("Digest") or (pinned or [f"sha256:{identity}"])[0]),
        names=tuple(str(name) for name in _list(found.get("RepoTags"))),
        size=_number(found.get("Size")),
        layers=tuple(str(layer) for layer in _list(_object(found.get("RootFS")).get("Layers"))),
        last_step=str(_object(history[-1]).get("created_by") or "") if history else "",
        variables={
            str(text).partition("=")[0]: str(text).partition("=")[2] for text in _list(config.get("Env"))
        },
        user=str(config.get("User") or ""),
        workdir=str(config.get("WorkingDir") or "/"),
        entrypoint=tuple(str(word) for word in _list(config.get("Entrypoint"))),
    )


def _ports(found: dict[str, object]) -> Iterator[tuple[int, int]]:
    for name, places in found.items():
        for place in _list(places):
            yield int(name.partition("/")[0]), _number(_object(place)["HostPort"])


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _number(value: object) -> int:
    return int(str(value)) if value else 0


def _time(value: object) -> datetime | None:
    text = str(value or "")
    # A time that never was is in the year 1.
    return None if not text or text.startswith("0001") else datetime.fromisoformat(text)
