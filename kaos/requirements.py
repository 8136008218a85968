"""Requirements as pip reads them, brought into one canonical text, and only what can be pinned by hashes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from kaos.errors import InvalidBundleError, UnsupportedImageError

INDEX_OPTIONS: Final = {
    "-i": "--index-url",
    "--index-url": "--index-url",
    "--extra-index-url": "--extra-index-url",
    "-f": "--find-links",
    "--find-links": "--find-links",
    "--no-binary": "--no-binary",
    "--only-binary": "--only-binary",
}
"""Options with a value that say where packages come from, each with its long name."""

# They change nothing: packages are always checked by hash, and wheels always preferred.
_WITHOUT_EFFECT: Final = ("--require-hashes", "--prefer-binary")
_ARCHIVES: Final = (".whl", ".zip", ".tar.gz", ".tar.bz2", ".tgz")
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_DIRECT: Final = re.compile(r"[A-Za-z0-9][\w.-]*\s*(?:\[[^]]*\])?\s*@\s*(\S+)", re.ASCII)

_PIN_RULE: Final = (
    "Name a package of an index, or an archive as `name @ https://...`: they have hashes to pin."
)


def canonical(lines: Iterable[str]) -> str:
    """Return one text for the same requirements in any order: the options, then the packages, sorted."""
    unique = list(dict.fromkeys(lines))
    options = [line for line in unique if line.startswith("--")]
    packages = sorted((line for line in unique if not line.startswith("--")), key=str.casefold)
    return "".join(f"{line}\n" for line in options + packages)


def requirements_of(path: str, files: Mapping[str, bytes], named_by: str) -> list[str]:
    """Return the requirements and options of a file and of those that it includes.

    :param path: of the file, relative to the build context
    :param files: the content of the build context
    :param named_by: the line that names it, for people
    :raises InvalidBundleError: a file is not there or no text, or includes itself
    :raises UnsupportedImageError: a line that cannot be pinned or honoured
    """
    return list(_read(path, files, named_by, ()))


def requirement(text: str, where: str) -> str:
    """Return a requirement that can be pinned, as it is; the resolver judges whether it is right.

    :raises UnsupportedImageError: an editable, a local path or a version control address
    """
    direct = _DIRECT.match(text)
    if direct is not None:
        address = direct[1].partition("#")[0].lower()
        if not address.startswith(("https://", "http://")) or not address.endswith(_ARCHIVES):
            raise UnsupportedImageError(f"{where}: {text!r} cannot be pinned.", _PIN_RULE)
    elif text.startswith((".", "/", "-", "~")) or "://" in text or text.lower().endswith(_ARCHIVES):
        raise UnsupportedImageError(f"{where}: {text!r} cannot be pinned.", _PIN_RULE)
    return text


def index_option(name: str, value: str, where: str) -> str:
    """Return an option that says where packages come from, in its long form.

    :raises UnsupportedImageError: a local directory, which is there in no later build
    """
    long = INDEX_OPTIONS[name]
    if long in ("--index-url", "--extra-index-url", "--find-links") and "://" not in value:
        raise UnsupportedImageError(
            f"{where}: {long} {value}: only addresses are supported.", "Give it as https://..."
        )
    return f"{long} {value}"


def _read(path: str, files: Mapping[str, bytes], named_by: str, chain: tuple[str, ...]) -> Iterator[str]:
    if path in chain:
        raise InvalidBundleError(
            f"{named_by}: {path} includes itself.", "Remove the `-r` that closes the circle."
        )
    if path not in files:
        raise InvalidBundleError(
            f"{named_by}: the requirements file {path!r} is not in the bundle.",
            "Add it to the folder model/.",
        )
    try:
        text = files[path].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidBundleError(
            f"{named_by}: {path} is not a text in UTF-8.", "Save it as UTF-8."
        ) from error
    for number, line in _logical_lines(text):
        where = f"{path} line {number}"
        if not line.startswith("-"):
            yield requirement(line, where)
            continue
        name, _, value = (part.strip() for part in re.sub(r"^(--[\w-]+)=", r"\1 ", line).partition(" "))
        if name in ("-r", "--requirement"):
            included = posixpath.normpath(posixpath.join(posixpath.dirname(path), value))
            yield from _read(included, files, where, (*chain, path))
        elif name in INDEX_OPTIONS:
            yield index_option(name, value, where)
        elif line == "--no-index":
            yield line
        elif line not in _WITHOUT_EFFECT:
            raise UnsupportedImageError(
                f"{where}: {line!r} is not supported.",
                _PIN_RULE if name in ("-e", "--editable") else "Remove it, or use the `container` runtime.",
            )


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    start, parts = 0, list[str]()
    for number, raw in enumerate([*text.splitlines(), ""], 1):
        start = start or number
        line = _COMMENT.sub("", raw).strip()
        if line.endswith("\\"):
            parts.append(line[:-1].strip())
            continue
        whole = " ".join([*parts, line]).strip()
        if whole:
            yield start, whole
        start, parts = 0, []
