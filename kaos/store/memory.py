"""A store in memory, for tests of everything above it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from kaos.digest import digest_bytes
from kaos.store.base import Objects, Ref, Refs, Store, absent, check_ref_name, corrupt, moved


class MemoryObjects(Objects):
    """Objects in a dictionary."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def size(self, digest: str) -> int | None:
        """Return the size in bytes of the object, or None."""
        content = self.content.get(digest)
        return None if content is None else len(content)

    def write(self, digest: str, chunks: Iterable[bytes]) -> int:
        """Store the chunks, if they have this digest."""
        content = b"".join(chunks)
        found = digest_bytes(content)
        if found != digest:
            raise corrupt(digest, found)
        self.content[digest] = content
        return len(content)

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield the object as one chunk, verified."""
        if digest not in self.content:
            raise absent(digest)
        content = self.content[digest]
        if (found := digest_bytes(content)) != digest:
            raise corrupt(digest, found)
        yield content

    def digests(self) -> Iterator[str]:
        """Iterate over the digests."""
        return iter(list(self.content))


class MemoryRefs(Refs):
    """Refs in a dictionary."""

    def __init__(self) -> None:
        self._values: dict[str, Ref] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Ref | None:
        """Return the ref, or None."""
        return self._values.get(check_ref_name(name))

    def set(self, name: str, value: bytes, expected: str | None) -> Ref:
        """Change the ref if it has the expected version."""
        check_ref_name(name)
        with self._lock:
            current = self._values.get(name)
            if (current.version if current else None) != expected:
                raise moved(name)
            self._values[name] = ref = Ref.of(value)
            return ref

    def delete(self, name: str) -> None:
        """Forget the ref."""
        self._values.pop(check_ref_name(name), None)

    def names(self, prefix: str) -> Iterator[str]:
        """Iterate over the names below a prefix."""
        return iter(sorted(name for name in self._values if name.startswith(f"{prefix}/")))


def memory_store() -> Store:
    """Return a new, empty store."""
    return Store("memory://", MemoryObjects(), MemoryRefs())
