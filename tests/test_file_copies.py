"""Files that are copied into a file store: the small way, the kernel's way, and without that one."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from kaos.store import FileObjects

LARGE = 9 << 20


@pytest.mark.parametrize("size", [0, 1, 1 << 20, LARGE])
def test_a_file_is_stored_under_its_digest(tmp_path: Path, size: int) -> None:
    file, objects = tmp_path / "file", FileObjects(tmp_path / "objects")
    file.write_bytes(os.urandom(size))

    digest = objects.add(file)

    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert objects.path(digest).read_bytes() == file.read_bytes()
    assert objects.path(digest).stat().st_mode & 0o777 == 0o444
    assert list((tmp_path / "objects" / "tmp").iterdir()) == []


def test_without_the_kernels_copy_the_bytes_are_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "two file systems")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    test_a_file_is_stored_under_its_digest(tmp_path, LARGE)


def test_what_cannot_be_copied_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, objects = tmp_path / "file", FileObjects(tmp_path / "objects")
    file.write_bytes(os.urandom(LARGE))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    monkeypatch.setattr(os, "write", full)

    with pytest.raises(OSError, match="No space left"):
        objects.add(file)
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
