"""What people see: tables (or JSON) on standard output, everything else on standard error."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from email.utils import format_datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kaos.transfer.scan import Progress

_BAR = 27
_STATUS_SECONDS = 5.0


def say(line: str = "") -> None:
    """Tell the person something that is no data."""
    click.echo(line, err=True)


def done(line: str) -> None:
    """Tell the person that something is finished."""
    say(f" ✔ {line}")


def print_json(value: Any) -> None:
    """Print data for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """Print a table, in the shape of the original system's."""
    click.echo(table_text(columns, rows, title))


def table_text(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> str:
    """Return such a table."""
    from prettytable import PrettyTable

    table = PrettyTable(list(columns))
    if title:
        table.title = title
    table.add_rows([["" if cell is None else cell for cell in row] for row in rows])
    return str(table.get_string())


def narrow(columns: int) -> bool:
    """Tell whether standard output is a terminal with fewer columns than this."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns < columns


def show_time(moment: datetime | None) -> str:
    """Return a time as the tables show it: ``Mon, 29 Jul 2019 12:38:39 GMT``."""
    return format_datetime(moment.replace(microsecond=0), usegmt=True) if moment else ""


def show_seconds(seconds: float | None) -> str:
    """Return a duration in whole seconds."""
    return "" if seconds is None else f"{seconds:.0f}"


@contextmanager
def progress_bar(label: str, size: int) -> Iterator[Progress]:
    """Show a bar that fills while bytes are done: ``Compressing source bundle: 100%|█████|``.

    Where standard error is no terminal the bar is printed once, when it is full.
    """
    lock, done_bytes, shown = Lock(), 0, -1

    def draw(percent: int, end: str) -> None:
        filled = "█" * (percent * _BAR // 100)
        sys.stderr.write(f"\r{label}: {percent:3d}%|{filled:<{_BAR}}|{end}")
        sys.stderr.flush()

    def advance(count: int) -> None:
        nonlocal done_bytes, shown
        with lock:
            done_bytes += count
            percent = min(99, done_bytes * 100 // size) if size else 99
            if percent != shown and sys.stderr.isatty():
                shown = percent
                draw(percent, "")

    yield advance
    with lock:
        if sys.stderr.isatty():
            draw(100, "\n")
        else:
            say(f"{label}: 100%|{'█' * _BAR}|")


class StatusLine:
    """A line on standard error that is written over while something goes on; whole lines where that is no
    terminal, not more than one in five seconds.
    """

    def __init__(self) -> None:
        self._shown = ""
        self._written = 0.0

    def show(self, text: str) -> None:
        """Put `text` in the place of what is there."""
        if text == self._shown:
            return
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r{text[:width]:<{min(width, len(self._shown))}}")
            sys.stderr.flush()
        elif time.monotonic() - self._written < _STATUS_SECONDS:
            return
        else:
            say(text)
        self._shown, self._written = text, time.monotonic()

    def clear(self) -> None:
        """Remove it, for lines that stay."""
        if self._shown and sys.stderr.isatty():
            sys.stderr.write(f"\r{'':<{min(len(self._shown), shutil.get_terminal_size().columns - 1)}}\r")
            sys.stderr.flush()
        self._shown = ""


OutputOption = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="As a table, or as JSON for programs.",
)
