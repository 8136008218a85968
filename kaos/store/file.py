"""A store in a directory: ``objects/ab/<digest>``, read-only, and ``refs/<name>``, changed under a lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from kaos.store.base import CHUNK, Objects, Ref, Refs, Store, absent, check_ref_name, corrupt, moved

_SMALL = 8 * CHUNK

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
        found, size = self._add(chunks, digest)
        if found != digest:
            raise corrupt(digest, found)
        return size

    def add(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Store what `chunks` yield, and return the digest it turns out to have and its size in bytes."""
        return self._add(chunks, None)

    def _add(self, chunks: Iterable[bytes], expected: str | None) -> tuple[str, int]:
        size = 0
        scratch, descriptor = self._create()
        try:
            try:
                with _Hasher() as hasher:
                    for chunk in chunks:
                        hasher.update(chunk)
                        size += _write(descriptor, chunk)
                    digest = hasher.hexdigest()
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
        scratch, flags = f"{self._scratch}/{os.urandom(16).hex()}", os.O_WRONLY | os.O_CREAT | os.O_EXCL
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
            with self.path(digest).open("rb", buffering=0) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
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
            os.link(self.path(digest), destination)
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


def _write(descriptor: int, chunk: bytes) -> int:
    written = os.write(descriptor, chunk)
    while written < len(chunk):  # a disk that fills up takes a part before it refuses
        written += os.write(descriptor, chunk[written:])
    return written


class _Hasher:
    """SHA-256 of chunks; large ones are hashed in a thread of its own while the caller reads and writes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def update(self, chunk: bytes) -> None:
        """Take the next chunk, one ahead of the hashing at most."""
        if len(chunk) < CHUNK:
            self._wait()
            self._hash.update(chunk)
            return
        self._thread = self._thread or ThreadPoolExecutor(max_workers=1)
        self._wait()
        self._pending = self._thread.submit(self._hash.update, chunk)

    def hexdigest(self) -> str:
        """Return the digest of all that came."""
        self._wait()
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None


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
        with self._lock():
            current = self.get(name)
            if (current.version if current else None) != expected:
                raise moved(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = self.root / ".new"
            with scratch.open("wb") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(path)
        return Ref.of(value)

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
