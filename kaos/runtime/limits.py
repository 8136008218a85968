"""Hold a run to its CPU and memory, by the best means that the machine lets us, and say which it is.

Only the standard library, since the wrapper of every run loads this.
"""

from __future__ import annotations

import math
import os
import resource
from typing import NamedTuple

from kaos.runtime import cgroup


class Limits(NamedTuple):
    """What holds a run.

    :param group: its control group, without directories where the machine gives none
    :param words: what limits what, for people
    """

    group: cgroup.Group
    words: str


def apply(pid: int, name: str, *, cpu: float | None, memory: int | None, memory_shown: str) -> Limits:
    """Limit a process that has not yet begun its work, and all that it will start.

    :param name: of the control group
    :param cpu: cores, None for no limit
    :param memory: bytes, None for no limit
    :param memory_shown: the same for people
    """
    group = cgroup.create(name, cpu=cpu, memory=memory, at=cgroup.own_mounts())
    if not group.add(pid):
        group.remove()
        group = cgroup.Group()
    words = []
    if memory is not None:
        words.append(
            f"memory {memory_shown} by {group.version if group.memory else _address_space(pid, memory)}"
        )
    if cpu is not None:
        words.append(f"cpu {cpu:g} by {group.version if group.cpu else _affinity(pid, name, cpu)}")
    return Limits(group, ", ".join(words) or "none asked for")


def _address_space(pid: int, memory: int) -> str:
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    size = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.prlimit(pid, resource.RLIMIT_AS, (size, size))
    return "rlimit (address space, of each process by itself)"


def _affinity(pid: int, name: str, cpu: float) -> str:
    allowed = sorted(os.sched_getaffinity(0))
    count = min(len(allowed), math.ceil(cpu))
    # Two runs at a time should not share a core while another one idles: each begins at its own.
    first = int(name[-8:], 16) % len(allowed)
    os.sched_setaffinity(pid, {allowed[(first + step) % len(allowed)] for step in range(count)})
    return f"affinity ({count} core{'' if count == 1 else 's'})"
