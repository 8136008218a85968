"""From the URL in the configuration to the store it names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from kaos.errors import InvalidInputError
from kaos.store.base import Store
from kaos.store.file import open_file_store


def open_store(url: str) -> Store:
    """Return the store that `url` names.

    :param url: ``file:///absolute/directory``
    :raises InvalidInputError: a scheme that is not known, or a relative directory
    """
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise InvalidInputError(f"{url!r} names no store.", "Set [kaos] store to file:///absolute/directory.")
    return open_file_store(Path(unquote(parts.path)))
