"""A store in a directory: ``objects/ab/<digest>``, read-only, and ``refs/<name>``, changed under a lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from kaos.store.base import CHUNK, Objects, Ref, Refs, Store, absent, check_ref_name, corrupt, moved

_SMALL = 8 * CHUNK
_LARGE = 8 * CHUNK
_PART = 8 * CHUNK

INSTANCE = "instance"
"""The ref with a store's random name, by which a client knows that it has the same directory before it."""


class FileObjects(Objects):
    """Objects as files below a directory, each written beside its place and then moved there whole.

    :param root: the directory; made when the first object is written
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._scratch = root / "tmp"

    @property
    def device(self) -> int:
        """Return the file system's number: only files of the same one can be adopted."""
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root.stat().st_dev

    def path(self, digest: str) -> Path:
        """Return where the object with this digest is, or would be."""
        return self.root / digest[:2] / digest

    def size(self, digest: str) -> int | None:
        """Return the size in bytes of the object's file, or None."""
        try:
            return os.stat(f"{self.root}/{digest[:2]}/{digest}").st_size  # noqa: PTH116 (10,000 a deploy)
        except FileNotFoundError:
            return None

    def write(self, digest: str, chunks: Iterable[bytes]) -> int:
        """Store the chunks, if they have this digest."""
        found, size = self._add(lambda target: _write_hashed(chunks, target), digest)
        if found != digest:
            raise corrupt(digest, found)
        return size

    def add(self, path: Path) -> str:
        """Store a copy of the file at `path` under the digest that the copy has, and return that."""
        with open(path, "rb", buffering=0) as source:  # noqa: PTH123 (10,000 of these a deploy)
            if os.fstat(source.fileno()).st_size < _LARGE:
                return self._add(lambda target: _write_hashed([source.readall()], target), None)[0]
            return self._add(lambda target: _copy_hashed(source.fileno(), target), None)[0]

    def _add(self, fill: Callable[[int], tuple[str, int]], expected: str | None) -> tuple[str, int]:
        scratch, descriptor = self._create()
        try:
            try:
                digest, size = fill(descriptor)
                os.fchmod(descriptor, 0o444)
            finally:
                os.close(descriptor)
            if expected is None or digest == expected:
                self._move(scratch, digest)
                scratch = ""
        finally:
            if scratch:
                os.unlink(scratch)  # noqa: PTH108
        return digest, size

    def adopt(self, scratch: Path, digest: str) -> None:
        """Move a finished file, already known to have this digest, to its place."""
        scratch.chmod(0o444)
        self._move(str(scratch), digest)

    def _create(self) -> tuple[str, int]:
        # Strings and descriptors, here and below, not paths and files: 10,000 of these a deploy.
        scratch, flags = f"{self._scratch}/{os.urandom(16).hex()}", os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            return scratch, os.open(scratch, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            self._scratch.mkdir(parents=True, exist_ok=True)
            return scratch, os.open(scratch, flags | os.O_CLOEXEC, 0o600)

    def _move(self, scratch: str, digest: str) -> None:
        directory = f"{self.root}/{digest[:2]}"
        try:
            os.rename(scratch, f"{directory}/{digest}")  # noqa: PTH104
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)  # noqa: PTH103
            os.rename(scratch, f"{directory}/{digest}")  # noqa: PTH104

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield the object's bytes; a small one is verified before the first chunk."""
        try:
            file = self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise absent(digest) from None
        with file:
            hasher, held = hashlib.sha256(), b""
            while chunk := file.read(CHUNK):
                hasher.update(chunk)
                if len(held) + len(chunk) <= _SMALL:
                    held += chunk
                    continue
                yield held
                held = chunk
            self._check(digest, hasher.hexdigest())
            yield held

    def verify(self, digest: str) -> None:
        """Read the whole object.

        :raises CorruptObjectError: it is not there, or its bytes are not those of its digest
        """
        try:
            found = digest_file(f"{self.root}/{digest[:2]}/{digest}")
        except FileNotFoundError:
            raise absent(digest) from None
        self._check(digest, found)

    def _check(self, digest: str, found: str) -> None:
        if found != digest:
            self.set_aside(digest)
            raise corrupt(digest, found)

    def set_aside(self, digest: str) -> None:
        """Move a damaged object out of the way, so that deploying its file again brings it back."""
        aside = self.root.parent / "damaged"
        aside.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # somebody else found it first
            self.path(digest).rename(aside / f"{digest}.{secrets.token_hex(4)}")

    def place(
        self, digest: str, destination: Path, *, executable: bool = False, writable: bool = False
    ) -> None:
        """Hard-link the verified object where it is only read and not executable, else copy it."""
        if executable or writable:
            super().place(digest, destination, executable=executable, writable=writable)
            return
        self.verify(digest)
        try:
            os.link(f"{self.root}/{digest[:2]}/{digest}", destination)
        except FileNotFoundError:
            raise absent(digest) from None
        except OSError:  # another file system, or one without hard links, or an object with 65,000 of them
            super().place(digest, destination)

    def digests(self) -> Iterator[str]:
        """Iterate over the digests, by directory."""
        if not self.root.is_dir():
            return
        for directory in sorted(self.root.iterdir()):
            if len(directory.name) == 2:
                yield from sorted(entry.name for entry in directory.iterdir())


def digest_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's content."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (10,000 of these a run)
        if os.fstat(file.fileno()).st_size < CHUNK:
            return hashlib.sha256(file.readall()).hexdigest()
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_hashed(chunks: Iterable[bytes], target: int) -> tuple[str, int]:
    """Write chunks to a descriptor, and return their digest and how many bytes they are."""
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks:
        hasher.update(chunk)
        _write(target, chunk)
        size += len(chunk)
    return hasher.hexdigest(), size


def _write(target: int, chunk: bytes) -> None:
    written = os.write(target, chunk)
    while written < len(chunk):  # a disk that fills up takes a part before it refuses
        written += os.write(target, chunk[written:])


def _copy_hashed(source: int, target: int) -> tuple[str, int]:
    """Copy between descriptors, and return the digest of what has arrived and how many bytes that is.

    The kernel copies a part while a thread hashes the one before it, as the target has it.
    """
    hasher, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK))

    def add(start: int, end: int) -> None:
        while start < end:
            count = os.preadv(target, [buffer[: end - start]], start)
            if not count:
                raise OSError(errno.EIO, "What was written is not there")
            hasher.update(buffer[:count])
            start += count

    with ThreadPoolExecutor(max_workers=1) as thread:
        pending: Future[None] | None = None
        while count := _copy_part(source, target):
            if pending is not None:
                pending.result()
            pending = thread.submit(add, size, size + count)
            size += count
        if pending is not None:
            pending.result()
    return hasher.hexdigest(), size


def _copy_part(source: int, target: int) -> int:
    try:
        return os.copy_file_range(source, target, _PART)
    except (AttributeError, OSError):  # not Linux, or two file systems that cannot
        chunk = os.read(source, CHUNK)
        _write(target, chunk)
        return len(chunk)


class FileRefs(Refs):
    """Refs as files below a directory; one lock serialises the changes, reading needs none.

    :param root: the directory; made when the first ref is written
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, name: str) -> Ref | None:
        """Return the ref, or None."""
        try:
            return Ref.of((self.root / check_ref_name(name)).read_bytes())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def set(self, name: str, value: bytes, expected: str | None) -> Ref:
        """Change the ref if it has the expected version; it is on disk when this returns."""
        path = self.root / check_ref_name(name)
        self._check(name, expected)  # in vain is nothing written
        scratch = self._write(value)
        try:
            with self._lock():
                self._check(name, expected)
                path.parent.mkdir(parents=True, exist_ok=True)
                scratch.rename(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        return Ref.of(value)

    def _check(self, name: str, expected: str | None) -> None:
        current = self.get(name)
        if (current.version if current else None) != expected:
            raise moved(name)

    def _write(self, value: bytes) -> Path:
        """Write a value to the disk, outside the lock: it takes long, and many may wait for it together."""
        folder = self.root / ".writing"
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / secrets.token_hex(8)
        with scratch.open("wb") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        return scratch

    def delete(self, name: str) -> None:
        """Forget the ref."""
        with self._lock():
            (self.root / check_ref_name(name)).unlink(missing_ok=True)

    def names(self, prefix: str) -> Iterator[str]:
        """Iterate over the names below a prefix."""
        top = self.root / check_ref_name(prefix)
        for directory, directories, files in os.walk(top):
            directories.sort()
            below = Path(directory).relative_to(self.root)
            yield from (f"{below}/{file}" for file in sorted(files))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def open_file_store(root: Path) -> Store:
    """Return the store in the directory `root`, made (mode 0700) if it is new."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(root.as_uri(), FileObjects(root / "objects"), FileRefs(root / "refs"))
    if store.refs.get(INSTANCE) is None:
        store.refs.create(INSTANCE, secrets.token_hex(16).encode())
    return store
