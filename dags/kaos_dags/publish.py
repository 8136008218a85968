"""The folder of generated DAG files, kept in the store: a tree, and the ref that names the newest one."""

from __future__ import annotations

from collections.abc import Mapping

from kaos.bundle import File, Tree
from kaos.errors import ConflictError
from kaos.store import Store

HEAD = "dags/head"
_ATTEMPTS = 100


def head(store: Store) -> Tree:
    """Return the newest tree of DAG files; empty before the first one."""
    ref = store.refs.get(HEAD)
    return Tree.decode(store.objects.get(ref.value.decode())) if ref else Tree.of([])


def publish(store: Store, changes: Mapping[str, str | None]) -> Tree:
    """Put files (source by name; None removes one) into the folder, in one step, and return the new tree.

    :raises ConflictError: too many change it at once
    """
    for _ in range(_ATTEMPTS):
        ref = store.refs.get(HEAD)
        files = {file.path: file for file in head(store).files}
        for name, source in changes.items():
            if source is None:
                files.pop(name, None)
            else:
                content = source.encode()
                files[name] = File(name, len(content), store.objects.put(content))
        tree = Tree.of(files.values())
        store.objects.put(tree.encoded)
        if ref is not None and ref.value.decode() == tree.digest:
            return tree
        try:
            store.refs.set(HEAD, tree.digest.encode(), ref.version if ref else None)
        except ConflictError:
            continue
        return tree
    raise ConflictError("The DAG folder is changed by too many at once.", "Try again.")
