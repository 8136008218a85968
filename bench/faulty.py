"""A reverse proxy that is slow and fails: what a download over a bad line meets."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
_BLOCK = 1 << 18


class FaultyProxy:
    """Stand before a server of files that answers with a Content-Length.

    :param url: of the server
    :param delay: seconds before each answer
    :param chance: of an answer of 503; as likely is a body that is reset in its middle, and one that ends
        there without a word
    :param cut: bytes of a body after which one in two connections is reset, for large files; 0 for never
    """

    def __init__(self, url: str, *, delay: float = 0.02, chance: float = 0.01, cut: int = 0) -> None:
        self.requests = self.faults = 0
        self.url = ""
        self._target = urlsplit(url)
        self._delay, self._chance, self._cut = delay, chance, cut
        self._random = random.Random(11)

    @contextmanager
    def running(self) -> Iterator[FaultyProxy]:
        """Serve, in a thread."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(_close(server))
            loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(
            self._target.hostname, self._target.port, limit=4 * _BLOCK
        )
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer, there_reader, there_writer):
                    await writer.drain()
        finally:
            there_writer.close()
            writer.close()

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> bool:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        await asyncio.sleep(self._delay)
        luck = self._random.random() / self._chance if self._chance else 3.0
        if luck < 1:
            self.faults += 1
            writer.write(_BUSY)
            return True
        there_writer.write(request)
        head = await there_reader.readuntil(b"\r\n\r\n")
        found = _LENGTH.search(head)
        length = int(found[1]) if found and b" 304 " not in head[:16] else 0
        ends = length // 2 if luck < 3 and length else length
        if self._cut and self._random.random() < 0.5:
            ends = min(ends, self._random.randrange(self._cut, 2 * self._cut))
        writer.write(head)
        left = ends
        while left:
            block = await there_reader.read(min(left, _BLOCK))
            if not block:
                return False
            left -= len(block)
            writer.write(block)
            await writer.drain()
        if ends == length:
            return True
        self.faults += 1
        if luck >= 2:
            # No linger: the other side is told that the connection was reset, not that it ended.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return False


async def _close(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
