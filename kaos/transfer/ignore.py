"""Which files of a directory are no part of its bundle: `.kaosignore`, in gitignore syntax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kaos.errors import InvalidBundleError

IGNORE_FILE = ".kaosignore"
DEFAULTS = (".git", "__pycache__", ".venv", ".DS_Store", ".ipynb_checkpoints")
"""Names that are left out unless a `.kaosignore` takes them back with ``!name``."""

Ignored = Callable[[str, bool], bool]
"""Tell whether a path (relative, with ``/``), which is or is not a directory, is left out."""


def ignored_below(root: Path, defaults: Sequence[str] = DEFAULTS) -> Ignored:
    """Return what tells which paths below `root` are left out.

    :param defaults: names that are left out anyway; none for a directory around a bundle, whose own
        `.kaosignore` may take them back
    :raises InvalidBundleError: a line of `.kaosignore` is no pattern, or the file cannot be read
    """
    path = root / IGNORE_FILE
    if not path.is_file():
        return lambda relative, _: relative.rpartition("/")[2] in defaults
    return _patterns(path, defaults)


def _patterns(path: Path, defaults: Sequence[str]) -> Ignored:
    from pathspec import GitIgnoreSpec  # 50 ms, for those who have the file

    try:
        spec = GitIgnoreSpec.from_lines([*defaults, *path.read_text().splitlines()])
    except (OSError, ValueError) as error:
        raise InvalidBundleError(
            f"{path} cannot be used: {error}.", "Write one gitignore pattern a line."
        ) from error
    return lambda relative, directory: spec.match_file(f"{relative}/" if directory else relative)
