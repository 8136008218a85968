"""From a directory to its canonical tree: a walk that refuses what cannot be kept, then parallel hashing."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kaos.bundle import EmptyDirectory, Entry, File, Link, Tree
from kaos.errors import InvalidBundleError
from kaos.names import bundle_name
from kaos.store.file import digest_file
from kaos.transfer.ignore import IGNORE_FILE, Ignored, ignored_below
from kaos.transfer.statcache import StatCache

_BATCH = 64

Digester = Callable[[Path], str]
"""Return the SHA-256 of a file; may store it on the way."""

Progress = Callable[[int], None]
"""Be told how many bytes more are done."""


class Found(NamedTuple):
    """A regular file that the walk found and that still has to be hashed."""

    path: str
    stat: os.stat_result


@dataclass
class Walk:
    """What is below a directory, before anything was read.

    :param root: the bundle's own directory, one level down where the given one has a single sub-directory
    """

    root: Path
    files: list[Found] = field(default_factory=list)
    others: list[Entry] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Return the sum of the files' sizes, in bytes."""
        return sum(found.stat.st_size for found in self.files)

    @property
    def outline(self) -> Tree:
        """Return the tree with digests still to come, for what can be refused before anything is read.

        :raises InvalidBundleError: a link leaves the directory
        """
        files = [File(found.path, found.stat.st_size, "0" * 64) for found in self.files]
        return Tree.of([*files, *self.others])


@dataclass(frozen=True)
class Scan:
    """A directory as a bundle: its name, its tree, and what its owner should know."""

    root: Path
    name: str
    tree: Tree
    warnings: tuple[str, ...]


def bundle_root(directory: Path) -> Path:
    """Return the bundle's directory: the single sub-directory of `directory`, or itself where there is more.

    :raises InvalidBundleError: there is no such directory, or it cannot be read
    """
    if not directory.is_dir():
        reason = "is no directory" if directory.exists() else "does not exist"
        raise InvalidBundleError(f"{directory} {reason}.", "Name the directory of the bundle.")
    ignored = ignored_below(directory)
    try:
        with os.scandir(directory) as listing:
            entries = [
                entry
                for entry in listing
                if entry.name != IGNORE_FILE and not ignored(entry.name, entry.is_dir(follow_symlinks=False))
            ]
    except PermissionError:
        raise InvalidBundleError(f"{directory} cannot be read.", "Check its permissions.") from None
    if len(entries) == 1 and entries[0].is_dir(follow_symlinks=False):
        return directory / entries[0].name
    return directory


def walk(directory: Path) -> Walk:
    """List what belongs to the bundle in `directory`, and refuse at once what cannot be kept.

    :raises InvalidBundleError: all the devices, sockets, unreadable files and names that are not UTF-8
    """
    root = bundle_root(directory)
    result = Walk(root)
    problems: list[str] = []
    outer = ignored_below(directory, defaults=()) if root != directory else None
    inner = ignored_below(root)

    def ignored(path: str, is_directory: bool) -> bool:
        return inner(path, is_directory) or (outer is not None and outer(f"{root.name}/{path}", is_directory))

    for entry in _entries(root, "", ignored, problems):
        if isinstance(entry, Found):
            result.files.append(entry)
        else:
            result.others.append(entry)
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise InvalidBundleError(
            f"{directory} cannot be a bundle:\n{shown}{more}",
            f"Remove these, or list them in {root / IGNORE_FILE} (gitignore syntax).",
        )
    return result


def walk_exactly(root: Path) -> Walk:
    """List everything below `root` itself, nothing ignored: for directories that kaos wrote.

    :raises InvalidBundleError: something is there that no tree can hold
    """
    problems: list[str] = []
    result = Walk(root)
    for entry in _entries(root, "", lambda _, __: False, problems):
        if isinstance(entry, Found):
            result.files.append(entry)
        else:
            result.others.append(entry)
    if problems:
        raise InvalidBundleError(f"{root} cannot be kept: {'; '.join(problems)}.")
    return result


def _entries(root: Path, below: str, ignored: Ignored, problems: list[str]) -> Iterator[Found | Entry]:
    try:
        with os.scandir(root / below) as listing:
            children = sorted(listing, key=lambda child: child.name)
    except PermissionError:
        problems.append(f"{below}: this directory cannot be read")
        return
    empty = True
    for child in children:
        path = f"{below}/{child.name}" if below else child.name
        is_directory = child.is_dir(follow_symlinks=False)
        if ignored(path, is_directory):
            continue
        empty = False
        try:
            path.encode()
        except UnicodeEncodeError:
            problems.append(f"{os.fsencode(path)!r}: the name is not UTF-8")
            continue
        if is_directory:
            yield from _entries(root, path, ignored, problems)
        elif child.is_symlink():
            yield Link(path, os.readlink(child.path))  # noqa: PTH115 (the target as it is written)
        else:
            stat = child.stat(follow_symlinks=False)
            if not modes.S_ISREG(stat.st_mode):
                problems.append(f"{path}: {_kind(stat.st_mode)}, not a file")
            elif stat.st_mode & 0o444 != 0o444 and not os.access(child.path, os.R_OK):
                problems.append(f"{path}: this file cannot be read")
            else:
                yield Found(path, stat)
    if empty and below:
        yield EmptyDirectory(below)


def _kind(mode: int) -> str:
    if modes.S_ISSOCK(mode):
        return "a socket"
    if modes.S_ISFIFO(mode):
        return "a named pipe"
    return "a device"


def scan(
    walked: Walk,
    cache: StatCache | None = None,
    digester: Digester | None = None,
    progress: Progress = lambda _: None,
) -> Scan:
    """Hash the files of a walk, several at a time, and return the bundle.

    :param cache: spares the reading of files that did not change; saved at the end
    :param digester: reads a file and returns its digest; may store it on the way
    :raises InvalidBundleError: links that leave the bundle; files that changed or went while they were read
    """
    if walked.others:  # links first: whether they stay inside is known before anything is read
        _ = walked.outline
    read = digester or digest_file
    entries: list[Entry] = list(walked.others)
    to_read: list[Found] = []
    known = 0
    for found in walked.files:
        digest = cache.digest(found.path, found.stat) if cache else None
        if digest is None:
            to_read.append(found)
        else:
            entries.append(_file(found, digest))
            known += found.stat.st_size
    progress(known)

    def read_batch(batch: list[Found]) -> list[str]:
        digests = []
        for found in batch:
            digests.append(_read_unchanged(walked.root, found, read))
            progress(found.stat.st_size)
        return digests

    batches = [to_read[start : start + _BATCH] for start in range(0, len(to_read), _BATCH)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for batch, digests in zip(batches, pool.map(read_batch, batches), strict=True):
            for found, digest in zip(batch, digests, strict=True):
                entries.append(_file(found, digest))
                if cache:
                    cache.remember(found.path, found.stat, digest)
    if cache:
        cache.save()
    tree = Tree.of(entries)
    warnings = tuple(
        f"{one!r} and {two!r} are the same name on a case-insensitive disk"
        for one, two in tree.case_collisions()
    )
    return Scan(walked.root, bundle_name(walked.root.resolve()), tree, warnings)


def _read_unchanged(root: Path, found: Found, read: Digester) -> str:
    path = root / found.path
    try:
        digest = read(path)
        after = path.lstat()
    except FileNotFoundError:
        raise _unsteady(found) from None
    before = found.stat
    if (after.st_size, after.st_mtime_ns, after.st_ino) != (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    ):
        raise _unsteady(found)
    return digest


def _unsteady(found: Found) -> InvalidBundleError:
    return InvalidBundleError(
        f"{found.path!r} changed while it was read.", "Deploy again when nothing writes there any more."
    )


def _file(found: Found, digest: str) -> File:
    return File(found.path, found.stat.st_size, digest, bool(found.stat.st_mode & 0o100))
