"""A bundle's content as a canonical tree: the value whose SHA-256 is the bundle's identity.

The canonical form is a text of JSON lines, sorted by path (as UTF-8 bytes)::

    ["kaos-tree",1]
    ["d","logs"]                                 a directory with nothing in it
    ["f","data/a.csv",1024,"<sha256>"]           a file: size in bytes and SHA-256 of its content
    ["l","data/latest.csv","a.csv"]              a symbolic link that stays inside the tree
    ["x","train",512,"<sha256>"]                 an executable file

Times, owners, other mode bits and the order of creation are no part of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from kaos.digest import digest_bytes, is_digest
from kaos.errors import InvalidBundleError

_HEADER = '["kaos-tree",1]'

HEADER = _HEADER.encode() + b"\n"
"""How every canonical tree begins."""


class File(NamedTuple):
    """A regular file: path relative to the tree, size in bytes, SHA-256 of the content, executable bit."""

    path: str
    size: int
    digest: str
    executable: bool = False


class Link(NamedTuple):
    """A symbolic link whose target, relative to the link, stays inside the tree."""

    path: str
    target: str


class EmptyDirectory(NamedTuple):
    """A directory with nothing in it; other directories follow from their files."""

    path: str


Entry = File | Link | EmptyDirectory


@dataclass(frozen=True)
class Tree:
    """What is in a bundle: entries sorted by path, checked once when the tree is made.

    :param entries: files, links and empty directories, sorted by their path's UTF-8 bytes
    """

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Tree:
        """Return the tree of `entries`, given in any order.

        :raises InvalidBundleError: paths that leave the tree, come twice, or are both file and directory;
            links that leave the tree
        """
        ordered = tuple(sorted(entries, key=lambda entry: entry.path.encode()))
        _check(ordered)
        return cls(ordered)

    @classmethod
    def decode(cls, document: bytes) -> Tree:
        """Return the tree of a canonical document.

        :raises InvalidBundleError: the document is not in canonical form
        """
        try:
            lines = document.decode().split("\n")
            if lines[0] != _HEADER or lines[-1] != "":
                raise ValueError("it does not begin with the header and end with a line break")
            tree = cls.of(_entry(row) for row in json.loads("[" + ",".join(lines[1:-1]) + "]"))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidBundleError(
                f"This is no canonical tree: {error}.", "Deploy the directory again."
            ) from error
        if tree.encoded != document:
            raise InvalidBundleError("This tree is not in canonical form.", "Deploy the directory again.")
        return tree

    @classmethod
    def stored(cls, document: bytes) -> Tree:
        """Return the tree of a document that was checked when it was stored and verified since.

        :raises InvalidBundleError: it is no such document after all
        """
        try:
            rows = json.loads("[" + ",".join(document.decode().split("\n")[1:-1]) + "]")
            return cls(tuple(map(_entry, rows)))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidBundleError(f"This is no canonical tree: {error}.") from error

    @cached_property
    def encoded(self) -> bytes:
        """Return the canonical document: UTF-8 text, a line per entry."""
        dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
        return "\n".join([_HEADER, *(dump(_row(entry)) for entry in self.entries), ""]).encode()

    @cached_property
    def digest(self) -> str:
        """Return the identity of everything with this content: the SHA-256 of the canonical document."""
        return digest_bytes(self.encoded)

    @property
    def files(self) -> Iterator[File]:
        """Iterate over the regular files."""
        return (entry for entry in self.entries if isinstance(entry, File))

    @cached_property
    def size(self) -> int:
        """Return the sum of the files' sizes, in bytes."""
        return sum(file.size for file in self.files)

    @cached_property
    def objects(self) -> dict[str, int]:
        """Return the distinct contents of the files: size in bytes by digest."""
        return {file.digest: file.size for file in self.files}

    def file(self, path: str) -> File | None:
        """Return the regular file at `path`, or None."""
        return next((file for file in self.files if file.path == path), None)

    def below(self, directory: str) -> Tree:
        """Return the tree of what lies below `directory`, with paths relative to it."""
        prefix = f"{directory}/"
        return Tree.of(
            entry._replace(path=entry.path[len(prefix) :])
            for entry in self.entries
            if entry.path.startswith(prefix)
        )

    def case_collisions(self) -> list[tuple[str, str]]:
        """Return the pairs of paths that are one path on a case-insensitive disk."""
        paths = {entry.path: None for entry in self.entries}
        for entry in self.entries:
            parent = entry.path.rpartition("/")[0]
            while parent and parent not in paths:
                paths[parent] = None
                parent = parent.rpartition("/")[0]
        seen: dict[str, str] = {}
        twins = [(seen.setdefault(path.casefold(), path), path) for path in sorted(paths)]
        return [(one, two) for one, two in twins if one != two]


def _row(entry: Entry) -> list[str | int]:
    match entry:
        case File(path, size, digest, executable):
            return ["x" if executable else "f", path, size, digest]
        case Link(path, target):
            return ["l", path, target]
        case EmptyDirectory(path):
            return ["d", path]


def _entry(row: object) -> Entry:
    match row:
        case ["f" | "x" as kind, str(path), int(size), str(digest)] if size >= 0 and is_digest(digest):
            return File(path, size, digest, kind == "x")
        case ["l", str(path), str(target)]:
            return Link(path, target)
        case ["d", str(path)]:
            return EmptyDirectory(path)
    raise ValueError(f"{row!r} is no entry")


def _check(entries: tuple[Entry, ...]) -> None:
    kinds: dict[str, type] = {}
    for entry in entries:
        check_path(entry.path)
        if entry.path in kinds:
            raise InvalidBundleError(f"The path {entry.path!r} comes twice.")
        kinds[entry.path] = type(entry)
    for entry in entries:
        parent = entry.path.rpartition("/")[0]
        while parent:
            if parent in kinds:
                raise InvalidBundleError(f"{parent!r} is both a file and the directory of {entry.path!r}.")
            parent = parent.rpartition("/")[0]
    for entry in entries:
        if isinstance(entry, Link):
            _check_link(entry, kinds)


def check_path(path: str) -> None:
    """Check that `path` is relative, normal and stays inside the tree.

    :raises InvalidBundleError: it does not
    """
    if not path or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidBundleError(
            f"The path {path!r} is not a plain relative path.", "Rename or remove that file."
        )


def _check_link(link: Link, kinds: dict[str, type]) -> None:
    """Follow the target component by component: through another link nobody could say where it ends."""
    where = link.path.split("/")[:-1]
    parts = link.target.split("/")
    outside = InvalidBundleError(
        f"The link {link.path!r} leads to {link.target!r}, outside its bundle.",
        "Copy what it leads to into the bundle, or list the link in .kaosignore.",
    )
    if link.target.startswith("/") or not link.target or "\0" in link.target:
        raise outside
    for number, part in enumerate(parts):
        if part == "..":
            if not where:
                raise outside
            where = where[:-1]
        elif part not in ("", "."):
            where = [*where, part]
        if number < len(parts) - 1 and kinds.get("/".join(where)) is Link:
            raise InvalidBundleError(
                f"The link {link.path!r} leads through another link, {'/'.join(where)!r}.",
                "Let it lead straight to its target.",
            )
