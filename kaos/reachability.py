"""What can be reached in a store: from the digests in names and values of refs, through trees and documents.

Every run of 64 hexadecimal digits counts as a digest, wherever it stands in a document: a record of a kind
that this module has never heard of keeps what it names. Only what kaos wrote as a document is looked into: a
canonical tree, whose files are followed no further, and JSON on a single line, as all records are. A file of
somebody's data is never taken for one: it is reached through a tree, or from lines of JSON.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

from kaos.bundle import HEADER
from kaos.errors import CorruptObjectError
from kaos.store import Objects

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_LARGEST = 256 << 20
"""Bytes of the largest document: a tree of a million files."""


def digests_in(content: bytes | str) -> list[str]:
    """Return the digests that a text names, as often as it does."""
    text = content.encode() if isinstance(content, str) else content
    return [found.decode() for found in _DIGEST.findall(text)]


class Reachability:
    """Follow digests through a store; what was read once is kept for the next time.

    :param known: size in bytes of every object of the store by digest, as it was listed
    :param newer: ask the store for others: what was written after the list may be named, and name more
    """

    def __init__(self, objects: Objects, known: Mapping[str, int], *, newer: bool = False) -> None:
        self._objects = objects
        self._known = dict(known)
        self._newer = newer
        self._absent: set[str] = set()
        self._named: dict[str, tuple[bool, tuple[str, ...]]] = {}
        self.damaged: list[str] = []
        """Documents that could not be read: what they name is not known."""

    def reached(
        self, roots: Iterable[str], skipped: Container[str] = (), closed: Container[str] = ()
    ) -> set[str]:
        """Return the digests of all objects that can be reached.

        :param skipped: digests that are not followed, nor part of what is returned
        :param closed: digests that are not followed: reading them would bring them back
        """
        found: set[str] = set()
        leaves: set[str] = set()
        waiting = [digest for digest in roots if self._is_there(digest)]
        while waiting:
            digest = waiting.pop()
            if digest in found or digest in skipped:
                continue
            found.add(digest)
            if digest in closed:
                continue
            followed, named = self._look(digest)
            if followed:
                waiting.extend(named)
            else:
                leaves.update(named)
        return found | leaves

    def is_document(self, digest: str) -> bool:
        """Tell whether an object is a record, and no tree, log or file."""
        return self._is_there(digest) and self._look(digest)[0]

    def _is_there(self, digest: str) -> bool:
        """Tell whether the store has an object with this digest."""
        if digest in self._known:
            return True
        if not self._newer or digest in self._absent:
            return False
        size = self._objects.size(digest)
        if size is None:
            self._absent.add(digest)
            return False
        self._known[digest] = size
        return True

    def _look(self, digest: str) -> tuple[bool, tuple[str, ...]]:
        """Return whether what an object names is to be followed, and what it names."""
        known = self._named.get(digest)
        if known is None:
            known = self._named[digest] = self._read(digest)
        return known

    def _read(self, digest: str) -> tuple[bool, tuple[str, ...]]:
        if self._known[digest] > _LARGEST:
            return False, ()
        try:
            chunks = self._objects.read(digest)
            content = next(chunks, b"")
            tree = content.startswith(HEADER)
            if not tree and not content.startswith((b"{", b"[")):
                return False, ()
            content += b"".join(chunks)
        except CorruptObjectError:
            self.damaged.append(digest)
            return False, ()
        line = not tree and b"\n" not in content.rstrip(b"\n")
        return line, tuple(sorted({each for each in digests_in(content) if self._is_there(each)}))
