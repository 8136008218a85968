"""Processes that end with the one that started them, on Linux, by the kernel's parent-death signal."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends (on Linux; elsewhere do nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


class _Generation:
    """Count the forks from the first process down to this one."""

    def __init__(self, deepest: int) -> None:
        self.deepest = deepest
        self.depth = 0
        self.from_main_thread = True

    def before(self) -> None:
        # The signal comes when the forking *thread* ends, so that children of other threads go without.
        self.from_main_thread = threading.get_native_id() == os.getpid()

    def in_child(self) -> None:
        self.depth += 1
        if self.depth <= self.deepest and self.from_main_thread:
            die_with_parent(signal.SIGKILL)


def forked_children_die_with_us(deepest: int = 2) -> None:
    """Tie every process that is forked from here on to the one that forked it.

    :param deepest: how many generations: an executor's worker and the task in it, but nothing that a task
        starts. A job's process must outlive its task, which finds it again.
    """
    if sys.platform == "linux":
        generation = _Generation(deepest)
        os.register_at_fork(before=generation.before, after_in_child=generation.in_child)
