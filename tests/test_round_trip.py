"""What `train get` writes deploys to the same digest, and under the same name."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from conftest import write_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos.bundle import EmptyDirectory, Entry, File, Link, Tree
from kaos.digest import digest_bytes
from kaos.errors import InvalidBundleError
from kaos.store.memory import memory_store
from kaos.transfer.checkout import checkout
from kaos.transfer.ignore import DEFAULTS
from kaos.transfer.scan import scan, walk

NAMES = st.text("abAé.:- ", min_size=1, max_size=4).filter(lambda name: name not in (".", "..", *DEFAULTS))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ENTRIES = st.one_of(
    st.builds(
        lambda path, content, executable: (
            File(path, len(content), digest_bytes(content), executable),
            content,
        ),
        PATHS,
        st.binary(max_size=3),
        st.booleans(),
    ),
    PATHS.map(lambda path: (EmptyDirectory(path), b"")),
    st.builds(lambda path, target: (Link(path, target), b""), PATHS, NAMES),
)


@settings(max_examples=80)
@given(st.lists(ENTRIES, min_size=1, max_size=6), st.sampled_from(["mnist", "a b", "Größe"]))
def test_any_tree_comes_back(entries: list[tuple[Entry, bytes]], name: str) -> None:
    try:
        tree = Tree.of([entry for entry, _ in entries])
    except InvalidBundleError:
        return
    objects = memory_store().objects
    for _, content in entries:
        objects.put(content)
    with tempfile.TemporaryDirectory() as folder:
        # As `train get` lays it out: WORKSPACE/JOB_ID/code/NAME:DIGEST.
        for number in range(2):
            code = Path(folder) / f"job{number}" / "code"
            code.mkdir(parents=True)
            checkout(objects, tree, code / f"{name}:{tree.digest[:5]}", writable=True)
            found = scan(walk(code))
            assert (found.tree.digest, found.name) == (tree.digest, name)


@pytest.mark.parametrize("way", ["parent", "itself"])
def test_what_is_ignored_by_a_file_of_its_own_stays_ignored(tmp_path: Path, way: str) -> None:
    written = write_tree(
        tmp_path / "bundle" / "mnist",
        {
            ".kaosignore": "*.log\n!__pycache__\n",
            "train": "x",
            "a.log": "no part",
            "__pycache__/a.pyc": "taken back",
        },
    )
    first = scan(walk(written))
    assert [entry.path for entry in first.tree.entries] == [".kaosignore", "__pycache__/a.pyc", "train"]
    objects = memory_store().objects
    for file in first.tree.files:
        objects.put((written / file.path).read_bytes())
    code = tmp_path / "code"
    code.mkdir()
    path = code / f"mnist:{first.tree.digest[:5]}"
    checkout(objects, first.tree, path, writable=True)
    assert scan(walk(code if way == "parent" else path)).tree.digest == first.tree.digest
