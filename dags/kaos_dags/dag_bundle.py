"""Hand the generated DAG files to Airflow as a DAG bundle whose versions are digests."""

from __future__ import annotations

import logging
import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion

from kaos.bundle import Tree
from kaos.digest import digest_bytes
from kaos.errors import ConflictError
from kaos.store import Store
from kaos.transfer.checkout import checkout
from kaos_dags.publish import head
from kaos_operators.hook import configured_store

log = logging.getLogger(__name__)

_CURRENT = ".version"


class PublishedFile(NamedTuple):
    """A DAG file as it was published last.

    :param version: of the bundle, a digest
    :param path: a file with this source
    """

    version: str
    path: Path
    source: bytes


class KaosDagBundle(BaseDagBundle):
    """The DAG files of all workspaces, from the store.

    What follows the newest version is one constant folder in which only changed files are written, so that
    one change does not let Airflow parse a thousand DAGs again. A run stays pinned to the version it started
    on: that folder is made from the store by its digest alone, on any worker.
    """

    supports_versioning = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @cached_property
    def _store(self) -> Store:
        return configured_store()

    @property
    def _tracking(self) -> Path:
        return self.base_dir / "tracking"

    @property
    def path(self) -> Path:
        """Return the folder of the pinned version, or the one that follows the newest."""
        return self.versions_dir / self.version if self.version else self._tracking

    def initialize(self) -> None:
        """Make the folder of this version."""
        if self.version is None:
            self.refresh()
        elif not self.path.exists():
            with self.lock():
                if not self.path.exists():
                    tree = Tree.decode(self._store.objects.get(self.version))
                    self.versions_dir.mkdir(parents=True, exist_ok=True)
                    checkout(self._store.objects, tree, self.path, writable=True)
        super().initialize()

    def get_current_version(self) -> BundleVersion:
        """Return the pinned version, or that of the folder as it was last refreshed."""
        if self.version:
            return BundleVersion(self.version)
        try:
            return BundleVersion((self._tracking / _CURRENT).read_text())
        except FileNotFoundError:
            return BundleVersion(head(self._store).digest)

    def newest(self, name: str) -> PublishedFile:
        """Return a file for one who writes its DAG into the database without waiting for the DAG processor.

        It is in a folder of its own: what the DAG processor reads it writes down under the version to which
        it brought the tracking folder itself, and a run that is pinned to another one lacks tasks.

        :raises ConflictError: the file is not published any more
        """
        folder = self.base_dir / "published"
        with self.lock():
            tree = follow(self._store, folder)
        file = tree.file(name)
        if file is None:
            raise ConflictError(
                f"The DAG {name.removesuffix('.py')} was removed by another request.", "Try again."
            )
        return PublishedFile(tree.digest, folder / name, self._store.objects.get(file.digest))

    def refresh(self) -> None:
        """Bring the tracking folder to the newest version; files that are the same are not touched."""
        with self.lock():
            follow(self._store, self._tracking)


def follow(store: Store, folder: Path) -> Tree:
    """Write what differs from the newest tree of DAG files into `folder`, and return that tree."""
    tree = head(store)
    current = folder / _CURRENT
    if current.is_file() and current.read_text() == tree.digest:
        return tree
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {file.path: file for file in tree.files}
    for path in folder.glob("*.py"):
        if path.name not in wanted:
            path.unlink()
    for name, file in wanted.items():
        path = folder / name
        if not path.is_file() or digest_bytes(path.read_bytes()) != file.digest:
            scratch = folder / f".{name}"
            scratch.write_bytes(store.objects.get(file.digest))
            _date_after(scratch, path)
            scratch.replace(path)
    scratch = folder / ".version.new"
    scratch.write_text(tree.digest)
    scratch.replace(current)
    log.info("The DAG folder follows version %s", tree.digest[:12])
    return tree


def _date_after(new: Path, old: Path) -> None:
    """Date a file a second after the one it replaces: Python tells bytecode that is out of date by the second
    of its source and by its size, and `-p 2` makes the same size as `-p 4`.
    """
    if old.is_file():
        date = max(new.stat().st_mtime, old.stat().st_mtime + 1)
        os.utime(new, (date, date))
