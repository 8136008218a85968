"""What is worth another try, and when."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime

STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
"""HTTP statuses that may be another one next time; other 5xx, such as 501, are answers."""


def retry_after(value: str | None, now: float | None = None) -> float:
    """Return the seconds that a Retry-After header asks for, given as such or as a date; 0 if it says
    nothing.

    :param now: seconds since the epoch
    """
    if not value:
        return 0.0
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, when - (time.time() if now is None else now))


def wait(attempt: int, backoff: float, longest: float, asked: float = 0.0) -> float:
    """Return the seconds to wait after failed attempt number `attempt`, from 1.

    Full jitter: evenly between 0 and a bound that doubles, so that many transfers that failed together do
    not come back together. What the server asks for comes first, with the jitter of one attempt.
    """
    if asked:
        return float(min(asked + random.uniform(0, backoff), longest))  # noqa: S311 (no secret)
    return random.uniform(0, min(longest, backoff * 2.0 ** min(attempt - 1, 30)))  # noqa: S311
