"""Start the wrappers of many runs, one after the other, from a process that has imported what they need.

An interpreter that starts and imports takes more of a processor than all else that kaos does for a run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kaos.runtime import wrapper

_current: list[Spawner] = []


class Spawner:
    """A process that forks a wrapper for each request; it ends when nobody can ask any more.

    :param environment: of the wrappers
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Packets: a request and its descriptor come together, and an answer is one.
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                command(wrapper.SERVE, theirs.fileno()),
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(self, directory: Path, lock: int) -> int | None:
        """Start the wrapper of a run and return its exit code, or None if the spawner is gone."""
        try:
            socket.send_fds(self._requests, [os.fsencode(directory)], [lock])
            answer = self._requests.recv(16)
        except OSError:
            return None
        return int(answer) if answer else None

    def close(self) -> None:
        """End the process; the runs go on."""
        self._requests.close()
        self._process.wait()


def command(first: str | Path, descriptor: int) -> list[str]:
    """Return the command of a wrapper, or of what forks wrappers."""
    # -S: without site-packages it starts in half the time, and it needs none of them.
    return [sys.executable, "-P", "-S", "-m", "kaos.runtime.wrapper", str(first), str(descriptor)]


def current() -> Spawner | None:
    """Return the spawner of this process, if it has one."""
    return _current[-1] if _current else None


@contextmanager
def many_runs(environment: Mapping[str, str]) -> Iterator[None]:
    """Start the runs that are launched meanwhile from one spawner."""
    spawner = Spawner(environment)
    _current.append(spawner)
    try:
        yield
    finally:
        _current.remove(spawner)
        spawner.close()
