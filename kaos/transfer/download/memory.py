"""What each URL gave the last time: an SQLite file that survives being killed at any moment."""

from __future__ import annotations

import contextlib
import errno
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_SCHEMA = """
CREATE TABLE IF NOT EXISTS urls (
    url TEXT PRIMARY KEY, sha256 TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT, modified TEXT, seen REAL
    NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS passes (
    manifest TEXT PRIMARY KEY, run TEXT NOT NULL, started REAL NOT NULL, ended INTEGER NOT NULL
) WITHOUT ROWID;
"""
_STALE = 24 * 3600.0
"""A pass that stopped longer ago than this many seconds is begun anew: what it saw may have changed."""


class Seen(NamedTuple):
    """What a URL gave, and when (seconds since the epoch) the server last said so."""

    url: str
    sha256: str
    size: int
    etag: str | None
    modified: str | None
    seen: float


class Memory:
    """The URLs that were downloaded into a store, and the passes over manifests that are not over.

    :param path: the file, made if it is new, and anew if it is damaged
    :raises OSError: here and below: the file cannot be read or written
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        with self._explained():
            try:
                self._database = _open(path)
            except sqlite3.OperationalError:  # such as a full disk
                raise
            except sqlite3.DatabaseError:  # damaged: it only spares requests, so that a new one will do
                for end in ("", "-wal", "-shm"):
                    path.with_name(path.name + end).unlink(missing_ok=True)
                self._database = _open(path)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def learn(self, origins: bytes) -> None:
        """Take over what URLs gave another worker; what this one knows itself stays.

        :param origins: `Downloaded.origins` of an earlier download
        """
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "INSERT OR IGNORE INTO urls VALUES (?,?,?,?,?,0)",
                (
                    [row["url"], row["sha256"], row["size"], row["etag"], row["last_modified"]]
                    for row in map(json.loads, origins.splitlines())
                ),
            )
            self._database.execute("COMMIT")

    def begin(self, manifest: str, run: str, *, refresh: bool) -> float:
        """Return the start of the pass over a manifest that is to be done now, in seconds since the epoch.

        Rows that are younger belong to it. A pass that was killed or failed goes on, unless all is to be
        fetched anew, and not even then if it is the same run that was killed.
        """
        with self._explained():
            row = self._database.execute(
                "SELECT run, started FROM passes WHERE manifest=? AND NOT ended", [manifest]
            ).fetchone()
            now = time.time()
            same = row is not None and (row[0] == run if refresh and run else not refresh)
            if same and row[1] > now - _STALE:
                return float(row[1])
            self._database.execute("INSERT OR REPLACE INTO passes VALUES (?,?,?,0)", [manifest, run, now])
            return now

    def end(self, manifest: str) -> None:
        """Remember that a pass is over: the next one asks for every file again."""
        with self._explained():
            self._database.execute("UPDATE passes SET ended=1 WHERE manifest=?", [manifest])

    def find(self, urls: Iterable[str]) -> dict[str, Seen]:
        """Return what is known of `urls`."""
        with self._explained():
            self._database.execute("CREATE TEMP TABLE wanted (url TEXT PRIMARY KEY) WITHOUT ROWID")
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ([url] for url in urls))
            rows = self._database.execute("SELECT urls.* FROM wanted JOIN urls USING (url)").fetchall()
            self._database.execute("COMMIT")
            self._database.execute("DROP TABLE wanted")
        return {row[0]: Seen(*row) for row in rows}

    def remember(self, seen: Iterable[Seen]) -> None:
        """Keep what URLs gave, all in one transaction."""
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO urls VALUES (?,?,?,?,?,?)", seen)
            self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise what SQLite says as what it is: trouble with a file."""
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(
                errno.EIO, f"{error}; it may be removed: it spares requests", str(self._path)
            ) from error


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        path.chmod(0o600)  # URLs may be secrets
        database.execute("PRAGMA journal_mode=WAL")
        # A crash of the machine may cost the last rows; those files are asked for again.
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database
