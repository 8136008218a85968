"""Many objects in one stream: for each its digest (32 bytes), its size (8 bytes, big-endian) and its bytes.

Forty zero bytes end the stream, so that one cut short is known for what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kaos.errors import CorruptObjectError, InvalidInputError
from kaos.store.base import CHUNK

_HEADER = 40
_END = bytes(_HEADER)


@dataclass(frozen=True)
class Packed:
    """An object in a stream; its chunks have to be taken before the next one is asked for."""

    digest: str
    size: int
    chunks: Iterator[bytes]


def write_pack(objects: Iterable[Packed]) -> Iterator[bytes]:
    """Yield the stream of `objects`, small pieces put together.

    :raises CorruptObjectError: an object is damaged; all before it were yielded
    """
    buffer = bytearray()
    try:
        for packed in objects:
            buffer += bytes.fromhex(packed.digest) + packed.size.to_bytes(8, "big")
            for chunk in packed.chunks:
                if len(chunk) < CHUNK // 4:
                    buffer += chunk
                else:
                    yield bytes(buffer)
                    buffer.clear()
                    yield chunk
                if len(buffer) >= CHUNK:
                    yield bytes(buffer)
                    buffer.clear()
    except CorruptObjectError:
        yield bytes(buffer)
        raise
    buffer += _END
    yield bytes(buffer)


def read_pack(blocks: Iterator[bytes]) -> Iterator[Packed]:
    """Yield the objects of a stream as it comes.

    :raises InvalidInputError: the stream ends before its end mark
    """
    reader = _Reader(blocks)
    while (header := reader.take(_HEADER)) != _END:
        size = int.from_bytes(header[32:], "big")
        yield Packed(header[:32].hex(), size, reader.chunks(size))
        reader.skip()


class _Reader:
    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = memoryview(b"")
        self._left = 0

    def take(self, size: int) -> bytes:
        return b"".join(self._pieces(size))

    def chunks(self, size: int) -> Iterator[bytes]:
        self._left = (
            size  # at once, not when the first chunk is taken: an object that nobody reads is skipped
        )
        return self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        while self._left:
            for piece in self._pieces(min(self._left, CHUNK)):
                self._left -= len(piece)
                yield bytes(piece)

    def skip(self) -> None:
        for _ in self._pieces(self._left):
            pass
        self._left = 0

    def _pieces(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._block:
                self._block = memoryview(next(self._blocks, b""))
                if not self._block:
                    raise InvalidInputError("The stream of objects was cut short.", "Try again.")
            piece, self._block = self._block[:size], self._block[size:]
            size -= len(piece)
            yield piece
