"""Say in words how a script ended, or why it could not begin.

Only the standard library, since the wrapper of every run loads this.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path


def describe(status: int | None, memory: str) -> tuple[int, str]:
    """Return the exit code and the reason that belong to a wait status.

    :param memory: what is known of memory as the cause, empty for nothing
    """
    if status is None:
        return 128 + signal.SIGKILL, "it did not end when it was killed"
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return 128 - code, f"killed by signal {-code} ({memory or _signal_name(-code)})"
    if code == 0:
        return 0, ""
    return code, f"exit code {code} ({memory})" if memory else f"exit code {code}"


def explain(command: list[str], program: Path, number: int) -> tuple[int, str]:
    """Return the exit code and the reason for a script that the kernel would not start."""
    name, path = command[0], program / command[0]
    if number == errno.EACCES and path.is_file() and not os.access(path, os.X_OK):
        return 126, f"{name} is not executable: run `chmod +x` on it and deploy again"
    if number == errno.ENOEXEC:
        return (
            126,
            f"{name} does not say what runs it: its first line must be one such as `#!/usr/bin/env python3`",
        )
    if number == errno.ENOENT and path.is_file():
        first = path.read_bytes()[:200].partition(b"\n")[0]
        if first.endswith(b"\r"):
            return 127, f"the lines of {name} end in CR LF: save it with Unix line ends"
        return 127, f"{name} wants an interpreter that is not there: {first.decode(errors='replace')}"
    if number == errno.ENOENT:
        return 127, f"{name} is not there"
    return 126, f"{name} cannot be run: {os.strerror(number)}"


def complains_of_memory(log: Path) -> bool:
    """Tell whether the last that a script said is that it got no memory."""
    # With a limit on the address space nobody is killed: allocations fail, and the script says so.
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        end = file.read()
    return any(word in end for word in (b"MemoryError", b"std::bad_alloc", b"annot allocate memory"))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"
