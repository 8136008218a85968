"""Whether a port is free, and who has it."""

from __future__ import annotations

import contextlib
import socket

from kaos.errors import LocalServerError


def ensure_free(host: str, port: int) -> None:
    """Fail, naming the program that listens there, if the port is taken.

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
                f"Stop that program, or take another port: kaos up --port {port + 1}",
            ) from error


def _holder(port: int) -> str:
    """Return the program that listens on the port; empty if the system does not tell this user."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
