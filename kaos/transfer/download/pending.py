"""The transfers that are still to do, shared by the threads: fair to hosts, and in time after a wait."""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable

from kaos.transfer.download.transfer import Transfer


class Pending:
    """Transfers by host, taken in turn, so that a slow one does not keep the others waiting."""

    def __init__(self, transfers: Iterable[Transfer]) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, deque[Transfer]] = {}
        self._turn: deque[str] = deque()
        self._waiting: list[tuple[float, int, Transfer]] = []
        self._paused: dict[str, float] = {}
        self._number = 0
        self._open = 0
        for transfer in transfers:
            self._add(transfer)
            self._open += 1

    @property
    def done(self) -> bool:
        """Tell whether every transfer has ended."""
        return self._open == 0

    def take(self, busy: Counter[str], per_host: int) -> Transfer | None:
        """Return a transfer whose host is not busy with `per_host` of the caller's, or None if there is none
        now.
        """
        with self._lock:
            now = time.monotonic()
            while self._waiting and self._waiting[0][0] <= now:
                self._add(heapq.heappop(self._waiting)[2])
            for _ in range(len(self._turn)):
                host = self._turn[0]
                self._turn.rotate(-1)
                if busy[host] < per_host and self._paused.get(host, now) <= now:
                    transfers = self._hosts[host]
                    transfer = transfers.popleft()
                    if not transfers:
                        del self._hosts[host]
                        self._turn.remove(host)
                    return transfer
            return None

    def again(self, transfer: Transfer, seconds: float) -> None:
        """Put a transfer back, to be taken after a wait."""
        with self._lock:
            self._number += 1
            heapq.heappush(self._waiting, (time.monotonic() + seconds, self._number, transfer))

    def pause(self, host: str, seconds: float) -> None:
        """Take nothing from a host for a while: it has said that it is asked for too much."""
        with self._lock:
            self._paused[host] = max(self._paused.get(host, 0), time.monotonic() + seconds)

    def close_one(self) -> None:
        """Note that a transfer has ended."""
        with self._lock:
            self._open -= 1

    def due(self) -> float:
        """Return the seconds until a transfer's or a host's wait is over; infinity if none waits."""
        with self._lock:
            now = time.monotonic()
            times = [until for until in self._paused.values() if until > now]
            if self._waiting:
                times.append(self._waiting[0][0])
            return min(times) - now if times else float("inf")

    def _add(self, transfer: Transfer) -> None:
        host = transfer.host
        if host not in self._hosts:
            self._hosts[host] = deque()
            self._turn.append(host)
        self._hosts[host].append(transfer)
