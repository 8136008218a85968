"""A TCP relay that counts what a client sends."""

from __future__ import annotations

import asyncio
import threading
from urllib.parse import urlsplit


class Relay:
    """Stand between client and server, at a port of its own.

    :param url: of the server
    """

    def __init__(self, url: str) -> None:
        self.sent = 0
        self._target = urlsplit(url)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    @property
    def url(self) -> str:
        """Return the address for the client."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Stop relaying."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        self._server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        ready.set()
        self._loop.run_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        await asyncio.gather(
            self._pump(reader, there_writer, count=True), self._pump(there_reader, writer, count=False)
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        while block := await reader.read(1 << 16):
            if count:
                self.sent += len(block)
            writer.write(block)
            await writer.drain()
        writer.close()
