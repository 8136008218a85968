"""The packages of a resolved lock: what ``uv pip compile`` writes, a requirement with hashes per package."""

from __future__ import annotations

import re

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;\\]+)")
_OTHER = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*@\s*(\S+)")


def packages(lock: str) -> dict[str, str]:
    """Return the version, or the address, of each package by its normal name."""
    found: dict[str, str] = {}
    for line in lock.splitlines():
        match = _PINNED.match(line) or _OTHER.match(line)
        if match is not None:
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found
