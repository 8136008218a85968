"""Metrics that a script writes while it runs: JSON lines in ``metrics/*.jsonl``, each an object of numbers.

::

    {"step": 10, "loss": 0.3}
    {"step": 20, "loss": 0.2, "accuracy_validation": 0.91}

`step` says where in the training the line belongs, and is no metric. Whatever is no such line is passed over:
a script is never failed for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import Field

from kaos.model import score
from kaos.value import Value

PATTERN = "metrics/*.jsonl"
"""Where, in its output directory, a `train` script appends its live metrics."""

STEP = "step"
LONGEST_LINE = 64 << 10
MOST_METRICS = 100

_LONGEST_NAME = 100


class Line(NamedTuple):
    """One line: the step that it names, if it does, and its numbers, NaN and infinities among them."""

    step: float | None
    metrics: dict[str, float]


class LiveTrial(Value):
    """A trial that runs, and the newest of its metrics.

    :param name: its parameters as a person reads them
    :param step: the newest step that a line named
    :param at: when the worker read them
    """

    index: int
    name: str
    params: dict[str, Any] = Field(default_factory=dict)
    step: float | None = None
    metrics: dict[str, float]
    at: datetime


def is_live_file(path: str) -> bool:
    """Tell whether a path in an output directory holds live metrics."""
    folder, _, name = path.rpartition("/")
    return folder == "metrics" and name.endswith(".jsonl")


def parse_line(content: bytes) -> Line | None:
    """Return what a line says, or None for one that is no JSON object or has no number."""
    if len(content) > LONGEST_LINE:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    numbers = {
        name: value
        for name in document
        if 0 < len(name) <= _LONGEST_NAME
        and name.isprintable()
        and (value := score(document, name)) is not None
    }
    step = numbers.pop(STEP, None)
    return Line(step if step is not None and math.isfinite(step) else None, numbers) if numbers else None


class Splitter:
    """Whole lines out of chunks; of a line that is too long nothing is kept."""

    def __init__(self, *, skip: bool = False) -> None:
        self._rest = b""
        self._skip = skip

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk ends."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if lines and self._skip:
            lines, self._skip = lines[1:], False
        if len(self._rest) > LONGEST_LINE:
            self._rest, self._skip = b"", True
        return lines

    def end(self) -> list[bytes]:
        """Return what stands after the last line break, at the end of a file that nobody writes any more."""
        return [self._rest] if self._rest and not self._skip else []


def lines_of(chunks: Iterable[bytes], *, skip: bool = False) -> Iterator[Line]:
    """Yield the lines of a finished file that comes in chunks.

    :param skip: the first chunk begins in the middle of a line
    """
    splitter = Splitter(skip=skip)
    for chunk in chunks:
        yield from filter(None, map(parse_line, splitter.feed(chunk)))
    yield from filter(None, map(parse_line, splitter.end()))


class Latest:
    """The newest value of each metric, of the first hundred names."""

    def __init__(self) -> None:
        self.step: float | None = None
        self.metrics: dict[str, float] = {}

    def add(self, line: Line) -> None:
        """Take a line in."""
        if line.step is not None:
            self.step = line.step
        for name, value in line.metrics.items():
            if name in self.metrics or len(self.metrics) < MOST_METRICS:
                self.metrics[name] = value


class Sampler:
    """Points of a curve of any length: evenly spaced ones, fewer than twice `most`, and the last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._every = 1
        self._count = 0
        self._kept: list[tuple[float, float]] = []
        self._last: tuple[float, float] | None = None

    def add(self, step: float | None, value: float) -> None:
        """Take a point in; without a step its number is its place."""
        self._last = (float(self._count) if step is None else step, value)
        if self._count % self._every == 0:
            self._kept.append(self._last)
            if len(self._kept) == 2 * self._most:
                self._kept, self._every = self._kept[::2], self._every * 2
        self._count += 1

    @property
    def points(self) -> list[tuple[float, float]]:
        """Return the points, by step."""
        tail = [self._last] if self._last is not None and self._last != self._kept[-1] else []
        return sorted([*self._kept, *tail], key=lambda point: point[0])


def show(step: float | None, metrics: dict[str, float], most: int = 8) -> str:
    """Return metrics as a person reads them: ``loss=0.3 step=10``."""
    shown = [f"{name}={value:.6g}" for name, value in list(metrics.items())[:most]]
    if len(metrics) > most:
        shown.append(f"and {len(metrics) - most} more")
    return " ".join(shown if step is None else [*shown, f"{STEP}={step:.10g}"])
