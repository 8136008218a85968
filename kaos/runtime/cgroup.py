"""Control groups for one run: they hold its processes together and to their limits, where there are any.

Version 2 where its controllers are delegated to us, else version 1, else none. Only the standard library: the
wrapper of every run loads this.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import NamedTuple

_PERIOD_MICROSECONDS = 100_000


class Mounts(NamedTuple):
    """Where the groups of this process are: the unified tree, and those of version 1 by controller."""

    unified: Path | None
    version1: dict[str, Path]


class Group(NamedTuple):
    """The directories that hold one run, and what each of them limits.

    :param directories: one in each tree that is used
    :param memory: whether the memory is limited by them
    :param cpu: whether the CPU time is limited by them
    :param version: of the control groups that limit, for people
    """

    directories: tuple[Path, ...] = ()
    memory: bool = False
    cpu: bool = False
    version: str = ""

    def add(self, pid: int) -> bool:
        """Move a process, and so all that it starts later, into the group; return whether that worked."""
        # A list: every directory is tried.
        return all([_try_write(directory / "cgroup.procs", pid) for directory in self.directories])

    def pids(self) -> set[int]:
        """Return the numbers of the processes in the group."""
        found: set[int] = set()
        for directory in self.directories:
            try:
                found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
            except OSError:
                continue
        return found

    def kill(self) -> None:
        """Kill all of it in one stroke where the kernel can (version 2, Linux 5.14)."""
        for directory in self.directories:
            if (directory / "cgroup.kill").exists():
                _try_write(directory / "cgroup.kill", 1)

    def out_of_memory(self) -> int:
        """Return how many processes of the group the kernel killed because its memory was used up."""
        counts = [0]
        for directory in self.directories:
            for name in ("memory.events", "memory.oom_control"):
                try:
                    lines = (directory / name).read_text().splitlines()
                except OSError:
                    continue
                counts += [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
        return max(counts)

    def remove(self) -> None:
        """Remove the directories; the processes in them must have ended."""
        for directory in self.directories:
            for _ in range(50):
                try:
                    directory.rmdir()
                except OSError as error:
                    # A killed process stays in its group for the moment until it is collected.
                    if error.errno != errno.EBUSY:
                        break
                    time.sleep(0.01)
                else:
                    break


def mounts(mountinfo: str, membership: str) -> Mounts:
    """Read ``/proc/self/mountinfo`` and ``/proc/self/cgroup``: the directories of our own groups."""
    own: dict[str, str] = {}
    for line in membership.splitlines():
        number, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if number != "0" else [""]:
            own[controller] = path
    unified: Path | None = None
    version1: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            unified = _inside(point, root, own.get("", "/"))
        elif kind == "cgroup":
            for controller in {"cpu", "memory"} & set(options.split(",")):
                version1[controller] = _inside(point, root, own.get(controller, "/"))
    return Mounts(unified, version1)


def own_mounts() -> Mounts:
    """Return the groups that this process is in."""
    try:
        return mounts(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    except OSError:
        return Mounts(None, {})


def create(name: str, *, cpu: float | None, memory: int | None, at: Mounts) -> Group:
    """Make a group for one run, with as much of what is asked as the machine lets us.

    :param cpu: cores, None for no limit
    :param memory: bytes, None for no limit
    """
    wanted = {key for key, value in (("cpu", cpu), ("memory", memory)) if value is not None}
    if at.unified is not None and wanted:
        directory = _create_delegated(at.unified, name, wanted, cpu, memory)
        if directory is not None:
            return Group((directory,), memory is not None, cpu is not None, "cgroup v2")
    directories = []
    # Without limits of its own it still holds the run's processes together.
    if at.unified is not None and (directory := _make(at.unified / name)) is not None:
        directories.append(directory)
    cpu_limited = memory_limited = False
    if cpu is not None and "cpu" in at.version1 and (directory := _make(at.version1["cpu"] / name)):
        directories.append(directory)
        cpu_limited = _limit_cpu1(directory, cpu)
    if memory is not None and "memory" in at.version1 and (directory := _make(at.version1["memory"] / name)):
        directories.append(directory)
        memory_limited = _limit_memory1(directory, memory)
    version = "cgroup v1" if cpu_limited or memory_limited else ""
    return Group(tuple(directories), memory_limited, cpu_limited, version)


def _create_delegated(
    own: Path, name: str, wanted: set[str], cpu: float | None, memory: int | None
) -> Path | None:
    # A group with processes in it (ours) passes no controllers on; its parent may, if systemd delegates it.
    for parent in (own, own.parent):
        if not wanted <= set(_read(parent / "cgroup.controllers").split()):
            continue
        if not wanted <= set(_read(parent / "cgroup.subtree_control").split()):
            enable = " ".join(f"+{controller}" for controller in sorted(wanted))
            if parent != own or not _try_write(parent / "cgroup.subtree_control", enable):
                continue
        directory = _make(parent / name)
        if directory is None:
            continue
        quota = None if cpu is None else f"{_quota(cpu)} {_PERIOD_MICROSECONDS}"
        if (quota is None or _try_write(directory / "cpu.max", quota)) and (
            memory is None or _try_write(directory / "memory.max", memory)
        ):
            if memory is not None:
                _try_write(directory / "memory.swap.max", 0)
            return directory
        directory.rmdir()
    return None


def _quota(cpu: float) -> int:
    return max(1_000, round(cpu * _PERIOD_MICROSECONDS))  # the kernel takes no less than 1 ms


def _limit_cpu1(directory: Path, cpu: float) -> bool:
    period = _try_write(directory / "cpu.cfs_period_us", _PERIOD_MICROSECONDS)
    return period and _try_write(directory / "cpu.cfs_quota_us", _quota(cpu))


def _limit_memory1(directory: Path, memory: int) -> bool:
    limited = _try_write(directory / "memory.limit_in_bytes", memory)
    if limited:
        # Memory and swap together, where the kernel counts swap.
        _try_write(directory / "memory.memsw.limit_in_bytes", memory)
    return limited


def _inside(point: str, root: str, path: str) -> Path:
    """Return our group under a mount point; in a container the mount may show only a part of the tree."""
    relative = path.removeprefix(root) if root != "/" else path
    directory = Path(point) / relative.lstrip("/")
    return directory if directory.is_dir() else Path(point)


def _make(directory: Path) -> Path | None:
    try:
        directory.mkdir(exist_ok=True)
    except OSError:
        return None
    if os.access(directory / "cgroup.procs", os.W_OK):
        return directory
    directory.rmdir()
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _try_write(path: Path, value: object) -> bool:
    try:
        # Unbuffered: the kernel's refusal comes with this one write, and the file is never made here.
        with path.open("r+b", buffering=0) as file:
            file.write(str(value).encode())
    except OSError:
        return False
    return True
