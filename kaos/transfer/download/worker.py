"""An engine in a process of its own: thousands of small files keep more than one interpreter busy.

The parent sends its share as one pickle and then holds the pipe open; the child ends when that closes, so
that it never outlives its parent. It answers with pickles too: what has ended and how far it is, twenty
times a second.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from kaos.errors import KaosError
from kaos.store import FileObjects
from kaos.transfer.download.engine import Ended, Engine, Lane
from kaos.transfer.download.pending import Pending
from kaos.transfer.download.transfer import Failure, Gave, Transfer

_LENGTH = struct.Struct("!I")
_EVERY = 0.05


@dataclass(frozen=True)
class _Report:
    """What a child says.

    :param ended: number of each transfer that ended, and how
    :param error: why it gave up
    """

    ended: list[tuple[int, Gave | Failure]]
    received: int
    retries: int
    last: bool
    error: OSError | KaosError | None = None


class WorkerProcess:
    """One process's share of the transfers; as an `Engine` to those who run it.

    :param transfers: this process's own
    """

    def __init__(self, transfers: Sequence[Transfer], objects: FileObjects, lane: Lane) -> None:
        self.received = 0
        self.retries = 0
        self._transfers = transfers
        self._work = (transfers, objects, lane)

    def run(self, ended: deque[Ended], stop: threading.Event) -> None:
        """Do the transfers; put each that ends into `ended`.

        :raises OSError: the disk does not take the files, or the process was killed
        """
        command = [sys.executable, "-P", "-c", f"import {__name__} as worker; worker.main()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            try:
                self._talk(child, ended, stop)
            finally:
                child.kill()

    def _talk(self, child: subprocess.Popen[bytes], ended: deque[Ended], stop: threading.Event) -> None:
        if child.stdin is None or child.stdout is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it is gone: said below
            _send(child.stdin, self._work)
        while not stop.is_set():
            if not select.select([child.stdout], [], [], _EVERY * 4)[0]:
                continue
            report: _Report | None = _receive(child.stdout)
            if report is None:
                raise ChildProcessError(f"a process of the download ended with {child.wait()}")
            self.received, self.retries = report.received, report.retries
            ended.extend((self._transfers[number], answer) for number, answer in report.ended)
            if report.error is not None:
                raise report.error
            if report.last:
                return


def _send(pipe: IO[bytes], message: Any) -> None:
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(content)) + content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Return the next message of the other side, which is this same program; None if it is gone."""
    header = pipe.read(_LENGTH.size)
    content = pipe.read(_LENGTH.unpack(header)[0]) if len(header) == _LENGTH.size else b""
    if len(header) < _LENGTH.size or len(content) < _LENGTH.unpack(header)[0]:
        return None
    return pickle.loads(content)  # noqa: S301


def main() -> None:
    """Be the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when it is over
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # nothing else may write between the reports
    work = _receive(sys.stdin.buffer)
    if work is None:
        return
    transfers, objects, lane = work
    numbers = {id(transfer): number for number, transfer in enumerate(transfers)}
    engine = Engine(Pending(transfers), objects, lane)
    ended: deque[Ended] = deque()
    finished = threading.Event()

    def report(*, last: bool = False, error: OSError | KaosError | None = None) -> None:
        rows = []
        while ended:
            transfer, answer = ended.popleft()
            rows.append((numbers[id(transfer)], answer))
        _send(out, _Report(rows, engine.received, engine.retries, last, error))

    def tell() -> None:
        while not finished.wait(_EVERY):
            if select.select([0], [], [], 0)[0]:  # the parent never writes again: it is gone
                os._exit(1)
            report()

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    error = None
    try:
        engine.run(ended, threading.Event())
    except (OSError, KaosError) as caught:
        error = caught
    finished.set()
    teller.join()
    report(last=True, error=error)
