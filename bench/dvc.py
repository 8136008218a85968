"""The peer for data: `dvc add`, in a throw-away virtual environment and a throw-away repository."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.measure import Ended, run, say

UV = Path(sys.executable).with_name("uv")


@dataclass(frozen=True)
class Dvc:
    """A git and dvc repository in a new directory, with a dvc of its own."""

    directory: Path

    @classmethod
    def install(cls, directory: Path) -> Dvc:
        """Install the newest dvc, and make the repository."""
        say("installing dvc")
        directory.mkdir()
        run([UV, "venv", "--quiet", directory / "venv", "--python", sys.executable])
        run([UV, "pip", "install", "--quiet", "--compile-bytecode", "--python", directory / "venv", "dvc"])
        peer = cls(directory)
        peer.repository.mkdir()
        run(["git", "init", "--quiet"], cwd=peer.repository)
        peer.dvc("init", "--quiet")
        return peer

    @property
    def repository(self) -> Path:
        """Return the repository's directory."""
        return self.directory / "repository"

    @cached_property
    def version(self) -> str:
        """Return dvc's version."""
        return self.dvc("--version").stdout.strip()

    def dvc(self, *arguments: str) -> Ended:
        """Run a dvc command in the repository."""
        env = {
            **os.environ,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.directory / "site"),
        }
        return run([self.directory / "venv" / "bin" / "dvc", *arguments], env=env, cwd=self.repository)

    def first_add(self, data: Path) -> float:
        """Add a directory to an empty cache, and return the seconds of that."""
        self._put_away(self.repository / "data", self.repository / ".dvc" / "cache", self.directory / "site")
        (self.repository / "data.dvc").unlink(missing_ok=True)
        shutil.copytree(data, self.repository / "data")
        os.sync()
        return self.dvc("add", "--quiet", "data").seconds

    def add_again(self) -> float:
        """Add the same directory again, unchanged, and return the seconds."""
        return self.dvc("add", "--quiet", "data").seconds

    def checkout(self) -> float:
        """Materialise what was added in an empty place, and return the seconds."""
        self._put_away(self.repository / "data")
        return self.dvc("checkout", "--quiet", "data.dvc").seconds

    def _put_away(self, *paths: Path) -> None:
        """Move what is there away; see `Home.forget_objects`."""
        for path in paths:
            if path.exists():
                path.rename(Path(tempfile.mkdtemp(dir=self.directory)) / path.name)
