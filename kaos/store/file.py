"""A store in a directory: ``objects/ab/<digest>``, read-only, and ``refs/<name>``, changed under a lock.

What a collection has set aside is in ``objects/condemned/<batch>/<digest>``: moving it there and back is a
rename, so that it is in one place or in the other whenever anybody is killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from kaos.store.base import (
    CHUNK,
    INSTANCE,
    Condemned,
    Objects,
    Ref,
    Refs,
    Store,
    Stored,
    Uses,
    absent,
    check_ref_name,
    corrupt,
    moved,
)

T = TypeVar("T")

_SMALL = 8 * CHUNK
_LARGE = 8 * CHUNK
_PART = 8 * CHUNK
_DOCUMENT = 1 << 16
_ATTEMPTS = 5
_POLL = 0.01


class FileObjects(Objects):
    """Objects as files below a directory, each written beside its place and then moved there whole.

    :param root: the directory; made when the first object is written
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._scratch = root / "tmp"
        self._aside = f"{root}/condemned"

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
            return self._use(digest, _size)
        except FileNotFoundError:
            return None

    def missing(self, objects: Mapping[str, int]) -> list[str]:
        """Return those of the objects that are not here whole."""
        lacking = []
        for digest, size in objects.items():
            try:
                found: int | None = _size(f"{self.root}/{digest[:2]}/{digest}")
            except FileNotFoundError:
                found = None
            if found != size:
                lacking.append(digest)
        # Looked for among what was set aside only if there is any: most objects of a new bundle are nowhere.
        return (
            [digest for digest in lacking if self.size(digest) != objects[digest]]
            if self._batches()
            else lacking
        )

    def _use(self, digest: str, use: Callable[[str], T]) -> T:
        """Return what `use` makes of the object's path; an object that was set aside is brought back.

        :raises FileNotFoundError: it is not here
        """
        path = f"{self.root}/{digest[:2]}/{digest}"
        for _ in range(_ATTEMPTS):
            try:
                return use(path)
            except FileNotFoundError:
                if not self.restore(digest):
                    break
        return use(path)  # somebody else may have brought it back meanwhile

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
            file = self._use(digest, lambda path: open(path, "rb", buffering=0))  # noqa: PTH123, SIM115
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

    def get(self, digest: str) -> bytes:
        """Return a whole object, verified."""
        try:
            content = self._use(digest, _content)
        except FileNotFoundError:
            raise absent(digest) from None
        self._check(digest, hashlib.sha256(content).hexdigest())
        return content

    def verify(self, digest: str) -> None:
        """Read the whole object.

        :raises CorruptObjectError: it is not there, or its bytes are not those of its digest
        """
        try:
            found = self._use(digest, digest_file)
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
            self._use(digest, lambda path: os.link(path, destination))
        except FileNotFoundError:
            raise absent(digest) from None
        except OSError:  # another file system, or one without hard links, or an object with 65,000 of them
            super().place(digest, destination)

    def stored(self) -> Iterator[Stored]:
        """Iterate over the objects, by directory."""
        if not self.root.is_dir():
            return
        for directory in sorted(self.root.iterdir()):
            if len(directory.name) == 2:
                yield from (
                    Stored(name, status.st_size, status.st_mtime, _copy_of(status))
                    for name, status in _files(str(directory))
                )

    def condemn(self, found: Stored, batch: str) -> bool:
        """Set the object aside, unless it was written again since it was found."""
        path, folder = f"{self.root}/{found.digest[:2]}/{found.digest}", f"{self._aside}/{batch}"
        try:
            if _copy_of(os.stat(path)) != found.copy:  # noqa: PTH116
                return False
            # One that is written right now goes aside in its place: it comes back when it is used.
            _rename(path, f"{folder}/{found.digest}")
        except FileNotFoundError:
            return False
        return True

    def condemned(self) -> Iterator[Condemned]:
        """Iterate over what was set aside, by set."""
        for batch in self._batches():
            folder = f"{self._aside}/{batch}"
            found = _files(folder)
            try:
                since = os.stat(folder).st_mtime  # noqa: PTH116 (the last time that one came or went)
            except FileNotFoundError:
                continue
            yield from (Condemned(name, status.st_size, batch, since) for name, status in found)

    def restore(self, digest: str) -> bool:
        """Bring an object back: a rename, which a `discard` of the same can win or lose."""
        for batch in self._batches():
            try:
                _rename(f"{self._aside}/{batch}/{digest}", f"{self.root}/{digest[:2]}/{digest}")
            except FileNotFoundError:
                continue
            return True
        return False

    def discard(self, found: Condemned) -> bool:
        """Remove what was set aside, and its set when that is empty."""
        folder = f"{self._aside}/{found.batch}"
        try:
            os.unlink(f"{folder}/{found.digest}")  # noqa: PTH108
        except FileNotFoundError:
            return False
        return True

    def sweep_scratch(self, before: float) -> int:
        """Remove what writers that were killed left, written before this time; return how many bytes.

        Sets that are empty go too.
        """
        freed = 0
        for name, status in _files(str(self._scratch)):
            if status.st_mtime < before:
                (self._scratch / name).unlink(missing_ok=True)
                freed += status.st_size
        for batch in self._batches():
            with contextlib.suppress(OSError):  # not empty, or gone
                os.rmdir(f"{self._aside}/{batch}")  # noqa: PTH106
        return freed

    def _batches(self) -> list[str]:
        try:
            return os.listdir(self._aside)  # noqa: PTH208
        except FileNotFoundError:
            return []


def _content(path: str) -> bytes:
    """Return the content of a file that is most likely small: a question about lineage reads 20,000."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, _DOCUMENT):
            chunks.append(chunk)
    finally:
        os.close(descriptor)
    return b"".join(chunks)


def _size(path: str) -> int:
    return os.stat(path).st_size  # noqa: PTH116 (10,000 a deploy)


def _copy_of(status: os.stat_result) -> str:
    return f"{status.st_ino}.{status.st_mtime_ns}"


def _files(folder: str) -> list[tuple[str, os.stat_result]]:
    """Return the files of a folder with their stat; those that go meanwhile are left out."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    return found


def _rename(source: str, target: str) -> None:
    """Move a file, into a folder that is made if it is not there.

    :raises FileNotFoundError: there is no such file
    """
    try:
        os.rename(source, target)  # noqa: PTH104
    except FileNotFoundError:
        if not os.path.exists(source):  # noqa: PTH110
            raise
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        os.rename(source, target)  # noqa: PTH104


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


_NO_REF = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
"""What the kernel says of a name under which nothing was ever written."""


class FileRefs(Refs):
    """Refs as files below a directory; one lock serialises the changes, reading needs none.

    :param root: the directory; made when the first ref is written
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, name: str) -> Ref | None:
        """Return the ref, or None."""
        try:
            return Ref.of(_content(f"{self.root}/{check_ref_name(name)}"))
        except OSError as error:
            if error.errno in _NO_REF:
                return None
            raise

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
        return _names(f"{self.root}/{check_ref_name(prefix)}" if prefix else str(self.root), prefix)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class FileUses(Uses):
    """Blocks as shared locks on the file of a generation, which end with their process whatever ends that.

    A collection begins a new generation, and waits for the files of all others. Nobody waits for a
    collection.

    :param root: the directory of the lock files; made when it is needed
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep what is found inside the block."""
        while True:
            path = self.root / f"{self._current()}.lock"
            try:
                file = path.open("a")
            except FileNotFoundError:
                self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
                continue
            with file:
                fcntl.flock(file, fcntl.LOCK_SH)
                if not _is_at(file.fileno(), path):  # a collection has removed it: nobody would wait for us
                    continue
                yield
                return

    def settle(self, seconds: float) -> bool:
        """Wait until all blocks that had begun are left."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        scratch = self.root / f"current.{own}"
        scratch.write_text(own)
        scratch.rename(self.root / "current")
        deadline = time.monotonic() + seconds
        others = [path for path in self.root.glob("*.lock") if path.stem != own]
        return all([_leave(path, deadline) for path in others])

    def _current(self) -> str:
        try:
            return (self.root / "current").read_text()
        except FileNotFoundError:
            return "0"


def _leave(path: Path, deadline: float) -> bool:
    """Wait until nobody has a lock on a file, and remove it."""
    try:
        with path.open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(_POLL)
                    continue
                if _is_at(file.fileno(), path):
                    path.unlink(missing_ok=True)
                return True
    except FileNotFoundError:  # another collection did it
        return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _names(directory: str, prefix: str) -> Iterator[str]:
    """Iterate over the files below a directory: first its own, then those of its directories, each sorted.

    Strings, not paths: the models of a workspace are 10,000 directories.
    """
    files: list[str] = []
    directories: list[str] = []
    try:
        with os.scandir(directory) as found:
            for entry in found:
                name = entry.name
                if not name.startswith("."):
                    (directories if entry.is_dir(follow_symlinks=False) else files).append(name)
    except OSError as error:
        if error.errno in _NO_REF:
            return
        raise
    start = f"{prefix}/" if prefix else ""
    for name in sorted(files):
        yield start + name
    for name in sorted(directories):
        yield from _names(f"{directory}/{name}", start + name)


def open_file_store(root: Path) -> Store:
    """Return the store in the directory `root`, made (mode 0700) if it is new."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(
        root.as_uri(), FileObjects(root / "objects"), FileRefs(root / "refs"), FileUses(root / "uses")
    )
    if store.refs.get(INSTANCE) is None:
        store.refs.create(INSTANCE, secrets.token_hex(16).encode())
    return store
