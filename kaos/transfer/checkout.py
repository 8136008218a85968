"""From a tree in a store back to a directory, every file verified on its way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kaos.bundle import EmptyDirectory, File, Link, Tree
from kaos.errors import InvalidBundleError
from kaos.store import Objects
from kaos.store.base import naming
from kaos.transfer.scan import Progress, scan, walk_exactly
from kaos.transfer.statcache import StatCache

_BATCH = 64


def make_directories(tree: Tree, destination: Path) -> None:
    """Make `destination`, which must be new, and the directories of `tree` in it."""
    destination.mkdir(parents=True)
    parents = {entry.path.rpartition("/")[0] for entry in tree.entries if "/" in entry.path}
    parents |= {entry.path for entry in tree.entries if isinstance(entry, EmptyDirectory)}
    for directory in sorted(parents):
        (destination / directory).mkdir(parents=True, exist_ok=True)


def make_links(tree: Tree, destination: Path) -> None:
    """Make the symbolic links of `tree` below `destination`."""
    for entry in tree.entries:
        if isinstance(entry, Link):
            (destination / entry.path).symlink_to(entry.target)


def checkout(
    objects: Objects, tree: Tree, destination: Path, *, writable: bool, progress: Progress = lambda _: None
) -> None:
    """Write `tree` to the new directory `destination`, whole or not at all.

    :param writable: the files are the caller's to change; else they may be shared with the store
    :raises CorruptObjectError: an object is missing or damaged; names the file
    """
    scratch = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}")
    files = list(tree.files)

    def place(batch: list[File]) -> None:
        for file in batch:
            with naming(file.path):
                objects.place(file.digest, scratch / file.path, executable=file.executable, writable=writable)
            progress(file.size)

    try:
        make_directories(tree, scratch)
        if len(files) <= _BATCH:  # threads would take longer to start
            place(files)
        else:
            with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
                for _ in pool.map(place, [files[i : i + _BATCH] for i in range(0, len(files), _BATCH)]):
                    pass
        make_links(tree, scratch)
        scratch.rename(destination)
    finally:
        if scratch.exists():
            shutil.rmtree(scratch)


class SharedCheckouts:
    """Read-only checkouts by digest, shared by all runs on a machine.

    Before each use the directory is compared with its tree. The stat cache makes that cheap; a file that
    anything touched since is read again, so that a script which writes into its data is found out by the next
    run.

    :param directory: holds a directory per tree, and the stat caches
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, objects: Objects, tree: Tree) -> Path:
        """Return the directory with the content of `tree`, made if it is not there.

        :raises CorruptObjectError: an object is missing or damaged, or the checkout was changed; names the
            file
        """
        destination = self._directory / tree.digest
        with self._lock(tree.digest):
            if destination.exists():
                self._compare(objects, tree, destination)
            else:
                checkout(objects, tree, destination, writable=False)
        return destination

    def remove(self, digest: str, *, unless: Callable[[str], bool], measure: Callable[[Path], int]) -> int:
        """Remove a checkout that nobody needs, and return how much that was; 0 if somebody does after all.

        :param unless: asked while nobody can take the checkout: tells whether a job has come that will
        :param measure: returns the size of a directory
        """
        destination = self._directory / digest
        with self._lock(digest):
            if unless(digest) or not destination.exists():
                return 0
            size = measure(destination)
            gone = destination.with_name(f".gone.{secrets.token_hex(4)}")
            destination.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        StatCache.of(destination, self._directory / "stat").remove()
        return size

    def _compare(self, objects: Objects, tree: Tree, destination: Path) -> None:
        cache = StatCache.of(destination, self._directory / "stat")
        try:
            found = scan(walk_exactly(destination), cache).tree
        except InvalidBundleError:
            found = None
        if found is not None and found.digest == tree.digest:
            return
        # Throw the changed checkout away. Where its files share their bytes with the store, making it anew
        # verifies those, and says which file is damaged.
        shutil.rmtree(destination)
        checkout(objects, tree, destination, writable=False)

    @contextlib.contextmanager
    def _lock(self, digest: str) -> Iterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / f".{digest}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
