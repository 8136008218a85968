"""A store in memory, for tests of everything above it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count

from kaos.digest import digest_bytes
from kaos.store.base import (
    Condemned,
    Objects,
    Ref,
    Refs,
    Store,
    Stored,
    Uses,
    absent,
    check_ref_name,
    corrupt,
    moved,
)


class MemoryObjects(Objects):
    """Objects in a dictionary."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self._copies: dict[str, tuple[float, str]] = {}
        self._aside: dict[str, dict[str, tuple[bytes, float]]] = {}
        self._count = count()
        self._lock = threading.RLock()

    def size(self, digest: str) -> int | None:
        """Return the size in bytes of the object, or None."""
        content = self._find(digest)
        return None if content is None else len(content)

    def _find(self, digest: str) -> bytes | None:
        with self._lock:
            if digest not in self.content:
                self.restore(digest)
            return self.content.get(digest)

    def write(self, digest: str, chunks: Iterable[bytes]) -> int:
        """Store the chunks, if they have this digest."""
        content = b"".join(chunks)
        found = digest_bytes(content)
        if found != digest:
            raise corrupt(digest, found)
        with self._lock:
            self._set(digest, content)
        return len(content)

    def _set(self, digest: str, content: bytes) -> None:
        self.content[digest] = content
        self._copies[digest] = (time.time(), str(next(self._count)))

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield the object as one chunk, verified."""
        content = self._find(digest)
        if content is None:
            raise absent(digest)
        if (found := digest_bytes(content)) != digest:
            raise corrupt(digest, found)
        yield content

    def stored(self) -> Iterator[Stored]:
        """Iterate over the objects."""
        with self._lock:
            found = [
                Stored(digest, len(content), *self._copies.get(digest, (0.0, "")))
                for digest, content in self.content.items()
            ]
        return iter(found)

    def condemn(self, found: Stored, batch: str) -> bool:
        """Set the object aside, unless it was written again."""
        with self._lock:
            if found.digest not in self.content or self._copies.get(found.digest, (0.0, ""))[1] != found.copy:
                return False
            self._aside.setdefault(batch, {})[found.digest] = (
                self.content.pop(found.digest),
                time.time(),
            )
            return True

    def condemned(self) -> Iterator[Condemned]:
        """Iterate over what was set aside."""
        with self._lock:
            found = [
                Condemned(digest, len(content), batch, since)
                for batch, objects in self._aside.items()
                for digest, (content, since) in objects.items()
            ]
        return iter(found)

    def restore(self, digest: str) -> bool:
        """Bring an object back."""
        with self._lock:
            for objects in self._aside.values():
                if digest in objects:
                    self._set(digest, objects.pop(digest)[0])
                    return True
        return False

    def discard(self, found: Condemned) -> bool:
        """Remove what was set aside."""
        with self._lock:
            return self._aside.get(found.batch, {}).pop(found.digest, None) is not None


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
        start = f"{prefix}/" if prefix else ""
        return iter(sorted(name for name in list(self._values) if name.startswith(start)))


class MemoryUses(Uses):
    """Blocks of this process, counted by the generation in which they began."""

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}
        self._generation = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep what is found inside the block."""
        with self._changed:
            own = self._generation
            self._inside[own] = self._inside.get(own, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[own] -= 1
                self._changed.notify_all()

    def settle(self, seconds: float) -> bool:
        """Wait until all blocks that had begun are left."""
        with self._changed:
            before = range(self._generation + 1)
            self._generation += 1
            return self._changed.wait_for(lambda: not any(self._inside.get(each) for each in before), seconds)


def memory_store() -> Store:
    """Return a new, empty store."""
    return Store("memory://", MemoryObjects(), MemoryRefs(), MemoryUses())
