"""Files and folders that nobody else may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kaos.errors import LocalServerError


def private_folder(path: Path) -> Path:
    """Create a folder of mode 0700, or tighten the one that is there if it is ours.

    :raises LocalServerError: if it belongs to somebody else or is a link (in /tmp anybody could have made it)
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        found = path.stat()
        if path.parent == Path("/tmp"):  # noqa: S108
            raise LocalServerError(f"{path} is a link, which kaos did not make.", "Remove it.")
    if found.st_uid != os.geteuid():
        raise LocalServerError(
            f"{path} belongs to user {found.st_uid}, and this is user {os.geteuid()}.",
            "Run kaos as its owner, or set KAOS_HOME to a folder of your own.",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step: a reader sees the old text or the new."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
