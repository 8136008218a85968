"""SHA-256 digests: how they are written, checked, and shown as short prefixes."""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Iterable

SHORT = 5
"""Characters shown of a bundle's digest, as long as no other bundle shares them."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content` as 64 hexadecimal characters."""
    return hashlib.sha256(content).hexdigest()


def is_digest(text: str) -> bool:
    """Tell whether `text` is a full SHA-256 digest in lower-case hexadecimal."""
    return _DIGEST.fullmatch(text) is not None


def shortest_prefix(digest: str, others: Iterable[str], least: int = SHORT) -> str:
    """Return the shortest prefix of `digest`, of `least` characters or more, that none of `others` has."""
    return digest[
        : max(least, 1 + max((_shared(digest, other) for other in others if other != digest), default=0))
    ]


def matching(prefix: str, digests: Iterable[str]) -> list[str]:
    """Return the digests that begin with `prefix`, sorted."""
    ordered = sorted(set(digests))
    start = bisect.bisect_left(ordered, prefix)
    end = bisect.bisect_left(ordered, prefix + "g")
    return ordered[start:end]


def _shared(one: str, two: str) -> int:
    for position, (left, right) in enumerate(zip(one, two, strict=False)):
        if left != right:
            return position
    return min(len(one), len(two))
