"""What a container printed, from any position on, while it runs and when it is gone.

podman writes the log to a file of the run (``k8s-file``: a time, the stream and whether the line is whole,
before each line); nothing has to be kept alive for it. docker keeps it to itself: `docker logs --follow`
copies it to the same file and is started again where it died; the file is written whole once the container
has ended.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from kaos.runtime.container.engine import ContainerEngine, Podman
from kaos.runtime.container.records import LOG, LOG_LOCK, Handle

_CHUNK_BYTES = 1 << 20


def log_file(engine: ContainerEngine, directory: Path) -> Path | None:
    """Return where the engine itself has to write a container's log."""
    return directory / LOG if isinstance(engine, Podman) else None


def read_log(engine: ContainerEngine, run: Handle, offset: int) -> tuple[bytes, int]:
    """Return what was printed since `offset`, at most 1 MiB, and the next offset."""
    return read_file(engine, run.directory / LOG, offset)


def read_file(engine: ContainerEngine, log: Path, offset: int) -> tuple[bytes, int]:
    """Return what was printed since `offset` of a log as the engine wrote it, and the next offset."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            chunk = file.read(_CHUNK_BYTES)
    except FileNotFoundError:
        return b"", offset
    whole = chunk[: chunk.rfind(b"\n") + 1]
    if not isinstance(engine, Podman):
        if len(chunk) == _CHUNK_BYTES:  # there is more: the rest of the last line comes with it
            chunk = whole or chunk
        return chunk, offset + len(chunk)
    if not whole and len(chunk) == _CHUNK_BYTES:
        return chunk, offset + len(chunk)  # no log of podman's has such a line
    return decode(whole), offset + len(whole)


def read_lines(log: Path, offset: int) -> tuple[bytes, int]:
    """Return the whole lines that were printed since `offset` of a log of podman's, and the next offset."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            chunk = file.read(_CHUNK_BYTES)
    except FileNotFoundError:  # a later launch has just put it away
        return b"", offset
    lines = chunk[: chunk.rfind(b"\n") + 1].splitlines(keepends=True)
    while lines and lines[-1].split(b" ", 3)[2:3] == [b"P"]:  # the rest of it is still to come
        lines.pop()
    whole = b"".join(lines)
    return decode(whole), offset + len(whole)


def decode(lines: bytes) -> bytes:
    """Return what was printed, from whole lines of a ``k8s-file``."""
    # Not `splitlines`: a carriage return, as progress bars print it, ends no line here.
    fields = [line.split(b" ", 3) for line in lines.split(b"\n")]
    return b"".join(each[3] + (b"\n" if each[2] == b"F" else b"") for each in fields if len(each) == 4)


def keep(engine: ContainerEngine, run: Handle) -> None:
    """See to it that somebody copies the log of a running container."""
    if isinstance(engine, Podman):
        return
    lock = os.open(run.directory / LOG_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        log = os.open(run.directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            engine.follow_log(run.container, log, lock)
        finally:
            os.close(log)
    finally:
        os.close(lock)


def complete(engine: ContainerEngine, run: Handle) -> None:
    """Have the whole log of a container that has ended in the run's file."""
    if isinstance(engine, Podman):
        return
    new = run.directory / f"{LOG}.{os.getpid()}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        code = engine.write_log(run.container, descriptor)
    finally:
        os.close(descriptor)
    if code == 0:
        new.replace(run.directory / LOG)
    else:
        new.unlink()
