"""A data manifest on disk: a file, or a directory that holds one."""

from __future__ import annotations

from pathlib import Path

from kaos.errors import InvalidInputError
from kaos.manifest import LARGEST
from kaos.names import bundle_name

_SUFFIX = "*.mf"


def read_manifest(path: Path) -> tuple[str, bytes]:
    """Return the name of a manifest, that of its directory, and its bytes.

    :param path: the file, or a directory with one ``*.mf`` in it
    :raises InvalidInputError: there is no such file, more than one, or it cannot be read
    """
    if path.is_dir():
        found = sorted(path.glob(_SUFFIX))
        if len(found) != 1:
            names = f"{len(found)} of them: {', '.join(file.name for file in found)}" if found else "none"
            raise InvalidInputError(
                f"{path} has to hold one manifest, {_SUFFIX}; it has {names}.", "Name the file itself."
            )
        path = found[0]
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InvalidInputError(f"{path} has {size} bytes, a manifest {LARGEST} at most.", "Split it.")
        return bundle_name(path.resolve().parent), path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror}.", "Give a manifest: -m FILE."
        ) from error
