"""Bring the files of a scanned directory to where they are missing, and only those."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kaos.bundle import Tree
from kaos.errors import CorruptObjectError, InvalidBundleError
from kaos.store import FileObjects, Objects
from kaos.store.base import CHUNK
from kaos.transfer.scan import Progress, Scan, Walk, scan, walk_exactly

_BATCH = 64


@dataclass(frozen=True)
class LocalFile:
    """A file to send: where it is, its digest, its size in bytes."""

    path: Path
    digest: str
    size: int

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the file's bytes from `offset` on, exactly as many as its size says.

        :raises InvalidBundleError: the file has become shorter, or went
        """
        left = self.size - offset
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                while left:
                    chunk = file.read(min(CHUNK, left))
                    if not chunk:
                        raise changed(self.path)
                    left -= len(chunk)
                    yield chunk
        except FileNotFoundError:
            raise changed(self.path) from None


class Target(ABC):
    """Where files can be brought."""

    @abstractmethod
    def missing(self, objects: Mapping[str, int]) -> list[str]:
        """Return the digests of those objects (size in bytes by digest) that are not there."""

    @abstractmethod
    def send(self, files: list[LocalFile], progress: Progress) -> None:
        """Bring the files there, each whole or not at all.

        :raises InvalidBundleError: a file changed since it was hashed
        """


class DirectTarget(Target):
    """A store on this machine that this user may write to."""

    def __init__(self, objects: FileObjects) -> None:
        self._objects = objects

    def missing(self, objects: Mapping[str, int]) -> list[str]:
        """Return what the store lacks."""
        return self._objects.missing(objects)

    def digester(self, path: Path) -> str:
        """Store a file while it is read, and return its digest."""
        return self._objects.add(path)

    def send(self, files: list[LocalFile], progress: Progress) -> None:
        """Copy the files into the store, several at a time."""

        def store(batch: list[LocalFile]) -> None:
            for file in batch:
                try:
                    self._objects.write(file.digest, file.chunks())
                except CorruptObjectError:
                    raise changed(file.path) from None
                progress(file.size)

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for _ in pool.map(store, [files[i : i + _BATCH] for i in range(0, len(files), _BATCH)]):
                pass


def push(scanned: Scan, target: Target, progress: Progress = lambda _: None) -> int:
    """Bring what `target` lacks of a scanned directory there, and return how many bytes that were.

    :raises InvalidBundleError: a file changed since it was hashed
    """
    missing = set(target.missing(scanned.tree.objects))
    files: dict[str, LocalFile] = {}
    for file in scanned.tree.files:
        if file.digest in missing:
            files[file.digest] = LocalFile(scanned.root / file.path, file.digest, file.size)
    target.send(list(files.values()), progress)
    return sum(file.size for file in files.values())


def store_directory(directory: Path, objects: Objects) -> Tree:
    """Bring everything below `directory` into the store and return its tree, which is stored too.

    :raises InvalidBundleError: something is there that no tree can hold, such as a socket or a link that
        leaves it
    """
    return store_walk(walk_exactly(directory), objects)


def store_walk(walked: Walk, objects: Objects) -> Tree:
    """Bring the files of a walk into the store and return its tree, which is stored too.

    :raises InvalidBundleError: a link that leaves the directory, or a file that changed meanwhile
    """
    if isinstance(objects, FileObjects):
        tree = scan(walked, digester=DirectTarget(objects).digester).tree
    else:
        tree = scan(walked).tree
        for file in tree.files:
            if objects.size(file.digest) != file.size:
                objects.write(
                    file.digest, LocalFile(walked.root / file.path, file.digest, file.size).chunks()
                )
    objects.put(tree.encoded)
    return tree


def changed(path: Path) -> InvalidBundleError:
    """Return the error for a file that is not what it was when it was hashed."""
    return InvalidBundleError(
        f"{path} changed while it was sent.", "Deploy again when nothing writes there any more."
    )
