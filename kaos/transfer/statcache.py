"""Digests of files that did not change since they were last read, by their stat."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from kaos.digest import digest_bytes

_SETTLED = 2_000_000_000
"""A file that changed less than this many nanoseconds before it was read may change again unseen within the
clock's granularity (1 to 2 s on network file systems): its digest is not kept."""

Row = tuple[int, int, int, int, str]


class StatCache:
    """The digests of one directory's files, kept between two scans of it.

    A file is taken as unchanged if size, inode, time of modification and time of status change are. The last
    one no program can set, so that a file put back with its old times is still read again.

    :param path: the cache file; one that is damaged or missing is an empty cache
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Row] = _load(path)
        self._fresh: dict[str, Row] = {}
        self._start = time.time_ns()

    @classmethod
    def of(cls, directory: Path, caches: Path) -> StatCache:
        """Return the cache of `directory` among those in `caches`."""
        return cls(caches / f"{digest_bytes(os.fsencode(directory.resolve()))[:32]}.json")

    def digest(self, path: str, stat: os.stat_result) -> str | None:
        """Return the digest of the file with this stat, if it is known."""
        row = self._rows.get(path)
        if row is None or tuple(row[:4]) != _key(stat):
            return None
        self._fresh[path] = row
        return row[4]

    def remember(self, path: str, stat: os.stat_result, digest: str) -> None:
        """Keep the digest of a file as it was read, if its stat can be trusted."""
        if stat.st_ctime_ns < self._start - _SETTLED:
            self._fresh[path] = (*_key(stat), digest)

    def save(self) -> None:
        """Write the cache: what was seen in this scan and nothing else."""
        if self._fresh == self._rows:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = self._path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps({"rows": self._fresh}, separators=(",", ":")))
        scratch.replace(self._path)

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def _key(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _load(path: Path) -> dict[str, Row]:
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    rows = document.get("rows") if isinstance(document, Mapping) else None
    if not isinstance(rows, dict):
        return {}
    return {path: tuple(row) for path, row in rows.items() if isinstance(row, list) and len(row) == 5}
