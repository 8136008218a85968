"""The folder of generated DAG files, kept in the store: a tree, and the refs that name its versions.

The refs::

    dags/head               digest of the newest tree
    dags/versions/<digest>  when a tree was published; there while a run of Airflow is pinned to it
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from kaos.bundle import File, Tree
from kaos.errors import CorruptObjectError
from kaos.store import Store, change_ref

HEAD = "dags/head"
_VERSIONS = "dags/versions"
_RECENT = timedelta(days=1)


def head(store: Store) -> Tree:
    """Return the newest tree of DAG files; empty before the first one."""
    ref = store.refs.get(HEAD)
    return Tree.decode(store.objects.get(ref.value.decode())) if ref else Tree.of([])


def holds(store: Store, version: str, file: File) -> bool:
    """Tell whether a version has this very file; no, if the version is not kept."""
    try:
        return Tree.decode(store.objects.get(version)).file(file.path) == file
    except CorruptObjectError:
        return False


def publish(store: Store, changes: Mapping[str, str | None]) -> Tree:
    """Put files (source by name; None removes one) into the folder, in one step, and return the new tree.

    :raises ConflictError: too many change it at once
    """
    with store.uses.hold():
        return _publish(store, changes)


def _publish(store: Store, changes: Mapping[str, str | None]) -> Tree:
    def changed(value: bytes | None) -> bytes:
        before = Tree.decode(store.objects.get(value.decode())) if value is not None else Tree.of([])
        files = {file.path: file for file in before.files}
        for name, source in changes.items():
            if source is None:
                files.pop(name, None)
            else:
                content = source.encode()
                files[name] = File(name, len(content), store.objects.put(content))
        tree = Tree.of(files.values())
        store.objects.put(tree.encoded)
        store.refs.create(f"{_VERSIONS}/{tree.digest}", datetime.now(UTC).isoformat().encode())
        return tree.digest.encode()

    return Tree.decode(store.objects.get(change_ref(store.refs, HEAD, changed, "The DAG folder").decode()))


def keep_versions(store: Store, pinned: set[str]) -> None:
    """Keep the trees that runs of Airflow are pinned to, and recent ones; forget the others.

    :param pinned: digests of those trees
    """
    for digest in pinned:
        store.refs.create(f"{_VERSIONS}/{digest}", datetime.now(UTC).isoformat().encode())
    newest = head(store).digest
    for name in list(store.refs.names(_VERSIONS)):
        ref = store.refs.get(name)
        if ref is None or name.rpartition("/")[2] in pinned | {newest}:
            continue
        if datetime.now(UTC) - datetime.fromisoformat(ref.value.decode()) > _RECENT:
            store.refs.delete(name)
