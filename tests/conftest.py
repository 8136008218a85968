"""Fixtures that many tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in a shell's background job, and for all that is started there: Ctrl-C could not be tried.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("kaos", deadline=None, max_examples=60)
settings.load_profile("kaos")


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test out of the home of whoever runs it."""
    monkeypatch.setenv("KAOS_HOME", str(tmp_path_factory.mktemp("home") / ".kaos"))


def write_tree(root: Path, files: dict[str, bytes | str | None]) -> Path:
    """Write files (content by path; None makes an empty directory; `train` is made executable)."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if path.name == "train":
            path.chmod(0o755)
    return root
