"""Clean a worker's directory of what no job and no endpoint needs: all of it can be made again.

``trees/`` has checkouts, ``environments/`` virtual environments, ``runs/`` and ``checkpoints/`` what jobs
left, ``uploads/`` parts of files that nobody went on with. Images of containers are in the engine's storage.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from kaos.digest import is_digest
from kaos.errors import ContainerEngineError
from kaos.runtime.container.leftovers import Leftovers
from kaos.runtime.exclusive import locked
from kaos.schema.retention import Amount, Cleaned
from kaos.transfer.checkout import SharedCheckouts

_UPLOADS = timedelta(days=7)


@dataclass(frozen=True)
class Needs:
    """What has to stay on a machine.

    :param tree: tells of a tree, asked at the last moment, whether its checkout has to stay
    :param job: tells of a job, asked at the last moment, whether its directories have to stay
    :param builds: digests of environments, and ids of images, that stay
    :param busy: tells whether a job may be about to use any of them: then all stay
    """

    tree: Callable[[str], bool]
    job: Callable[[str], bool]
    builds: Container[str]
    busy: Callable[[], bool]


def clean(work: Path, needs: Needs, *, dry_run: bool) -> list[Cleaned]:
    """Remove what is not needed, and return what that was, each file counted once.

    One collection at a time: another one would take what this one has moved aside for left behind.
    """
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(work / "cleaning.lock"):
        return [
            _cleaned("checkouts", _checkouts(work / "trees", needs, dry_run)),
            _cleaned("environments", _environments(work / "environments" / "environments", needs, dry_run)),
            _cleaned("runs", _of_jobs(work, needs, dry_run)),
            _cleaned("uploads", _uploads(work / "uploads", dry_run)),
        ]


def clean_images(images: Leftovers, needs: Needs, *, dry_run: bool) -> tuple[Cleaned, list[str]]:
    """Remove images that are not needed; return what that was, and in words what kept others from going."""
    sizes, problems = [], []
    try:
        for size in images.clean(needs.builds, needs.busy, dry_run=dry_run):
            sizes.append(size)  # what went before the engine failed did go
    except ContainerEngineError as error:
        problems.append(f"Not all images could be looked at: {error.message}")
    return Cleaned(what="images", amount=Amount(objects=len(sizes), bytes=sum(sizes))), problems


def disk_usage(*roots: Path) -> int:
    """Return the bytes that directories take on the disk, each file once however many links it has."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for root in roots:
        for status in _stats(root):
            key = (status.st_dev, status.st_ino)
            if status.st_nlink == 1 or key not in seen:
                seen.add(key)
                total += status.st_blocks * 512
    return total


def _checkouts(trees: Path, needs: Needs, dry_run: bool) -> Iterator[int]:
    for directory in _directories(trees):
        if not is_digest(directory.name) or needs.tree(directory.name):
            continue
        if dry_run:
            yield disk_usage(directory)
        else:
            yield SharedCheckouts(trees).remove(directory.name, unless=needs.tree, measure=disk_usage)


def _environments(environments: Path, needs: Needs, dry_run: bool) -> Iterator[int]:
    for directory in _directories(environments):
        if is_digest(directory.name) and directory.name not in needs.builds and not needs.busy():
            # A job that began right now has not come to its environment yet.
            yield _remove(directory, dry_run, unless=needs.busy)


def _of_jobs(work: Path, needs: Needs, dry_run: bool) -> Iterator[int]:
    for name in ("runs", "checkpoints"):
        for directory in _directories(work / name):
            if not needs.job(directory.name):
                yield _remove(directory, dry_run)


def _uploads(uploads: Path, dry_run: bool) -> Iterator[int]:
    old = time.time() - _UPLOADS.total_seconds()
    for path in uploads.glob("*") if uploads.is_dir() else ():
        try:
            found = path.stat()
        except FileNotFoundError:  # whoever sent it has ended it
            continue
        if found.st_mtime < old:
            if not dry_run:
                path.unlink(missing_ok=True)
            yield found.st_blocks * 512


def _remove(directory: Path, dry_run: bool, unless: Callable[[], bool] = lambda: False) -> int:
    """Move a directory out of the way and remove it there, so that nobody finds half of it.

    :param unless: asked when it was moved; it goes back if that says so
    """
    size = disk_usage(directory)
    if not dry_run:
        gone = directory.with_name(f".gone.{secrets.token_hex(4)}")
        try:
            directory.rename(gone)
        except FileNotFoundError:  # its job has removed it
            return 0
        if unless():
            gone.rename(directory)
            return 0
        shutil.rmtree(gone, ignore_errors=True)
    return size


def _directories(root: Path) -> list[Path]:
    """Return the directories below one; what was left half removed is removed on the way."""
    found = []
    for path in sorted(root.glob("*")) if root.is_dir() else ():
        if path.name.startswith(".gone."):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir() and not path.is_symlink():
            found.append(path)
    return found


def _stats(root: Path) -> Iterator[os.stat_result]:
    for directory, _, files in os.walk(root):
        for name in files:
            try:
                yield os.lstat(f"{directory}/{name}")
            except FileNotFoundError:
                continue


def _cleaned(what: str, sizes: Iterator[int]) -> Cleaned:
    found = [size for size in sizes if size]  # empty directories go unmentioned
    return Cleaned(what=what, amount=Amount(objects=len(found), bytes=sum(found)))
