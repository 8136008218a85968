"""A data manifest: JSON lines that name remote files, and where they go in the data bundle.

A line has two fields, and two more if it pins what has to arrive::

    {"url": "https://example.org/a.csv", "path": "training/a.csv"}
    {"url": "s3://bucket/b.csv", "path": "test/b.csv", "sha256": "<64 hex>", "size": 1024}

The canonical form has the same lines sorted by path, keys in the order of the alphabet and nothing to spare.
Its SHA-256 is the manifest's identity: the order of lines and keys, blank lines, white space, a byte order
mark, and what else an editor changes without a meaning are no part of it. The canonical form is itself a
manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kaos.digest import digest_bytes
from kaos.errors import InvalidManifestError

SCHEMES = ("http", "https", "s3")

_FIELDS = {"url", "path", "sha256", "size"}
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LONGEST_NAME = 255  # bytes, what file systems take
_LONGEST_PATH = 3000
_LARGEST = 1 << 53

LARGEST = 64 << 20
"""Bytes that a manifest may have."""


class ManifestEntry(NamedTuple):
    """A line: its number, from 1, the remote file, its place, and SHA-256 and size in bytes if they are
    given.
    """

    line: int
    url: str
    path: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What a manifest says, its entries in the order of the file; made by `parse`."""

    entries: tuple[ManifestEntry, ...]

    @cached_property
    def encoded(self) -> bytes:
        """Return the canonical form, UTF-8."""
        dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
        ordered = sorted(self.entries, key=lambda entry: entry.path.encode())
        return "".join(dump(_row(entry)) + "\n" for entry in ordered).encode()

    @cached_property
    def digest(self) -> str:
        """Return the identity: the SHA-256 of the canonical form."""
        return digest_bytes(self.encoded)

    @property
    def size(self) -> int | None:
        """Return the sum of the sizes in bytes, or None if a line gives none."""
        sizes = [entry.size for entry in self.entries if entry.size is not None]
        return sum(sizes) if len(sizes) == len(self.entries) else None


def parse(content: bytes) -> Manifest:
    """Return what a manifest says.

    :raises InvalidManifestError: all the lines that cannot be used, with the reason for each; or no line at
        all
    """
    entries: list[ManifestEntry] = []
    problems: list[tuple[int, str]] = []
    decode = json.JSONDecoder(object_pairs_hook=_unique).decode
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            entries.append(_entry(number, decode(line.decode())))
        except UnicodeDecodeError:
            problems.append((number, "it is not UTF-8"))
        except json.JSONDecodeError as error:
            problems.append((number, f"it is not valid JSON: {error.msg} at column {error.colno}"))
        except RecursionError:
            problems.append((number, "it is not valid JSON: nested too deeply"))
        except ValueError as error:
            problems.append((number, str(error)))
    problems += _conflicts(entries)
    if problems:
        raise InvalidManifestError(sorted(problems))
    if not entries:
        raise InvalidManifestError([(1, "the manifest names no file")])
    return Manifest(tuple(entries))


def split_s3(url: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` URL; the key is taken as it stands, not percent-decoded."""
    bucket, _, key = url[len("s3://") :].partition("/")
    return bucket, key


def _row(entry: ManifestEntry) -> dict[str, Any]:
    fields = {"path": entry.path, "sha256": entry.sha256, "size": entry.size, "url": entry.url}
    return {name: value for name, value in fields.items() if value is not None}


def _entry(number: int, row: Any) -> ManifestEntry:
    if not isinstance(row, dict):
        raise ValueError('it is no object such as {"url": "https://…", "path": "training/a.csv"}')
    if not row.keys() <= _FIELDS:
        raise ValueError(f"unknown field {_shown(min(row.keys() - _FIELDS))}")
    url, path = (_text(row, name) for name in ("url", "path"))
    _check_path(path)
    scheme = url.partition(":")[0].lower()
    if scheme == "s3" and url.startswith("s3://"):
        _check_s3(url)
    else:
        _check_url(url, scheme)
    sha256, size = row.get("sha256"), row.get("size")
    if "sha256" in row and not (isinstance(sha256, str) and _DIGEST.fullmatch(sha256)):
        raise ValueError("sha256 is not 64 hexadecimal digits")
    if "size" in row and not (type(size) is int and 0 <= size < _LARGEST):
        raise ValueError("size is no number of bytes")
    return ManifestEntry(number, url, path, sha256.lower() if sha256 else None, size)


def _text(row: dict[str, Any], name: str) -> str:
    if name not in row:
        raise ValueError(f'the field "{name}" is missing')
    value = row[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    if not value:
        raise ValueError(f"{name} is empty")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} has half a surrogate pair in it") from None
    return value


def _check_path(path: str) -> None:
    if path.startswith("/"):
        raise ValueError(f"the path {_shown(path)} is absolute")
    if "\0" in path:
        raise ValueError(f"the path {_shown(path)} has a NUL character in it")
    parts = path.split("/")
    if ".." in parts:
        raise ValueError(f"the path {_shown(path)} has '..' in it")
    if "" in parts or "." in parts:
        raise ValueError(f"the path {_shown(path)} has an empty or '.' component")
    if len(path) > _LONGEST_NAME // 4 and (
        len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in parts)
    ):
        raise ValueError(
            f"the path {_shown(path)} has a name of more than {_LONGEST_NAME} bytes or is too long"
        )


def _check_s3(url: str) -> None:
    bucket, key = split_s3(url)
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{_shown(bucket)} is no name of a bucket")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"the key {_shown(key)} cannot be addressed: it has an empty, '.' or '..' component")
    if _CONTROL.search(key.replace("\\", "")):
        raise ValueError(f"the key {_shown(key)} has a control character in it")


def _check_url(url: str, scheme: str) -> None:
    if scheme == "file":
        raise ValueError("a file:// URL is not allowed: a manifest names remote files")
    if scheme not in SCHEMES or not url[len(scheme) :].startswith("://"):
        raise ValueError(f"the url {_shown(url)} does not begin with http://, https:// or s3://")
    if _CONTROL.search(url):
        raise ValueError("the url has a control character or a backslash in it")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if host and not host.isascii():
            host.encode("idna")  # as it is asked for
    except ValueError as error:
        raise ValueError(f"the url {_shown(url)} is not valid: {error}") from None
    if not host or " " in parts.netloc or port == 0:
        raise ValueError(f"the url {_shown(url)} names no host")
    if "@" in parts.netloc:
        raise ValueError("the url has a user name or password in it: a manifest is stored and shown")


def _conflicts(entries: Iterable[ManifestEntry]) -> list[tuple[int, str]]:
    problems: list[tuple[int, str]] = []
    lines: dict[str, int] = {}
    for entry in entries:
        first = lines.setdefault(entry.path, entry.line)
        if first != entry.line:
            problems.append((entry.line, f"the path {_shown(entry.path)} is that of line {first} too"))
    plain: set[str] = set()  # directories already looked at
    for entry in entries:
        parent = entry.path.rpartition("/")[0]
        while parent and parent not in plain:
            if parent in lines:
                text = f"{_shown(parent)} is the directory of {_shown(entry.path)} here, and a file in line"
                problems.append((entry.line, f"{text} {lines[parent]}"))
            else:
                plain.add(parent)
            parent = parent.rpartition("/")[0]
    return problems


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:99]}…")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field comes twice")
    return found
