"""A file server on loopback over files that it holds in memory: nothing else of this machine can be had."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from kaos._version import __version__
from kaos.errors import LocalServerError

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_KINDS = {".csv": "text/csv; charset=utf-8", ".json": "application/json", ".mf": "application/x-ndjson"}
_TEXT = "text/plain; charset=utf-8"


class FileServer(ThreadingHTTPServer):
    """Serve files over HTTP, with ETag, conditions and ranges.

    :param files: their contents, by path
    :param port: of 127.0.0.1; 0 for any that is free
    :raises LocalServerError: another program has the port
    """

    daemon_threads = True
    request_queue_size = 128  # a download opens many connections at once

    def __init__(self, files: Mapping[str, bytes], port: int) -> None:
        self.files = {
            path: (content, f'"{hashlib.sha256(content).hexdigest()}"') for path, content in files.items()
        }
        self.modified = float(int(time.time()))
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise LocalServerError(
                f"Port {port} of 127.0.0.1 cannot be had: {error.strerror or error}.",
                "Choose another one with --port.",
            ) from None

    @property
    def url(self) -> str:
        """Return the server's own URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that was killed has left in the middle of an answer."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"
    timeout = 60
    wbufsize = 1 << 16  # head and body of a small file in one piece
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer with a file, a part of it, or that it has not changed."""
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        found = self.server.files.get(path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content, etag = found
        if self._is_known(etag):
            self._begin(HTTPStatus.NOT_MODIFIED, etag)
            self.end_headers()
            return
        status, start, end = self._part(len(content), etag)
        self._begin(status, etag)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.send_header("Content-Range", f"bytes */{len(content)}")
        elif status == HTTPStatus.PARTIAL_CONTENT:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        suffix = path[path.rfind(".") :] if "." in path else ""
        self.send_header("Content-Type", _KINDS.get(suffix, _TEXT))
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(memoryview(content)[start:end])

    do_HEAD = do_GET

    def version_string(self) -> str:
        """Return the server's name, without that of Python."""
        return f"kaos/{__version__}"

    def _begin(self, status: HTTPStatus, etag: str) -> None:
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", formatdate(self.server.modified, usegmt=True))
        self.send_header("Accept-Ranges", "bytes")

    def _is_known(self, etag: str) -> bool:
        """Tell whether the client has the file already (RFC 9110, 13.2.2)."""
        tags = self.headers.get("If-None-Match")
        if tags is not None:
            return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in tags.split(","))
        since = self._seconds("If-Modified-Since")
        return since is not None and self.server.modified <= since

    def _part(self, size: int, etag: str) -> tuple[HTTPStatus, int, int]:
        """Return status, first byte and end of what was asked for; several ranges are answered with all."""
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if condition is not None and condition != etag and self._seconds("If-Range") != self.server.modified:
            found = None
        if found is None or not any(found.groups()):
            return HTTPStatus.OK, 0, size
        first, last = found.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if first and last and int(last) < start:
            return HTTPStatus.OK, 0, size
        if start >= size:
            return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, 0
        return HTTPStatus.PARTIAL_CONTENT, start, end

    def _seconds(self, name: str) -> float | None:
        try:
            return parsedate_to_datetime(self.headers.get(name, "")).timestamp()
        except (ValueError, OverflowError):
            return None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: thousands of files are asked for."""
