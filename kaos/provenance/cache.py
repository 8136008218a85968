"""What was read of records, kept over restarts: a file that may be removed at any time, and is never asked
whether something is there.
"""

from __future__ import annotations

import inspect
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from kaos.digest import digest_bytes
from kaos.graph import Edge, Node
from kaos.provenance import nodes
from kaos.provenance.nodes import Part

T = TypeVar("T")

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS parts (name TEXT PRIMARY KEY, value BLOB, part TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (digest TEXT PRIMARY KEY, files TEXT) WITHOUT ROWID;
"""


class Cache:
    """Parts by the name of the ref they were read from, and the digests in trees by the tree's.

    Its file is named for what made the parts: another version of kaos does not take them over.

    :param directory: of the files; made when something is kept
    """

    def __init__(self, directory: Path, of: str) -> None:
        made_by = digest_bytes(inspect.getsource(nodes).encode())
        self._path = directory / f"{digest_bytes(f'{of} {made_by}'.encode())[:32]}.sqlite"

    def parts(self) -> dict[str, tuple[bytes, Part]]:
        """Return all parts that were kept."""
        rows = self._run(lambda database: database.execute("SELECT name, value, part FROM parts").fetchall())
        return {name: (value, _part(text)) for name, value, text in rows or []}

    def contents(self) -> dict[str, str]:
        """Return what trees hold, of those that were looked through."""
        return dict(self._run(lambda database: database.execute("SELECT * FROM contents").fetchall()) or [])

    def keep(self, parts: Mapping[str, tuple[bytes, Part]], gone: Iterable[str]) -> None:
        """Keep these parts, and forget those of names that are gone."""
        rows = [(name, value, _text(part)) for name, (value, part) in parts.items()]
        names = [[name] for name in gone]

        def write(database: sqlite3.Connection) -> None:
            database.executemany("INSERT OR REPLACE INTO parts VALUES (?,?,?)", rows)
            database.executemany("DELETE FROM parts WHERE name=?", names)

        if rows or names:
            self._run(write)

    def keep_contents(self, contents: Mapping[str, str]) -> None:
        """Keep what trees hold."""
        rows = list(contents.items())
        if rows:
            self._run(
                lambda database: database.executemany("INSERT OR IGNORE INTO contents VALUES (?,?)", rows)
            )

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do something in one transaction; None where the file is of no use: then all is read anew."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with closing(sqlite3.connect(self._path, timeout=10)) as database:
                database.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_SCHEMA}")
                with database:
                    return work(database)
        except (sqlite3.Error, OSError) as error:
            log.warning("%s is of no use, and begins anew: %s", self._path, error)
            for end in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)
            return None


def _text(part: Part) -> str:
    nodes = [[node.id, node.kind, node.label, node.attributes] for node in part.nodes]
    edges = [[edge.source, edge.target, edge.role, edge.detail] for edge in part.edges]
    return json.dumps([nodes, edges], ensure_ascii=False, separators=(",", ":"))


def _part(text: str) -> Part:
    nodes, edges = json.loads(text)
    return Part(tuple(Node(*node) for node in nodes), tuple(Edge(*edge) for edge in edges))
