"""Read the live metrics of a script that runs, without trust in what it left in its output directory."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from kaos.curves import Latest, Splitter, parse_line

_FILES = 50
_ENTRIES = 1000
_MOST = 1 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class MetricsTail:
    """What has been appended to ``metrics/*.jsonl`` since the last look.

    Links are not followed and nothing but regular files is read. Of what a look finds new in a file the last
    MiB counts, so that a look is short however much a script writes.

    :param output: the script's output directory
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._files: dict[str, _File] = {}
        self.latest = Latest()

    def look(self) -> bool:
        """Read what is new; return whether there was a line of metrics in it."""
        found = False
        with contextlib.suppress(OSError):  # not there yet, a link, or gone again
            for name, descriptor, status in _live_files(self._output):
                file = self._files.setdefault(name, _File())
                for content in file.lines(descriptor, status):
                    line = parse_line(content)
                    if line is not None:
                        self.latest.add(line)
                        found = True
        return found


class _File:
    def __init__(self) -> None:
        self._inode = -1
        self._offset = 0
        self._splitter = Splitter()

    def lines(self, descriptor: int, status: os.stat_result) -> list[bytes]:
        """Return the whole lines that are new; of a file that was cut or replaced, from its start."""
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._inode, self._offset, self._splitter = status.st_ino, 0, Splitter()
        if status.st_size - self._offset > _MOST:
            self._offset, self._splitter = status.st_size - _MOST, Splitter(skip=True)
        if status.st_size == self._offset:
            return []
        chunk = os.pread(descriptor, _MOST, self._offset)
        self._offset += len(chunk)
        return self._splitter.feed(chunk)


def _live_files(output: Path) -> Iterator[tuple[str, int, os.stat_result]]:
    """Yield name, open descriptor and status of the files, by name; the descriptor is closed afterwards."""
    with _opened(output, os.O_DIRECTORY) as top, _opened("metrics", os.O_DIRECTORY, top) as folder:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _ENTRIES)]
        for name in sorted(name for name in names if name.endswith(".jsonl"))[:_FILES]:
            # A pipe would let us wait for its writer.
            with contextlib.suppress(OSError), _opened(name, os.O_NONBLOCK, folder) as descriptor:
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode):
                    yield name, descriptor, status


@contextlib.contextmanager
def _opened(path: str | Path, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, _OPEN | flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
