"""Request and response bodies of any size, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator

from anyio import from_thread
from fastapi import Request

BLOCK = 4 << 20
"""Bytes that are handed to a worker thread at once: few changes of thread, little memory."""

NO_COMPRESSION = {"Content-Encoding": "identity"}
"""Airflow compresses every answer, which makes large ones eight times slower; this header keeps it away."""


def body_blocks(request: Request) -> Iterator[bytes]:
    """Yield the body of a request in a worker thread, as it arrives."""
    stream = request.stream().__aiter__()

    async def block() -> bytes:
        buffer = bytearray()
        async for chunk in stream:
            buffer += chunk
            if len(buffer) >= BLOCK:
                break
        return bytes(buffer)

    while content := from_thread.run(block):
        yield content
