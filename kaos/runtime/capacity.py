"""Read what this machine, or the container that we are in, can give to its jobs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from kaos.resources import Capacity
from kaos.runtime.cgroup import own_mounts


def machine_capacity() -> Capacity:
    """Return cores, memory and GPUs, as far as the control groups that we are in let us use them."""
    mounts = own_mounts()
    return Capacity(
        cpu=_cpu(mounts.unified, mounts.version1.get("cpu")),
        memory=_memory(mounts.unified, mounts.version1.get("memory")),
        gpu=_gpu(),
    )


def _cpu(unified: Path | None, version1: Path | None) -> float:
    limits = [float(len(os.sched_getaffinity(0)))]
    for directory in _upwards(unified):
        quota, _, period = _read(directory / "cpu.max").partition(" ")
        if quota.isdigit():
            limits.append(int(quota) / int(period))
    for directory in _upwards(version1):
        quota, period = _read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # -1 is no limit
            limits.append(int(quota) / int(period))
    return min(limits)


def _memory(unified: Path | None, version1: Path | None) -> int:
    # No file of control groups is larger than the machine: "no limit" is a huge number in version 1.
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    found = [_read(directory / "memory.max") for directory in _upwards(unified)]
    found += [_read(directory / "memory.limit_in_bytes") for directory in _upwards(version1)]
    return min(limits + [int(limit) for limit in found if limit.isdigit()])


def _gpu() -> int:
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        try:
            listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            listed = None
        if listed is not None and listed.returncode == 0:
            return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return sum(re.fullmatch(r"nvidia\d+", device.name) is not None for device in Path("/dev").iterdir())


def _upwards(directory: Path | None) -> list[Path]:
    """Return a group's directory and those above it, up to the mount."""
    if directory is None:
        return []
    return [path for path in (directory, *directory.parents) if (path / "cgroup.procs").exists()]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
