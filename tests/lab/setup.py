"""What every set-up shares: Debian's packages, a folder that is kept, and what to do without them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

MISSING: list[str] = []
"""What could not be set up in this session, for its summary."""


class LabError(Exception):
    """A component that cannot be had on this machine, and why."""


def cache() -> Path:
    """Return the folder that keeps what is expensive to make, between sessions."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaos-lab"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Keep other sessions out of a set-up."""
    with (cache() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Install packages of Debian, unless all the programs are there."""
    if all(shutil.which(program) for program in programs):
        return
    if os.geteuid() != 0:
        raise LabError(f"not root, and {', '.join(programs)} are not all installed")
    if shutil.which("apt-get") is None:
        raise LabError(f"no apt-get, and {', '.join(programs)} are not all installed")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    run(["apt-get", *options, "update"], environment)
    run(["apt-get", *options, "install", "-y", "--no-install-recommends", *packages], environment)
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise LabError(f"apt-get installed {', '.join(packages)}, and there is no {', '.join(missing)}")


def run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(
        list(map(str, command)),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"{' '.join(map(str, command))[:200]}: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout


def missing(what: str, error: LabError) -> NoReturn:
    """Skip the test loudly; where CI=true says that nothing may be missing, fail it."""
    words = f"{what} cannot be set up: {error}"
    if words not in MISSING:
        MISSING.append(words)
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(words, pytrace=False)
    pytest.skip(words)
