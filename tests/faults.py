"""A real HTTP server on loopback that fails on demand: late, busy, cut off, changed, redirected, or plainly
wrong.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate


@dataclass(frozen=True)
class Fault:
    """What is wrong with one answer.

    :param status: answered instead of the file
    :param headers: added to the answer
    :param reset: bytes of the body after which the connection is reset
    :param truncate: bytes of the body after which the connection is closed
    :param body: sent instead of the file, under the file's own headers
    :param chunked: send no Content-Length
    :param late: seconds before the answer
    :param pause: seconds between pieces of 16 KiB
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    reset: int | None = None
    truncate: int | None = None
    body: bytes | None = None
    chunked: bool = False
    late: float = 0
    pause: float = 0


@dataclass(frozen=True)
class Request:
    """What was asked."""

    path: str
    headers: dict[str, str]


@dataclass
class FaultServer:
    """Files by path, and what goes wrong with them.

    :param chance: of a random fault per request (503 with Retry-After, reset, truncation, wrong Content-MD5)
    :param delay: seconds before each answer
    :param validators: send ETag and Last-Modified, and honour conditions and ranges
    :param ranges: honour ranges; without it the whole file comes again
    :param most: requests a second; what is beyond is answered 429 with Retry-After
    :param held: requests that are answered; what is beyond waits for its answer until this is None
    """

    files: dict[str, bytes] = field(default_factory=dict)
    chance: float = 0
    delay: float = 0
    validators: bool = True
    ranges: bool = True
    most: int = 0
    held: int | None = None
    modified: float = 1_700_000_000
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    always: dict[str, Fault] = field(default_factory=dict)
    pages: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(7)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"

    def asked(self) -> Counter[str]:
        """Return how often each path was asked for."""
        return Counter(request.path for request in self.requests)

    @contextlib.contextmanager
    def running(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[FaultServer]:
        loop = asyncio.new_event_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = loop.run_until_complete(
            asyncio.start_server(self._serve, host, self.port, family=family, ssl=tls)
        )
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(_close(server))
            loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open["now"] += 1
        self.open["most"] = max(self.open["most"], self.open["now"])
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    await writer.drain()
        finally:
            self.open["now"] -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        path = head[0].split()[1].lstrip("/")
        self.requests.append(Request(path, headers))
        queue = self.faults.get(path)
        fault = queue.popleft() if queue else self.always.get(path) or self._chance()
        if self.most:
            second = int(time.monotonic())
            self.open[f"in {second}"] += 1
            if self.open[f"in {second}"] > self.most:
                fault = Fault(429, (("Retry-After", "1"),))
        number = len(self.requests)
        await asyncio.sleep(self.delay + fault.late)
        while self.held is not None and number > self.held:
            await asyncio.sleep(0.02)
        content = self.files.get(path)
        if content is None and fault.status == 200:
            fault = Fault(404)
        if fault.status != 200:
            body = self.pages.get(path, f"<h1>{fault.status}</h1>".encode())
            if fault.status == 204:
                body = b""
            writer.write(_head(fault.status, [*fault.headers, ("Content-Length", str(len(body)))]) + body)
            return True
        assert content is not None
        return await self._send(writer, content, headers, fault)

    async def _send(
        self, writer: asyncio.StreamWriter, content: bytes, asked: dict[str, str], fault: Fault
    ) -> bool:
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        headers = [*fault.headers, ("Date", formatdate(usegmt=True))]
        status, body = 200, content
        if self.validators:
            headers += [("ETag", etag), ("Last-Modified", formatdate(self.modified, usegmt=True))]
            if asked.get("if-none-match") == etag:
                writer.write(_head(304, headers))
                return True
            found = re.fullmatch(r"bytes=(\d+)-", asked.get("range", ""))
            if found and self.ranges and asked.get("if-range") == etag:
                status, start = 206, int(found[1])
                headers.append(("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"))
                body = content[start:]
        body = fault.body if fault.body is not None else body
        length = ("Transfer-Encoding", "chunked") if fault.chunked else ("Content-Length", str(len(body)))
        writer.write(_head(status, [*headers, length]))
        ends = [end for end in (fault.reset, fault.truncate) if end is not None]
        body = body[: min(ends)] if ends else body
        for start in range(0, len(body), 16384):
            piece = body[start : start + 16384]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if fault.chunked else piece)
            await writer.drain()
            if fault.pause:
                await asyncio.sleep(fault.pause)
        if fault.reset is not None:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif fault.chunked and fault.truncate is None:
            writer.write(b"0\r\n\r\n")
        return not ends

    def _chance(self) -> Fault:
        if self._random.random() >= self.chance:
            return Fault()
        wrong = base64.b64encode(hashlib.md5(b"something else").digest()).decode()
        return self._random.choice(
            [
                Fault(503, (("Retry-After", "0"),)),
                Fault(reset=100),
                Fault(truncate=100),
                Fault(headers=(("Content-MD5", wrong),)),
            ]
        )


async def _close(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await server.wait_closed()


def _head(status: int, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode()
