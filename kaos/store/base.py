"""What a store has to do: the smallest set of methods, the rest follows from them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kaos.digest import digest_bytes
from kaos.errors import ConflictError, CorruptObjectError, InvalidInputError

CHUNK = 1 << 20
"""Bytes moved at a time."""

INSTANCE = "instance"
"""The ref with a store's random name, by which a client knows that it has the same directory before it."""

_ATTEMPTS = 100

_REF_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._:=-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._:=-]*)*")


@dataclass(frozen=True)
class Stored:
    """An object as it was found: its size in bytes, and which copy it was.

    :param written: when the copy was written, in seconds since 1970
    :param copy: another one as soon as somebody writes the object again
    """

    digest: str
    size: int
    written: float
    copy: str


@dataclass(frozen=True)
class Condemned:
    """An object that a collection has set aside.

    :param batch: the name of the collection's set, as it was given to `Objects.condemn`
    :param since: not before it was set aside, in seconds since 1970
    """

    digest: str
    size: int
    batch: str
    since: float


class Objects(ABC):
    """Immutable byte strings, each under the SHA-256 of its content.

    An object leaves in two steps: `condemn` sets it aside, `discard` removes what was set aside. In between
    every use of it (`size`, `missing`, `read`, `place`, `put`) brings it back, so that whoever found it here
    can go on, and nobody sees it missing. docs/decisions/retention.md has the argument.
    """

    @abstractmethod
    def size(self, digest: str) -> int | None:
        """Return the size in bytes of the object, or None if it is not there."""

    @abstractmethod
    def write(self, digest: str, chunks: Iterable[bytes]) -> int:
        """Store what `chunks` yield under `digest`, all or nothing, and return its size in bytes.

        :raises CorruptObjectError: the bytes have another digest; nothing was stored
        """

    @abstractmethod
    def read(self, digest: str) -> Iterator[bytes]:
        """Yield the object in chunks. The last chunk comes only once the whole was found to be right.

        :raises CorruptObjectError: the object is not there, or its bytes are not those of its digest
        """

    @abstractmethod
    def stored(self) -> Iterator[Stored]:
        """Iterate over all objects that were not set aside, in no order."""

    @abstractmethod
    def condemn(self, found: Stored, batch: str) -> bool:
        """Set the object aside, unless it was written again since it was found; tell whether it was done.

        :param batch: name of a set that no other collection uses; letters, digits and ``-``
        """

    @abstractmethod
    def condemned(self) -> Iterator[Condemned]:
        """Iterate over what was set aside, in no order; the same object may be in several sets."""

    @abstractmethod
    def restore(self, digest: str) -> bool:
        """Bring an object back that was set aside; tell whether there was one."""

    @abstractmethod
    def discard(self, found: Condemned) -> bool:
        """Remove what was set aside, for good; tell whether it was still there, and not brought back."""

    def digests(self) -> Iterator[str]:
        """Iterate over the digests of all objects that were not set aside, in no order."""
        return (found.digest for found in self.stored())

    def missing(self, objects: Mapping[str, int]) -> list[str]:
        """Return those of `objects` (size in bytes by digest) that are not here whole."""
        return [digest for digest, size in objects.items() if self.size(digest) != size]

    def put(self, content: bytes) -> str:
        """Store `content` and return its digest."""
        digest = digest_bytes(content)
        if self.size(digest) != len(content):
            self.write(digest, [content])
        return digest

    def get(self, digest: str) -> bytes:
        """Return a whole object, for documents and other small ones.

        :raises CorruptObjectError: the object is not there, or its bytes are not those of its digest
        """
        return b"".join(self.read(digest))

    def place(
        self, digest: str, destination: Path, *, executable: bool = False, writable: bool = False
    ) -> None:
        """Write the object to the new file `destination`, verified.

        :param writable: the file is the caller's to change; else a store may share its own copy
        :raises CorruptObjectError: the object is not there, or its bytes are not those of its digest
        """
        try:
            with destination.open("xb") as file:
                for chunk in self.read(digest):
                    file.write(chunk)
        except CorruptObjectError:
            destination.unlink()
            raise
        destination.chmod((0o644 if writable else 0o444) | (0o111 if executable else 0))


@dataclass(frozen=True)
class Ref:
    """What a name stood for when it was read: its value, and the version that a change has to name."""

    value: bytes
    version: str

    @classmethod
    def of(cls, value: bytes) -> Ref:
        """Return the ref that holds `value`."""
        return cls(value, digest_bytes(value))


class Refs(ABC):
    """Small named values that change only from a version that was seen."""

    @abstractmethod
    def get(self, name: str) -> Ref | None:
        """Return what `name` stands for, or None."""

    @abstractmethod
    def set(self, name: str, value: bytes, expected: str | None) -> Ref:
        """Let `name` stand for `value` if it still has the version `expected` (None: is not there yet).

        :raises ConflictError: it has another version; nothing was changed
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Forget `name`; one that is not there is no error."""

    @abstractmethod
    def names(self, prefix: str) -> Iterator[str]:
        """Iterate over the names below `prefix` (whole path components), sorted; over all if it is empty."""

    def create(self, name: str, value: bytes) -> bool:
        """Set a name that never changes, and tell whether it is new; one that exists keeps its value."""
        try:
            self.set(name, value, None)
        except ConflictError:
            return False
        return True


class Uses(ABC):
    """Who relies on having found objects in the store, while no ref names them yet.

    Like the readers of RCU: `hold` costs next to nothing and never waits; a collection waits with `settle`
    for those that were inside when it set objects aside, and for nobody who came later.
    """

    @abstractmethod
    def hold(self) -> AbstractContextManager[None]:
        """Keep what is found here inside the block until its end, by when a ref names it. May be nested."""

    @abstractmethod
    def settle(self, seconds: float) -> bool:
        """Wait until all blocks that had begun are left; tell whether they were, within that time."""


@dataclass(frozen=True)
class Store:
    """Objects and refs of one place, the URL that names it, and who is about to name objects."""

    url: str
    objects: Objects
    refs: Refs
    uses: Uses


def identity(store: Store) -> str:
    """Return what tells a store from all others, and may be shown: the digest of its random name.

    It is empty for a store that has none.
    """
    instance = store.refs.get(INSTANCE)
    return digest_bytes(instance.value) if instance else ""


def change_ref(refs: Refs, name: str, change: Callable[[bytes | None], bytes], what: str = "") -> bytes:
    """Let `name` stand for what `change` makes of its value, in one step, and return that.

    :param change: gets the value, None if the name is not there; called again when somebody was quicker
    :param what: the name to people
    :raises ConflictError: too many change it at once
    """
    for _ in range(_ATTEMPTS):
        before = refs.get(name)
        after = change(before.value if before else None)
        if before is not None and after == before.value:
            return after
        try:
            return refs.set(name, after, before.version if before else None).value
        except ConflictError:
            continue
    raise ConflictError(f"{what or repr(name)} is changed by too many at once.", "Try again.")


def check_ref_name(name: str) -> str:
    """Return `name` if it can name a ref: path components of letters, digits and ``._:=-``.

    :raises InvalidInputError: it cannot
    """
    if not _REF_NAME.fullmatch(name):
        raise InvalidInputError(f"{name!r} cannot name anything in the store.")
    return name


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Let the error for a missing or damaged object say what it was to be: a file, a bundle."""
    try:
        yield
    except CorruptObjectError as error:
        raise CorruptObjectError(f"{what}: {error.message}", error.next_step) from error


def absent(digest: str) -> CorruptObjectError:
    """Return the error for an object that should be there and is not."""
    return CorruptObjectError(
        f"The object {digest} is not in the store.",
        "Deploy the bundle that has it again; see kaos bundle verify.",
    )


def corrupt(digest: str, found: str) -> CorruptObjectError:
    """Return the error for an object whose bytes have the digest `found` instead."""
    return CorruptObjectError(
        f"The object {digest} has the bytes of {found[:12]}…: it was changed or damaged.",
        "Deploy the bundle that has it again; kaos bundle verify names every damaged file.",
    )


def moved(name: str) -> ConflictError:
    """Return the error for a ref that somebody else changed first."""
    return ConflictError(f"Somebody else changed {name!r} at the same time.", "Try again.")
