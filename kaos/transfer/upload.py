"""Large objects that arrive in parts and go on where they stopped."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

from kaos.digest import digest_bytes
from kaos.errors import ConflictError, InvalidInputError
from kaos.store import FileObjects, Objects
from kaos.store.file import digest_file
from kaos.transfer.push import LocalFile


class PartialUploads:
    """The parts that have arrived, a file per object and owner.

    :param directory: where the parts are kept
    :param owner: who sends them; others cannot write into this one's parts
    """

    def __init__(self, directory: Path, owner: str) -> None:
        self._directory = directory
        self._owner = digest_bytes(owner.encode())[:16]

    def offset(self, digest: str) -> int:
        """Return how many bytes of the object have arrived."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, digest: str, offset: int, size: int, blocks: Iterator[bytes], objects: Objects) -> int:
        """Add `blocks` at `offset`; a whole object is verified and stored. Return how many bytes there are
        now.

        :raises ConflictError: there is more or less than `offset`, or somebody else is adding
        :raises InvalidInputError: more than `size` bytes came, or the whole has another digest; the parts are
            dropped
        """
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(
                    f"The object {digest[:12]}… is being uploaded already.", "Wait for that deploy to end."
                ) from None
            if file.tell() != offset:
                raise ConflictError(
                    f"The server has {file.tell()} bytes of {digest[:12]}…, not {offset}.", "Try again."
                )
            for block in blocks:
                file.write(block)
                if file.tell() > size:
                    break
            file.flush()
            arrived = file.tell()
            if arrived < size:
                return arrived
            found = digest_file(path)
            if arrived > size or found != digest:
                path.unlink()
                raise InvalidInputError(
                    f"What arrived is not the object {digest[:12]}….",
                    "Deploy again when nothing writes to the file.",
                )
            self._store(path, digest, size, objects)
        return size

    def _store(self, path: Path, digest: str, size: int, objects: Objects) -> None:
        if isinstance(objects, FileObjects) and path.stat().st_dev == objects.device:
            objects.adopt(path, digest)
        else:
            objects.write(digest, LocalFile(path, digest, size).chunks())
            path.unlink()

    def _path(self, digest: str) -> Path:
        return self._directory / f"{digest}.{self._owner}"
