"""Virtual environments for the process runtime: resolved once, locked by hashes, made once, shared by digest.

::

    DIRECTORY/locks/<digest of the spec>.txt         what its requirements were resolved to, the first time
    DIRECTORY/environments/<digest>/bin/python       a virtual environment
    DIRECTORY/environments/<digest>/environment.json written last: without it the environment is not whole
    DIRECTORY/environments/<digest>.lock             held by whoever makes it, and by the uv that does
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kaos.digest import digest_bytes
from kaos.errors import EnvironmentBuildError
from kaos.image import EnvironmentSpec
from kaos.runtime.base import Builder, Environment
from kaos.runtime.exclusive import exclusive
from kaos.runtime.uv import installed_pythons, run_uv

_MARKER = "environment.json"


class EnvironmentBuilder(Builder[EnvironmentSpec, Environment]):
    """Make virtual environments below a directory with uv; several processes may do so at the same time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    def build(
        self, spec: EnvironmentSpec, log: Callable[[str], None], lock: str | None = None
    ) -> Environment:
        """Return the environment that ``spec`` asks for, made now if it is not there yet.

        :param log: called with each line of uv's output as it comes
        :param lock: install exactly this, as an earlier build returned it, instead of resolving anew
        :raises EnvironmentBuildError: with uv's reason
        """
        began = time.monotonic()
        if lock is None:
            lock = self._resolve(spec, log)
        digest = digest_bytes(json.dumps(["kaos-environment", 1, spec.python, spec.platform, lock]).encode())
        place = self.directory / "environments" / digest
        made = False
        if (version := _version_of(place)) is None:
            with exclusive(place.with_name(f"{digest}.lock"), log, "environment") as held:
                # Whoever held it before us may just have made it.
                if (version := _version_of(place)) is None:
                    version = _make(spec, lock, place, log, held)
                    made = True
        if not made:
            log(f"The environment {digest[:12]} with Python {version} is there already.")
        return Environment(
            digest=digest,
            python=place / "bin" / "python",
            python_version=version,
            lock=lock,
            lock_digest=digest_bytes(lock.encode()),
            seconds=time.monotonic() - began,
            reused=not made,
        )

    def _resolve(self, spec: EnvironmentSpec, log: Callable[[str], None]) -> str:
        """Return the lock of a spec, resolved the first time and the same from then on."""
        path = self.directory / "locks" / f"{spec.digest}.txt"
        if path.exists():
            return path.read_text()
        with exclusive(path.with_suffix(".lock"), log, "environment") as held:
            if not path.exists():
                lock = _locked_already(spec) or _compile(spec, path.with_suffix(".work"), log, held)
                new = path.with_suffix(".new")
                new.write_text(lock)
                new.replace(path)
            return path.read_text()


def _options(spec: EnvironmentSpec) -> str:
    return "".join(line for line in spec.requirements.splitlines(keepends=True) if line.startswith("--"))


def _packages(spec: EnvironmentSpec) -> str:
    return spec.requirements.removeprefix(_options(spec))


def _locked_already(spec: EnvironmentSpec) -> str:
    """Return the requirements if they have hashes: as in pip, all of them must then, and are the lock."""
    packages = _packages(spec)
    return packages if " --hash=" in packages else ""


def _compile(spec: EnvironmentSpec, here: Path, log: Callable[[str], None], held: int) -> str:
    """Resolve the requirements in a directory of their own, which a killed build leaves for the next one."""
    if not _packages(spec):
        return ""
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    (here / "requirements.txt").write_text(spec.requirements)
    arguments = ["pip", "compile", "requirements.txt", "--output-file", "lock.txt"]
    arguments += [
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--python",
        _interpreter(spec.python, log),
    ]
    run_uv(arguments, log, cwd=here, hold=held)
    lock = (here / "lock.txt").read_text()
    shutil.rmtree(here)
    return lock


def _make(spec: EnvironmentSpec, lock: str, place: Path, log: Callable[[str], None], held: int) -> str:
    """Make the environment, from nothing, and return the version of its Python."""
    shutil.rmtree(place, ignore_errors=True)
    python = _interpreter(spec.python, log)
    run_uv(["venv", "--no-project", "--python", python, place], log, cwd=place.parent, hold=held)
    if lock:
        # Where packages come from is no part of the lock: addresses may hold passwords, and change.
        (place / "requirements.txt").write_text(_options(spec) + lock)
        arguments = ["pip", "install", "--require-hashes", "-r", "requirements.txt"]
        run_uv([*arguments, "--python", place / "bin" / "python"], log, cwd=place, hold=held)
    version = re.search(r"^version_info = (\S+)", (place / "pyvenv.cfg").read_text(), re.MULTILINE)
    marker = {"python_version": version[1] if version else platform.python_version()}
    new = place / f"{_MARKER}.new"
    new.write_text(json.dumps(marker))
    new.replace(place / _MARKER)
    return marker["python_version"]


def _version_of(place: Path) -> str | None:
    """Return the version of the Python of an environment that is whole, None if it is not."""
    if not (place / "bin" / "python").exists():  # also when the Python that it was made from is gone
        return None
    try:
        version: str = json.loads((place / _MARKER).read_text())["python_version"]
    except FileNotFoundError:
        return None
    return version


def _interpreter(wanted: str | None, log: Callable[[str], None]) -> str:
    """Return our own Python if it is the version wanted, else the one that uv finds or fetches."""
    own = platform.python_version()
    if wanted is None or f"{own}.".startswith(f"{wanted}."):
        return sys.executable
    with tempfile.TemporaryDirectory(prefix="kaos-") as name:
        venv = Path(name) / "venv"
        try:
            run_uv(["venv", "--no-project", "--python", wanted, venv], log, cwd=Path(name))
        except EnvironmentBuildError as error:
            there = sorted({own, *installed_pythons()})
            raise EnvironmentBuildError(
                f"The Dockerfile asks for Python {wanted}, which is not on this machine and could not be"
                f" fetched; there is {' and '.join(there)}.",
                f"Write `FROM python:{own.rpartition('.')[0]}` or `FROM python:3`, install Python {wanted},"
                " or use the `container` runtime. The build log has the reason.",
            ) from error
        return str((venv / "bin" / "python").resolve())
