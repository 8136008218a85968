"""What a collection cleans of a worker's directory, beside others that do the same."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import write_tree

from kaos.digest import digest_bytes
from kaos.machine import Needs, clean
from kaos.schema.retention import Cleaned

KEPT = digest_bytes(b"kept")


def needs(*, busy: bool = False) -> Needs:
    """Return what needs one of everything."""
    return Needs(
        tree=lambda digest: digest == KEPT,
        job=lambda job_id: job_id == KEPT,
        builds={KEPT},
        busy=lambda: busy,
    )


def fill(work: Path, count: int) -> None:
    names = [KEPT, *(digest_bytes(bytes([number])) for number in range(count))]
    for name in names:
        write_tree(work / "runs" / name, {"log": "a line\n" * 100})
        write_tree(work / "environments" / "environments" / name, {"bin/python": b"\0" * 5000})


def left(work: Path) -> set[str]:
    return {
        path.name for folder in ("runs", "environments/environments") for path in (work / folder).iterdir()
    }


def counts(report: list[Cleaned]) -> dict[str, int]:
    return {each.what: each.amount.objects for each in report}


def test_what_nothing_needs_goes(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    assert counts(clean(tmp_path, needs(), dry_run=True))["runs"] == 3
    assert len(left(tmp_path)) == 4
    assert counts(clean(tmp_path, needs(busy=True), dry_run=False)) == {
        "checkouts": 0,
        "environments": 0,
        "runs": 3,
        "uploads": 0,
    }
    assert counts(clean(tmp_path, needs(), dry_run=False))["environments"] == 3
    assert left(tmp_path) == {KEPT}


def test_old_parts_of_uploads_go(tmp_path: Path) -> None:
    write_tree(tmp_path / "uploads", {"old": b"part", "new": b"part"})
    os.utime(tmp_path / "uploads" / "old", (0, time.time() - 8 * 86400))
    assert counts(clean(tmp_path, needs(), dry_run=False))["uploads"] == 1
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["new"]


def test_collections_at_once_share_the_work(tmp_path: Path) -> None:
    fill(tmp_path, 60)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: clean(tmp_path, needs(), dry_run=False), range(4)))
    assert sum(counts(report)["runs"] for report in reports) == 60
    assert sum(counts(report)["environments"] for report in reports) == 60
    assert left(tmp_path) == {KEPT}
