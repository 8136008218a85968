"""Read the ends of the processes' logs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 64 * 1024


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a file, reading it from its end; none if it is not there."""
    try:
        with path.open("rb") as file:
            position, text = file.seek(0, 2), b""
            while position > 0 and text.count(b"\n") <= lines:
                step = min(_BLOCK, position)
                position = file.seek(position - step)
                text = file.read(step) + text
                file.seek(position)
    except FileNotFoundError:
        return []
    return text.decode(errors="replace").splitlines()[-lines:] if lines > 0 else []


class _Follower:
    """Read on where a file ended, and from the start of the next when it is rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._file: BinaryIO | None = None
        if path.exists():
            self._file = path.open("rb")
            self._file.seek(0, 2)

    def read(self) -> list[str]:
        """Return the lines that have been completed since the last call."""
        if self._file is None:
            if not self._path.exists():
                return []
            self._file = self._path.open("rb")
        text = self._rest + self._file.read()
        if self._was_replaced():
            text += self._file.read()
            self._file.close()
            self._file = None
        *complete, self._rest = text.split(b"\n")
        return [line.decode(errors="replace") for line in complete]

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _was_replaced(self) -> bool:
        assert self._file is not None  # noqa: S101 (read opens it)
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return True


def follow(paths: dict[str, Path], pause: float = 0.2) -> Iterator[tuple[str, str]]:
    """Yield (name, line) as lines are written, for ever.

    :param pause: seconds between two looks
    """
    followers = {name: _Follower(path) for name, path in paths.items()}
    try:
        while True:
            yield from _new_lines(followers.items())
            time.sleep(pause)
    finally:
        for follower in followers.values():
            follower.close()


def _new_lines(followers: Iterable[tuple[str, _Follower]]) -> Iterator[tuple[str, str]]:
    for name, follower in followers:
        for line in follower.read():
            yield name, line
