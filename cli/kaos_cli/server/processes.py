"""Find the processes of an instance by their environment, and end them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def marked(
    instance: str, component: str | None = None, *, jobs: bool = True, components: bool = True
) -> list[psutil.Process]:
    """Return the processes that carry the instance's mark, without this one and those that started it.

    :param component: only those of this component
    :param jobs: also the processes of users' jobs, which outlive the components
    :param components: also those of the components
    """
    import psutil

    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid in own or process.status() == psutil.STATUS_ZOMBIE:
                continue
            environ = process.environ()
        except psutil.Error:  # ended meanwhile, or somebody else's
            continue
        if environ.get("KAOS_INSTANCE") != instance:
            continue
        if component is not None and environ.get("KAOS_COMPONENT") != component:
            continue
        if not (components if "KAOS_COMPONENT" in environ else jobs):
            continue
        found.append(process)
    return found


def end(processes: Iterable[psutil.Process], grace: float) -> list[psutil.Process]:
    """Ask processes to end, then make them; return those that are still there, in the hands of the kernel.

    :param grace: seconds between SIGTERM and SIGKILL; 0 for SIGKILL at once
    """
    alive = list(processes)
    if grace:
        for process in alive:
            _send(process, "terminate")
        alive = _wait(alive, grace)
    for process in alive:
        _send(process, "kill")
    return _wait(alive, 5)


def _send(process: psutil.Process, how: str) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        getattr(process, how)()


def _wait(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes that are nobody's children here: one that only waits to be reaped has ended."""
    import psutil

    deadline = time.monotonic() + seconds
    while True:
        processes = [one for one in processes if one.is_running() and _status(one) != psutil.STATUS_ZOMBIE]
        if not processes or time.monotonic() > deadline:
            return processes
        time.sleep(0.05)


def _status(process: psutil.Process) -> str:
    import psutil

    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)
