"""Read a whole store and say what is wrong with it, in the words of those who need it."""

from __future__ import annotations

from collections.abc import Iterable

from kaos.bundle import Tree
from kaos.errors import CorruptObjectError, InvalidBundleError
from kaos.store.base import Store


def verify_store(
    store: Store, trees: Iterable[tuple[str, str]], documents: Iterable[tuple[str, str]] = ()
) -> tuple[int, list[str]]:
    """Read every object, and look for every file of the trees, and for every document.

    :param trees: digest of each tree that something needs, and what it is to a person
    :param documents: the same of each document
    :returns: how many objects were read, and a sentence for each that is damaged or missing
    """
    broken: set[str] = set()
    checked = 0
    for digest in list(store.objects.digests()):
        checked += 1
        try:
            for _ in store.objects.read(digest):
                pass
        except CorruptObjectError:
            broken.add(digest)
    problems: list[str] = []
    explained: set[str] = set()
    for digest, title in trees:
        try:
            tree = Tree.decode(store.objects.get(digest))
        except (CorruptObjectError, InvalidBundleError):
            problems.append(f"{title}: the list of its files is damaged or missing")
            explained.add(digest)
            continue
        for file in tree.files:
            if file.digest in broken or store.objects.size(file.digest) is None:
                state = "damaged" if file.digest in broken else "missing"
                problems.append(f"{title}: {file.path} is {state}")
                explained.add(file.digest)
    for digest, title in documents:
        if digest in broken or store.objects.size(digest) is None:
            problems.append(f"{title}: {'damaged' if digest in broken else 'missing'}")
            explained.add(digest)
    problems += [
        f"object {digest}: damaged, in no bundle, model or record" for digest in sorted(broken - explained)
    ]
    return checked, list(dict.fromkeys(problems))
