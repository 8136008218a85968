"""The bytes of one file while they arrive: small ones in memory, larger ones in a file that outlives a
kill.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from kaos.digest import digest_bytes
from kaos.store import FileObjects, Objects
from kaos.store.base import CHUNK

_IN_MEMORY = CHUNK
_KEPT = 7 * 24 * 3600
"""Seconds after which what nobody went on with is thrown away."""


class Part:
    """What has arrived of a file.

    :param directory: for files, on the file system of the store so that they can be moved there
    :param url: what is downloaded
    :param left: an earlier download may have left something of it
    """

    def __init__(self, directory: Path, url: str, *, left: bool = False) -> None:
        self._directory = directory
        self._url = url
        self._left = left
        self._descriptor: int | None = None
        self._paused: os.stat_result | None = None
        self._chunks: list[bytes] = []
        self.size = 0
        self.validator: str | None = None
        self.total: int | None = None
        self.md5_wanted: str | None = None

    @cached_property
    def _path(self) -> Path:
        return self._directory / part_name(self._url)

    @cached_property
    def _sha256(self) -> hashlib._Hash:
        return hashlib.sha256()

    @cached_property
    def _md5(self) -> hashlib._Hash:
        return hashlib.md5(usedforsecurity=False)

    def resume(self) -> int:
        """Return how many bytes are here, if the server named their version so that the rest can be asked
        for.
        """
        if self._left:
            self._left = False
            self._load()
        elif self._paused is not None:
            self._reopen()
        if self.validator is None and self.size:
            self.discard()
        return self.size

    def begin(self, validator: str | None, total: int | None, md5: str | None) -> None:
        """Drop what is there, for a file that begins now.

        :param validator: strong ETag or date that names its version, for If-Range
        :param total: its size in bytes, if the server says
        :param md5: the MD5 that the server says it has, in hexadecimal
        """
        if self.size:
            self.discard()
        self.validator, self.total, self.md5_wanted = validator, total, md5

    def write(self, chunk: memoryview) -> None:
        """Add a chunk, which is only read in here.

        :raises OSError: the disk does not take it
        """
        self.size += len(chunk)
        if self._descriptor is not None:
            self._add(self._descriptor, chunk)
            return
        self._chunks.append(bytes(chunk))
        if self.size > _IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = descriptor = self._open()
        # Killed at any point in here, there is an empty file, or a note of exactly what is in it.
        os.ftruncate(descriptor, 0)
        self._note.unlink(missing_ok=True)
        if self.validator is not None:
            self._note.write_text(json.dumps([self._url, self.validator, self.total, self.md5_wanted]))
        for chunk in self._chunks:
            self._add(descriptor, chunk)
        self._chunks.clear()

    def _add(self, descriptor: int, chunk: bytes | memoryview) -> None:
        self._hash(chunk)
        written = os.write(descriptor, chunk)
        while written < len(chunk):  # a disk that fills up takes a part before it refuses
            written += os.write(descriptor, chunk[written:])

    def _hash(self, chunk: bytes | memoryview) -> None:
        self._sha256.update(chunk)
        if self.md5_wanted is not None:
            self._md5.update(chunk)

    def _load(self) -> None:
        """Go on with what a killed download left, if nobody else is at it."""
        path, self._descriptor = self._path, self._open()
        try:
            document = json.loads(self._note.read_bytes())
        except (FileNotFoundError, ValueError):
            document = None
        if self._path != path or not isinstance(document, list) or document[:1] != [self._url]:
            self.discard()
            return
        _, self.validator, self.total, self.md5_wanted = document
        for chunk in self._read():
            self._hash(chunk)
            self.size += len(chunk)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def _read(self) -> Iterator[bytes]:
        with self._path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    @property
    def _note(self) -> Path:
        return self._path.with_suffix(".json")

    def _open(self) -> int:
        """Return the file, locked: this one, or another name if somebody else is at this one."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # It may have been moved into the store between the two calls.
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                pass
            os.close(descriptor)
            self._path = self._directory / f"{part_name(self._url)}-{secrets.token_hex(8)}"

    def pause(self) -> None:
        """Let go of the file, which stays: there may be many transfers that wait."""
        if self._descriptor is not None:
            self._paused = os.fstat(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _reopen(self) -> None:
        path, paused, self._paused = self._path, self._paused, None
        self._descriptor = self._open()
        now = os.fstat(self._descriptor)
        same = paused is not None and os.path.samestat(now, paused) and now.st_mtime_ns == paused.st_mtime_ns
        if self._path != path or not same or now.st_size != self.size:  # somebody else was at it
            self.discard()
        else:
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def digests(self) -> tuple[str, str | None]:
        """Return SHA-256 and, if it is wanted, MD5 of all that has arrived."""
        if self._descriptor is None:
            content = b"".join(self._chunks)
            md5 = None if self.md5_wanted is None else hashlib.md5(content, usedforsecurity=False).hexdigest()
            return digest_bytes(content), md5
        return self._sha256.hexdigest(), self._md5.hexdigest() if self.md5_wanted is not None else None

    def store(self, objects: Objects, digest: str) -> None:
        """Bring the whole file, whose SHA-256 is `digest`, into the store, and forget it here.

        :raises OSError: the disk does not take it
        """
        if self._descriptor is None:
            objects.write(digest, self._chunks)  # to look whether it is there first costs as much
        elif objects.size(digest) != self.size:
            if isinstance(objects, FileObjects) and os.fstat(self._descriptor).st_dev == objects.device:
                objects.adopt(self._path, digest)
            else:
                objects.write(digest, self._read())
        self.discard()

    def discard(self) -> None:
        """Forget what has arrived."""
        if self._paused is not None:
            self._reopen()
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
        self.__dict__.pop("_sha256", None)
        self.__dict__.pop("_md5", None)
        self._chunks.clear()
        self.size = 0
        self.validator = self.total = self.md5_wanted = None


def part_name(url: str) -> str:
    """Return the name of the file for what has arrived of a URL."""
    return digest_bytes(url.encode())[:32]


def sweep(directory: Path) -> None:
    """Throw away what was left behind long ago."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _KEPT:
                path.unlink()
