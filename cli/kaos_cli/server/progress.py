"""Say on stderr what is being waited for, with the seconds so far."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_CLEAR = "\r\033[K"


class Progress:
    """Keep one line up to date on a terminal; elsewhere print a line for each new thing."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            self._write(_CLEAR)

    @property
    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    def __call__(self, what: str) -> None:
        """Show what is being waited for."""
        line = f"{self.seconds:4.0f} s  {what}"
        if self._terminal:
            self._write(f"{_CLEAR}{line[:78]}")
        elif what != self._last:
            self._write(f"{line}\n")
        self._last = what

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
