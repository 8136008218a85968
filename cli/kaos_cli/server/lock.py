"""One `up` or `down` at a time in a home."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kaos_cli.server.files import private_folder
from kaos_cli.server.layout import Layout


@contextmanager
def exclusive(layout: Layout, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the home's lock, waiting for whoever has it; the kernel lets go of it when the holder dies."""
    private_folder(layout.home)
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode().strip() or "?"
            report(f"waiting for another kaos command at work here (process {holder})")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
