"""Who listens on a port: the answer on a port is worth nothing if another program gave it. Linux."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_LISTEN = "0A"
_PROC = Path("/proc")


def holds(pids: Iterable[int], port: int) -> bool:
    """Tell whether one of these processes listens on a TCP port."""
    wanted = {f"socket:[{inode}]" for inode in _listeners(port)}
    return bool(wanted) and any(wanted & _files(pid) for pid in pids)


def listens_inside(pid: int, port: int) -> bool:
    """Tell whether anything listens on a TCP port of the network that a process is in, that of a container.

    :raises OSError: the process is gone, or is not ours to look at
    """
    return bool(_listeners(port, _PROC / str(pid) / "net"))


def _listeners(port: int, network: Path = _PROC / "net") -> set[str]:
    """Return the inodes of the sockets that listen on a port."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = (network / table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a machine without IPv6
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _files(pid: int) -> set[str]:
    try:
        return {str(link.readlink()) for link in (_PROC / str(pid) / "fd").iterdir()}
    except OSError:  # it ended meanwhile, or is another user's
        return set()
