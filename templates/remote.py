"""The remote files of a template: cut from its data, named by its manifests, served by `kaos template serve`.

A manifest needs files that are on a server. Thousands of small ones would be a burden to everybody who has
the template, so that they are cut from the template's own when they are served; the manifests pin what comes
of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from string import ascii_lowercase

from kaos_templates import Remote, find, sources

PORT = 8790
"""The port that the manifests name."""


def manifest(name: str, remote: Remote) -> bytes:
    """Return a manifest of a template, as it is in ``data_manifest_NAME/data.mf``."""
    lines = []
    for path, content in pieces(name, remote):
        row = {
            "url": f"http://127.0.0.1:{PORT}/{remote.name}/{path}",
            "path": path,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
        }
        lines.append(json.dumps(row) + "\n")
    return "".join(lines).encode()


def pieces(name: str, remote: Remote) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the files that a manifest of a template names."""
    data = resources.files("kaos_templates").joinpath("bundles", name, "data", "features")
    for split in ("test", "training", "validation"):
        rows = data.joinpath(split, f"{split}_mini.csv").read_bytes().splitlines(keepends=True)
        letters = 4 if split == "training" else 3
        for number, start in enumerate(range(0, len(rows), remote.rows)):
            path = f"{split}/x{_suffix(number, letters)}.csv"
            if not remote.only or path in remote.only:
                yield path, b"".join(rows[start : start + remote.rows])


def served(name: str) -> dict[str, bytes]:
    """Return what a server of a template's files has, by path: all of the template, and the pieces.

    :raises UnknownNameError: there is no such template
    """
    template = find(name)
    files = {str(path): source.read_bytes() for path, source in sources(name)}
    for remote in template.remotes:
        files |= {f"{remote.name}/{path}": content for path, content in pieces(name, remote)}
    return files


def _suffix(number: int, letters: int) -> str:
    """Return the number in letters, as ``split`` names its pieces: aaa, aab."""
    text = ""
    for _ in range(letters):
        number, letter = divmod(number, len(ascii_lowercase))
        text = ascii_lowercase[letter] + text
    return text
