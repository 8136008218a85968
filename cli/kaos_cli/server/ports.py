"""Whether a port is free, and who has it."""

from __future__ import annotations

import contextlib
import socket

from kaos.errors import LocalServerError

_NEAR = 100


def ensure_free(host: str, port: int, option: str = "--port") -> None:
    """Fail, naming the program that listens there, if the port is taken.

    :param option: of `kaos up`, that takes another one
    :raises LocalServerError: if it cannot be bound
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            reason = f"by {holder}" if (holder := _holder(port)) else f"({error.strerror})"
            raise LocalServerError(
                f"Port {port} on {host} is taken {reason}.",
                f"Stop that program, or take another port: kaos up {option} {port + 1}",
            ) from error


def first_free(host: str, port: int) -> int:
    """Return the first port from this one on that can be bound."""
    for candidate in range(port, port + _NEAR):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, candidate))
                return candidate
    raise LocalServerError(f"No port from {port} on is free.", "Name one: kaos up --gateway-port PORT")


def _holder(port: int) -> str:
    """Return the program that listens on the port; empty if the system does not tell this user."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
