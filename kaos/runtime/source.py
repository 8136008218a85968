"""Read from a source bundle on disk what its Dockerfile asks of the process runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from kaos.dockerfile import Dockerfile
from kaos.errors import InvalidBundleError
from kaos.image import EnvironmentSpec, environment


def environment_of(source: Path) -> EnvironmentSpec:
    """Return the spec of a source bundle's environment.

    :param source: the directory with ``Dockerfile`` and the folder ``model/``
    :raises InvalidBundleError: it has no Dockerfile, or the Dockerfile names a file that is not there
    :raises UnsupportedImageError: the Dockerfile needs a container
    """
    try:
        text = (source / "Dockerfile").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidBundleError(
            f"There is no Dockerfile in {source.name}.", "Add one, next to model/."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidBundleError(
            f"The Dockerfile in {source.name} is no text in UTF-8.", "Save it so."
        ) from error
    return environment(Dockerfile.of(text), FolderContent(source / "model"))


class FolderContent(Mapping[str, bytes]):
    """Show a folder's files by path, each read when it is asked for: of a source bundle, few ever are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }

    def __getitem__(self, name: str) -> bytes:
        return self._paths[name].read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
