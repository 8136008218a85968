"""What goes through the gateway: requests, errors and how long they took, by endpoint and revision.

HAProxy keeps a line for every request until it is taken, and waits for nobody.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pydantic import Field

from kaos.errors import InvalidInputError
from kaos.value import Value

# Eight steps to a doubling, 0.5 ms to 17 min: a quantile is off by 9 % at most.
_BOUNDS: Final = tuple(0.0005 * 2 ** (step / 8) for step in range(168))
_PROMETHEUS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
_PAUSE: Final = 0.5
"""Seconds."""

Key = tuple[str, str]
"""An endpoint and a revision; the latter is ``-`` for what the gateway refused by itself."""


class Count(Value):
    """Requests to one revision since it was first routed.

    :param statuses: how many there were by HTTP status
    :param buckets: how many took how long, by the number of the step
    :param seconds: the sum of what they took
    """

    statuses: dict[int, int] = Field(default_factory=dict)
    buckets: dict[int, int] = Field(default_factory=dict)
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """Return how many there were."""
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """Return how many were answered with an error of the server's: 500 and above."""
        return sum(number for status, number in self.statuses.items() if status >= 500)

    def add(self, status: int, seconds: float) -> None:
        """Count a request."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        step = bisect.bisect_left(_BOUNDS, seconds)
        self.buckets[step] = self.buckets.get(step, 0) + 1
        object.__setattr__(self, "seconds", self.seconds + seconds)

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which this share of the requests was answered; None without any."""
        wanted = math.ceil(share * sum(self.buckets.values()))
        below = 0
        for step, number in sorted(self.buckets.items()):
            below += number
            if below >= wanted:
                return _BOUNDS[min(step, len(_BOUNDS) - 1)]
        return None

    def below(self, seconds: float) -> int:
        """Return how many took no longer than this, to the step."""
        return sum(n for step, n in self.buckets.items() if step < len(_BOUNDS) and _BOUNDS[step] <= seconds)


class Entry(Value):
    """The count of one revision, as it is kept in a file."""

    endpoint: str
    revision: str
    count: Count


class Snapshot(Value):
    """All counts at one moment."""

    entries: list[Entry] = Field(default_factory=list)

    def of(self, endpoint: str) -> dict[str, Count]:
        """Return the counts of an endpoint by revision."""
        return {entry.revision: entry.count for entry in self.entries if entry.endpoint == endpoint}


class Traffic:
    """Count the lines that the gateway sends, across its restarts and one's own; of several threads.

    :param file: where the counts are kept
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.counts = {(each.endpoint, each.revision): each.count for each in read(file).entries}
        self.changed = False
        self._lock = threading.Lock()

    def take(self, line: str) -> None:
        """Count a line; one that is none of ours is passed over."""
        fields = line.split()
        if len(fields) != 4 or fields[0] == "-" or not fields[2].isdigit() or not fields[3].isdigit():
            return
        endpoint, revision, status, milliseconds = fields
        with self._lock:
            self.counts.setdefault((endpoint, revision), Count()).add(int(status), int(milliseconds) / 1000)
            self.changed = True

    def forget(self, alive: Iterable[str]) -> None:
        """Forget the endpoints that are not there any more."""
        names = set(alive)
        with self._lock:
            for key in [key for key in self.counts if key[0] not in names]:
                del self.counts[key]
                self.changed = True

    def save(self) -> None:
        """Keep the counts, if there are new ones.

        :raises OSError: they cannot be written; the next time tries again
        """
        with self._lock:
            if not self.changed:
                return
            self.changed = False
            content = self._snapshot().encode()
        staged = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            staged.write_bytes(content)
            staged.replace(self.file)
        except OSError:
            self.changed = True
            raise

    def prometheus(self) -> str:
        """Return the counts in the text format of Prometheus."""
        with self._lock:
            return prometheus(self._snapshot())

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            entries=[
                Entry(endpoint=name, revision=rev, count=each) for (name, rev), each in self.counts.items()
            ]
        )


def read(file: Path) -> Snapshot:
    """Return the counts in a file; none if it is not there or damaged."""
    try:
        return Snapshot.parse(file.read_bytes())
    except (FileNotFoundError, InvalidInputError):
        return Snapshot()


def lines(path: Path) -> Iterator[list[str]]:
    """Yield the lines that the gateway sends to a socket, for ever; nothing at least twice a second."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        listener.settimeout(_PAUSE)
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                yield []
                continue
            with connection:
                yield from _received(connection)


def _received(connection: socket.socket) -> Iterator[list[str]]:
    """Yield what comes over one connection, until the gateway closes it."""
    connection.settimeout(_PAUSE)
    rest = b""
    while True:
        try:
            chunk = connection.recv(1 << 16)
        except TimeoutError:
            yield []
            continue
        if not chunk:
            return
        *whole, rest = (rest + chunk).split(b"\n")
        yield [line.decode(errors="replace") for line in whole]


def prometheus(snapshot: Snapshot) -> str:
    """Return the counts in the text format of Prometheus."""
    requests = [
        f'kaos_requests_total{{{_labels(each)},status="{status}"}} {number}'
        for each in snapshot.entries
        for status, number in sorted(each.count.statuses.items())
    ]
    seconds = itertools.chain.from_iterable(
        [
            *(
                f'kaos_request_seconds_bucket{{{_labels(each)},le="{bound:g}"}} {each.count.below(bound)}'
                for bound in _PROMETHEUS
            ),
            f'kaos_request_seconds_bucket{{{_labels(each)},le="+Inf"}} {each.count.requests}',
            f"kaos_request_seconds_sum{{{_labels(each)}}} {each.count.seconds:.6f}",
            f"kaos_request_seconds_count{{{_labels(each)}}} {each.count.requests}",
        ]
        for each in snapshot.entries
    )
    return "\n".join(
        [
            "# HELP kaos_requests_total Requests to an endpoint, by revision and HTTP status.",
            "# TYPE kaos_requests_total counter",
            *requests,
            "# HELP kaos_request_seconds Seconds from a request to the end of its answer.",
            "# TYPE kaos_request_seconds histogram",
            *seconds,
            "",
        ]
    )


def _labels(entry: Entry) -> str:
    return f'endpoint="{entry.endpoint}",revision="{entry.revision}"'
