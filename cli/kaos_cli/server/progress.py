"""Say on stderr what is being waited for, with the seconds so far."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self


class Progress:
    """Keep one line up to date on a terminal; elsewhere print a line for each new thing."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("") if self._console.is_terminal else None
        self._began = time.monotonic()
        self._last = ""

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    @property
    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    def __call__(self, what: str) -> None:
        """Show what is being waited for."""
        line = f"{self.seconds:4.0f} s  {what}"
        if self._status:
            self._status.update(line)
        elif what != self._last:
            self._console.print(line, soft_wrap=True, markup=False)
        self._last = what
