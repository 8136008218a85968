"""Processes by number on Linux: which one it really is, what descends from it, and the end of all of it.

Only the standard library, since the wrapper of every run loads this.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

MARKER = "KAOS_RUN"
"""Variable in the environment of all that a run starts; its value is the launch's key."""

_PROC = Path("/proc")


class Process(NamedTuple):
    """A process that cannot be confused with a later one of the same number.

    :param start: its start, in clock ticks since boot
    :param boot: id of the boot of the machine
    """

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has this number now, None if it is not there or has already ended."""
        stat = _stat(pid)
        # A zombie has ended; where nobody collects it (a container without init) it stays in the table.
        if stat is None or stat.state in "ZX":
            return None
        return cls(pid, stat.start, _boot())

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Process.of(self.pid) == self


class _Stat(NamedTuple):
    state: str
    parent: int
    start: int


def descendants(root: int) -> set[int]:
    """Return the numbers of all processes below ``root``, without itself."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None and stat.state not in "ZX":
            children.setdefault(stat.parent, []).append(pid)
    found: set[int] = set()
    todo = [root]
    while todo:
        for pid in children.get(todo.pop(), []):
            if pid not in found:
                found.add(pid)
                todo.append(pid)
    return found


def marked(key: str) -> set[int]:
    """Return the numbers of all processes that were started with ``KAOS_RUN=key`` in their environment."""
    wanted = f"{MARKER}={key}".encode()
    found = set()
    for pid in _pids():
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:  # another user's, or gone meanwhile
            continue
        if wanted in environment.split(b"\0") and Process.of(pid) is not None:
            found.add(pid)
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process; one that has gone meanwhile, or may not be touched, is passed over."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def kill_all(find: Callable[[], set[int]], seconds: float = 2.0) -> bool:
    """Kill what ``find`` returns until it returns nothing; return whether that came within ``seconds``."""
    deadline = time.monotonic() + seconds
    while pids := find():
        # Stopped first, none of them can start another one while the rest is killed.
        send(pids, signal.SIGSTOP)
        send(pids, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208  one call for thousands


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command's name, in parentheses, may hold spaces and parentheses itself.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
