"""The rules for names that people give: they reach file paths, URLs and generated Python only after these."""

from __future__ import annotations

import re
from pathlib import PurePath

from kaos.errors import InvalidNameError

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,48}[a-z0-9])?")
_SLUG_RULE = (
    "Use 1 to 50 lower-case letters, digits, '-' and '_', beginning and ending with a letter or digit."
)
_DIGEST_SUFFIX = re.compile(r":[0-9a-f]{5,64}$")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f/\\:]")


def check_workspace(name: str) -> str:
    """Return `name` if it can name a workspace.

    :raises InvalidNameError: it cannot
    """
    return _check_slug("workspace", name)


def check_definition(name: str) -> str:
    """Return `name` if it can name a job definition.

    :raises InvalidNameError: it cannot
    """
    return _check_slug("job", name)


_ENDPOINT = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_RESERVED = ("metrics", "ping")


def check_endpoint(name: str) -> str:
    """Return `name` if it can name an endpoint, and be the first part of its path.

    :raises InvalidNameError: it cannot
    """
    if not _ENDPOINT.fullmatch(name) or name in _RESERVED:
        raise InvalidNameError(
            "endpoint",
            name,
            "Use 1 to 63 lower-case letters, digits, '-' and '_', beginning and ending with a letter or"
            f" digit; not {' or '.join(_RESERVED)}.",
        )
    return name


def check_model(name: str) -> str:
    """Return `name` if it can name an imported model.

    :raises InvalidNameError: it cannot
    """
    return _check_slug("model", name)


def check_tag(name: str) -> str:
    """Return `name` if it can be a model's tag.

    :raises InvalidNameError: it cannot
    """
    return _check_slug("tag", name)


def _check_slug(kind: str, name: str) -> str:
    if not _SLUG.fullmatch(name):
        raise InvalidNameError(kind, name, _SLUG_RULE)
    return name


def check_bundle(name: str) -> str:
    """Return `name` if it can name a bundle: any directory's name but for `/`, `\\`, `:` and control
    characters.

    :raises InvalidNameError: it cannot
    """
    if not name or len(name) > 100 or name in (".", "..") or _UNPRINTABLE.search(name):
        raise InvalidNameError(
            "bundle", name, "Rename the directory: no '/', '\\', ':' or control characters."
        )
    return name


def bundle_name(directory: PurePath) -> str:
    """Return the name that a bundle gets from its directory.

    `train get` writes the directory `mnist:e23a2` for bundle `mnist`: the digest is no part of the name.

    :raises InvalidNameError: the directory's name cannot be used
    """
    return check_bundle(_DIGEST_SUFFIX.sub("", directory.name))


def data_asset(workspace: str) -> str:
    """Return the name, which is also the URI, of the asset that is a workspace's data."""
    return f"kaos://{check_workspace(workspace)}/data"


def dag_id(workspace: str, definition: str) -> str:
    """Return the id of the DAG that runs the jobs of a definition."""
    return f"kaos.{check_workspace(workspace)}.{check_definition(definition)}"
