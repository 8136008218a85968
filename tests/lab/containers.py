"""podman, buildah, docker and a registry from Debian's packages, with a base image that is not pulled."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lab.setup import LabError, alone, cache, install, run

BASE = "docker.io/library/python:3.11-slim"
"""Made of Debian's packages under the name that Dockerfiles use, so that they build with no pull."""

_PACKAGES = (
    *("podman", "buildah", "runc", "netavark", "aardvark-dns", "catatonit", "iptables", "iproute2", "uidmap"),
    *("mmdebstrap", "docker-registry", "docker.io"),
)
_STORAGE = """[storage]
driver = "{driver}"
graphroot = "{folder}/store"
runroot = "{run}"
"""
# runc: crun fails where control groups of both versions are mounted. Limits: podman asks for more than a
# container of somebody else's may raise.
_CONTAINERS = """[containers]
default_ulimits = ["nofile=20000:20000", "nproc=16384:16384"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_PIP = """[global]
cert = /etc/ssl/certs/ca-certificates.crt
disable-pip-version-check = 1
default-timeout = 180
"""
_DOCKERFILE = """FROM scratch
ADD base.tar /
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin LANG=C.UTF-8
CMD ["python3"]
"""
_KEPT_SECONDS = 4 * 3600
_LONGEST_RUN_ROOT = 50
"""podman's own limit, of which only what starts a container again tells, and nobody reads that."""
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Podman:
    """podman and buildah with a storage of their own.

    :param variables: environment that leads both of them there
    """

    folder: Path
    variables: dict[str, str]

    def run(self, *command: str | Path) -> str:
        """Run a command with this storage."""
        return run(command, {**os.environ, **self.variables})


def podman() -> Podman:
    """Return podman with the base image in its storage, installed and made where it is not there."""
    with alone("containers"):
        install(("podman", "buildah", "runc", "mmdebstrap", "docker-registry", "dockerd"), _PACKAGES)
        folder = cache() / "containers"
        folder.mkdir(exist_ok=True)
        for driver in ("overlay", "vfs"):  # the second where the disk is an overlay itself; ten times slower
            found = _configured(folder / driver, driver)
            with suppress(LabError):
                if not _has(found, BASE):
                    _make_base(found)
                found.run("podman", "run", "--rm", "--network=none", BASE, "true")
                _forget_images(found)
                return found
        found.run("podman", "run", "--rm", "--network=none", BASE, "true")
        return found


def _configured(folder: Path, driver: str) -> Podman:
    folder.mkdir(exist_ok=True)
    run_root = folder / "run"
    if len(str(run_root)) > _LONGEST_RUN_ROOT:
        run_root = Path("/run", f"kaos-lab-{sha256(str(folder).encode()).hexdigest()[:16]}")
    storage = _STORAGE.format(driver=driver, folder=folder, run=run_root)
    (folder / "storage.conf").write_text(storage)
    (folder / "containers.conf").write_text(_CONTAINERS)
    return Podman(
        folder,
        {
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "BUILDAH_ISOLATION": "chroot",
        },
    )


def _has(podman: Podman, image: str) -> bool:
    with suppress(LabError):
        podman.run("podman", "image", "inspect", image)
        return True
    return False


def _forget_images(podman: Podman) -> None:
    """Remove what tests built hours ago: sessions that run now may need the others."""
    images = json.loads(podman.run("podman", "images", "--format=json") or "[]")
    for image in images:
        built = any(name.startswith("localhost/kaos/") for name in image.get("Names") or [])
        if built and image["Created"] < time.time() - _KEPT_SECONDS:
            with suppress(LabError):
                podman.run("podman", "rmi", "--force", image["Id"])


def _make_base(podman: Podman) -> None:
    base = cache() / "containers" / "base"
    base.mkdir(exist_ok=True)
    tar = base / "base.tar"
    if not tar.exists():
        (base / "pip.conf").write_text(_PIP)
        sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.list")]
        entries = [path.read_text() for path in sources if path.exists()]
        formatted = [path.read_text() for path in Path("/etc/apt/sources.list.d").glob("*.sources")]
        (base / "sources").write_text("\n\n".join(formatted) if formatted else "\n".join(entries))
        new = base / "base.new.tar"
        run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io"),
                "--include=python3,python3-pip,ca-certificates",
                *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")),
                '--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
                '--customize-hook=ln -sf python3 "$1"/usr/bin/python',
                '--customize-hook=rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*'
                ' "$1"/usr/share/perl "$1"/usr/lib/*/perl "$1"/usr/lib/*/libperl* "$1"/usr/lib/*/gconv',
                f"--customize-hook=upload {_CERTIFICATES} {_CERTIFICATES}",
                f"--customize-hook=upload {base / 'pip.conf'} /etc/pip.conf",
                *("", new, base / "sources"),
            ]
        )
        new.replace(tar)
    (base / "Dockerfile").write_text(_DOCKERFILE)
    podman.run("podman", "build", "--quiet", f"--tag={BASE}", base)


@contextmanager
def registry(folder: Path, port: int) -> Iterator[str]:
    """Run a registry on loopback; yield its host and port.

    With a file ``htpasswd`` in the folder it wants a login.
    """
    config = folder / "registry.yml"
    passwords = folder / "htpasswd"
    auth = f"auth: {{htpasswd: {{realm: lab, path: {passwords}}}}}\n" if passwords.exists() else ""
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}\n"
        f'http: {{addr: "127.0.0.1:{port}"}}\n{auth}'
    )
    with _background(["docker-registry", "serve", config], folder / "registry.log"):
        _until(lambda: _answers(f"http://127.0.0.1:{port}/v2/"), folder / "registry.log")
        yield f"127.0.0.1:{port}"


@contextmanager
def dockerd(folder: Path, podman: Podman) -> Iterator[dict[str, str]]:
    """Run a docker daemon of our own, with the base image; yield the environment that leads there."""
    # Another docker that was there before may be a client alone, and too new for this daemon's builder.
    socket = folder / "docker.sock"
    variables = {"DOCKER_HOST": f"unix://{socket}", "PATH": f"/usr/bin:{os.environ['PATH']}"}
    command = ["dockerd", f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}"]
    command += [f"--pidfile={folder / 'pid'}", f"--host=unix://{socket}", "--bridge=none", "--iptables=false"]
    archive = folder / "base.tar"
    podman.run("podman", "save", f"--output={archive}", BASE)
    environment = {**os.environ, **variables}
    with _background(command, folder / "dockerd.log"):
        _until(lambda: _succeeds(["docker", "version"], environment), folder / "dockerd.log")
        run(["docker", "load", f"--input={archive}"], environment)
        archive.unlink()
        yield variables
        for name in run(["docker", "ps", "--all", "--quiet"], environment).split():
            run(["docker", "rm", "--force", name], environment)
    with suppress(LabError):  # the daemon leaves it mounted, and then nobody can delete the folder
        run(["umount", folder / "exec" / "netns" / "default"])


@contextmanager
def _background(command: list[str | Path], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(ready: object, log: Path, seconds: float = 60) -> None:
    assert callable(ready)
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"it does not start: {log.read_text(errors='replace')[-1000:]}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _succeeds(command: list[str], environment: dict[str, str]) -> bool:
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def remove() -> None:
    """Delete all that is kept."""
    shutil.rmtree(cache() / "containers", ignore_errors=True)
