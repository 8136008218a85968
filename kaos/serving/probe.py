"""Ask a service whether it is ready, and whether it can do what it is for."""

from __future__ import annotations

import contextlib
import http.client
import mimetypes
import socket
import threading
import time
from collections.abc import Callable

from kaos.errors import ServingFailedError

_PING_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.1
_SHOWN = 300


def ping(port: int, seconds: float = _PING_SECONDS) -> bool:
    """Tell whether a service says that it is ready."""
    try:
        return 200 <= _ask(port, "GET", "/ping", b"", {}, seconds)[0] < 300
    except (OSError, http.client.HTTPException):
        return False


def listens(port: int) -> bool:
    """Tell whether a service takes connections, if only to make them wait."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


def wait_until_ready(port: int, seconds: float, check: Callable[[], object]) -> float:
    """Wait until a service is ready, and return how many seconds that took.

    :param check: called between two looks; raises when there is nothing left to wait for, and says with False
        that what answers on the port is another program
    :raises ServingFailedError: it does not get ready in time
    """
    began, pause = time.monotonic(), _FIRST_PAUSE
    while not (ping(port) and check() is not False):
        check()
        if time.monotonic() - began > seconds:
            raise ServingFailedError(
                f"It did not answer GET /ping on its port within {seconds:g} s.",
                "Does `serve` listen on the port in PORT? A slow start needs --start-timeout.",
            )
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 1.3)
    return time.monotonic() - began


def try_sample(port: int, name: str, body: bytes, seconds: float) -> None:
    """Send a sample request.

    :param name: of its file, whose suffix says what it is
    :raises ServingFailedError: the answer is none, or an error
    """
    headers = {"Content-Type": content_type(name)}
    try:
        status, answer = _ask(port, "POST", "/invocations", body, headers, seconds)
    except (OSError, http.client.HTTPException) as error:
        raise ServingFailedError(
            f"It gave no answer to the sample request {name}: {error or type(error).__name__}.",
            "See its log: kaos serve logs",
        ) from error
    if not 200 <= status < 300:
        text = answer[:_SHOWN].decode(errors="replace").strip()
        raise ServingFailedError(
            f"It answered the sample request {name} with HTTP {status}: {text}",
            f"Mend `serve`, or the sample: try it with kaos serve predict -d @{name}.",
        )


def content_type(name: str) -> str:
    """Return what a file's suffix says that it is."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _ask(
    port: int, method: str, path: str, body: bytes, headers: dict[str, str], seconds: float
) -> tuple[int, bytes]:
    """Return status and answer, within `seconds`: one that comes byte by byte keeps nobody waiting."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.connect()
        late = threading.Timer(seconds, _hang_up, [connection.sock])
        late.start()
        try:
            connection.request(method, path, body=body or None, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(1 << 20)
        finally:
            late.cancel()
    finally:
        connection.close()


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        connection.shutdown(socket.SHUT_RDWR)
