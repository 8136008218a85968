"""How far a download is."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """How far a download is.

    :param files: files of the manifest that are there
    :param total: files of the manifest
    :param received: bytes that arrived in this run
    :param size: bytes of all files, or None if the manifest does not give all sizes
    :param present: bytes of the files that are there
    :param unchanged: files that needed no transfer
    :param failed: files that failed for good
    :param retries: attempts that had to be repeated
    :param seconds: since the start
    :param ended: nothing more will come
    """

    files: int
    total: int
    received: int
    size: int | None
    present: int
    unchanged: int
    failed: int
    retries: int
    seconds: float
    ended: bool = False

    @property
    def rate(self) -> float:
        """Return the bytes received per second, on average."""
        return self.received / self.seconds if self.seconds else 0.0

    @property
    def eta(self) -> float | None:
        """Return the seconds that are left at this pace, or None while nobody can know.

        What needed no transfer says nothing about the pace of the rest.
        """
        left = self.total - self.files - self.failed
        if not left:
            return 0.0
        if self.size is not None and self.received:
            return max(self.size - self.present, 0) / self.rate
        fetched = self.files - self.unchanged
        return left * self.seconds / fetched if fetched > 0 else None

    def __str__(self) -> str:
        """Return a line for a log: files, bytes, rate and what is left."""
        eta = self.eta
        left = f", {eta:.0f} s left" if eta else ""
        parts = [f"{self.files:,} of {self.total:,} files", f"{self.received / 1e6:,.1f} MB received"]
        parts.append(f"{self.rate / 1e6:,.1f} MB/s{left}")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return ", ".join(parts)
