"""Bundles, and the trees that members of a workspace may read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from kaos.bundle import Tree
from kaos.catalog.records import Records
from kaos.digest import shortest_prefix
from kaos.errors import CorruptObjectError, FilesMissingError, RemovedError, UnknownNameError
from kaos.job import BundlePin
from kaos.names import check_bundle
from kaos.retention import Note
from kaos.schema.bundle import Bundle, BundleKind

_SURE = 60.0
"""Seconds for which a commit takes for granted what it has found in the store."""

_COLLECTIONS = 10
"""So many collections that began before a job did may note its tree as removed."""


class Bundles(Records):
    """The bundles of one workspace."""

    def commit_bundle(self, kind: BundleKind, name: str, tree: Tree, user: str) -> Bundle:
        """Record the bundle with this tree, whose objects are all in the store; the first to submit it is its
        author.

        :raises FilesMissingError: objects of the tree are missing; nothing was recorded
        """
        check_bundle(name)
        with self.store.uses.hold():
            looked = time.time()
            self._check_arrived(tree)
            self.store.objects.put(tree.encoded)
            bundle = self._record_bundle(kind, name, tree, user)
            self._keep_tree(tree.digest)
            if time.time() - looked > _SURE:  # the machine slept, and nobody may have waited for us
                self._check_arrived(tree)
        return bundle

    def _check_arrived(self, tree: Tree) -> None:
        missing = self.store.objects.missing(tree.objects)
        if missing:
            raise FilesMissingError(len(missing))

    def _record_bundle(self, kind: BundleKind, name: str, tree: Tree, user: str) -> Bundle:
        new = BundlePin(
            name=name, digest=tree.digest, files=len(list(tree.files)), size=tree.size, author=user
        )

        def record(old: bytes | None) -> bytes:
            if old is None:
                return Bundle(kind=kind, pin=new, created_at=datetime.now(UTC)).encode()
            before = Bundle.parse(old)
            # The content is the identity; the name is what the newest deploy calls it.
            return before.model_copy(update={"pin": before.pin.model_copy(update={"name": name})}).encode()

        return Bundle.parse(self._swap(f"{self._at}/bundles/{kind}/{tree.digest}", record))

    def bundle(self, kind: BundleKind, digest: str) -> Bundle | None:
        """Return the committed bundle with this full digest, or None; one that was removed is none."""
        ref = self.store.refs.get(f"{self._at}/bundles/{kind}/{digest}")
        return Bundle.parse(ref.value) if ref and self.removed_tree(digest) is None else None

    def given_bundle(self, kind: BundleKind, digest: str) -> BundlePin:
        """Return the committed bundle with this digest, for who names it in a ref inside the same `hold`.

        :raises UnknownNameError: there is none
        :raises RemovedError: there was one
        """
        ref = self.store.refs.get(f"{self._at}/bundles/{kind}/{digest}")
        if ref is None:
            raise UnknownNameError(f"{kind} bundle", digest[:12], next_step="Deploy its directory again.")
        if self.removed_tree(digest) is not None:  # a tree may name many files: it is read only where it must
            self.given_tree(digest)
        return Bundle.parse(ref.value).pin

    def is_complete(self, digest: str) -> bool:
        """Tell whether everything that a tree of the workspace names is in the store."""
        try:
            return not self.store.objects.missing(self.tree(digest).objects)
        except (CorruptObjectError, UnknownNameError, RemovedError):
            return False

    def is_whole(self, digest: str, *others: str) -> bool:
        """Tell whether a tree, registered or not, everything that it names, and other objects are here."""
        objects = self.store.objects
        try:
            lacking = objects.missing(Tree.stored(objects.get(digest)).objects)
        except CorruptObjectError:
            return False
        return not lacking and all(objects.size(other) is not None for other in others)

    def bundle_digests(self) -> list[str]:
        """Return the digests of all bundles of the workspace."""
        return [name.rpartition("/")[2] for name in self.store.refs.names(f"{self._at}/bundles")]

    def shown(self, pin: BundlePin) -> str:
        """Return a bundle as a person sees it: ``/mnist:e23a2``."""
        return f"/{pin.name}:{shortest_prefix(pin.digest, self.bundle_digests())}"

    def tree(self, digest: str) -> Tree:
        """Return the tree of a bundle or a model of this workspace, verified.

        :raises UnknownNameError: the workspace has none with this digest
        :raises RemovedError: it had
        """
        ref = self.store.refs.get(f"{self._at}/trees/{digest}")
        if ref is None:
            raise UnknownNameError("bundle or model", digest[:12])
        if ref.value:
            raise RemovedError(
                f"content of bundle or model {digest[:12]}",
                Note.parse(ref.value).shown,
                "Deploy its directory again, if you still have it: it gets the same digest.",
            )
        return Tree.stored(self.store.objects.get(digest))

    def removed_tree(self, digest: str) -> Note | None:
        """Return when and why the content of a tree was removed, None if it was not."""
        ref = self.store.refs.get(f"{self._at}/trees/{digest}")
        return Note.parse(ref.value) if ref and ref.value else None

    def has_removed_trees(self) -> bool:
        """Tell whether the content of any tree was removed."""
        return any(note for _, note in self._values("trees"))

    def use_tree(self, digest: str) -> None:
        """Let a tree that a ref names by now count as kept, if it was removed and all of it is still here.

        :raises RemovedError: it is not
        """
        note = self.removed_tree(digest)
        if note is None:
            return
        if not self.is_whole(digest):
            raise RemovedError(
                f"content of bundle or model {digest[:12]}", note.shown, "Deploy its directory again."
            )
        self._keep_tree(digest)

    def given_tree(self, digest: str) -> Tree:
        """Return a tree, as `tree` does, for who names it in a ref inside the same `hold`.

        One that a collection has just let go is as good as any while all of it is here; the note of its
        removal goes by `use_tree`, once the ref is there.
        """
        try:
            return self.tree(digest)
        except RemovedError:
            if not self.is_whole(digest):
                raise
            return Tree.stored(self.store.objects.get(digest))

    def needed_tree(self, digest: str) -> Tree:
        """Return a tree that a recorded job or revision needs, as `tree` does.

        A collection that looked before that was recorded may note the tree as removed, and takes the note
        back when it looks again. Whoever needs the tree in between takes it back himself.
        """
        for _ in range(_COLLECTIONS):
            try:
                return self.tree(digest)
            except RemovedError:
                self.use_tree(digest)
        return self.tree(digest)

    def _keep_tree(self, digest: str) -> None:
        """Register a tree, or take the note of its removal away; what names it has to be recorded before."""
        name = f"{self._at}/trees/{digest}"
        if not self.store.refs.create(name, b""):
            self._swap(name, lambda _: b"")

    def trees(self) -> Iterator[tuple[str, str]]:
        """Iterate over the trees of the workspace: digest, and what it is to a person."""
        names = {
            record.pin.digest: f"bundle /{record.pin.name}:{record.pin.digest[:5]}"
            for record in (Bundle.parse(value) for _, value in self._values("bundles"))
        }
        for name, note in self._values("trees"):
            if note:
                continue
            digest = name.rpartition("/")[2]
            yield digest, f"{names.get(digest, f'model {digest[:6]}')} of workspace {self.workspace.name}"
