from __future__ import annotations

import os
import random
import shutil
import socket
from pathlib import Path

import pytest
from conftest import write_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaos.bundle import EmptyDirectory, File, Link, Tree
from kaos.digest import digest_bytes, shortest_prefix
from kaos.errors import InvalidBundleError
from kaos.transfer.ignore import DEFAULTS
from kaos.transfer.scan import scan, walk
from kaos.transfer.statcache import StatCache

CHARACTERS = st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"])
NAMES = st.text(CHARACTERS, min_size=1, max_size=12)
PATHS = (
    st.lists(NAMES.filter(lambda name: name not in (".", "..", *DEFAULTS)), min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda path: len(path.encode()) < 200)
)
CONTENTS = st.dictionaries(PATHS, st.binary(max_size=64), min_size=1, max_size=8)


def consistent(files: dict[str, bytes]) -> bool:
    return not any(other.startswith(f"{path}/") for path in files for other in files)


def written(root: Path, files: dict[str, bytes], order: list[str]) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    inner = root / "inner"
    inner.mkdir(parents=True)
    (root / "beside").mkdir()  # so that `inner` is not taken for the bundle's own directory
    for path in order:
        (inner / path).parent.mkdir(parents=True, exist_ok=True)
        (inner / path).write_bytes(files[path])
    return root


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=CONTENTS.filter(consistent), seed=st.integers(0, 1000))
def test_digest_is_of_the_content_alone(files: dict[str, bytes], seed: int, tmp_path: Path) -> None:
    names = sorted(files)
    orders = [names, names[::-1], random.Random(seed).sample(names, len(files))]
    first = scan(walk(written(tmp_path / "a", files, orders[0])))
    second = scan(walk(written(tmp_path / "b", files, orders[2])))
    assert first.tree.digest == second.tree.digest
    path = tmp_path / "b" / "inner" / orders[1][0]
    os.utime(path, (1, 1))
    copy = path.with_name("copy-of-it")
    os.link(path, copy)
    path.unlink()
    copy.rename(path)
    assert scan(walk(tmp_path / "b")).tree.digest == first.tree.digest
    assert Tree.decode(first.tree.encoded) == first.tree


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=CONTENTS.filter(consistent), data=st.data())
def test_any_changed_byte_or_mode_changes_the_digest(
    files: dict[str, bytes], data: st.DataObject, tmp_path: Path
) -> None:
    root = written(tmp_path / "a", files, sorted(files))
    before = scan(walk(root)).tree.digest
    path = root / "inner" / data.draw(st.sampled_from(sorted(files)))
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "append", "mode", "rename"]))
    if kind == "flip" and content:
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
    elif kind == "mode":
        path.chmod(path.stat().st_mode ^ 0o100)
    elif kind == "rename":
        path.rename(path.with_name("another-name-than-before"))
    else:
        path.write_bytes(bytes(content) + b"\n")
    assert scan(walk(root)).tree.digest != before


def test_canonical_form_never_changes() -> None:
    """Ids that people wrote down stay valid: this digest may never change."""
    tree = Tree.of(
        [
            File("train", 3, digest_bytes(b"abc"), executable=True),
            File("data/ä.csv", 0, digest_bytes(b"")),
            EmptyDirectory("logs"),
            Link("data/latest", "ä.csv"),
        ]
    )
    assert tree.encoded.decode() == (
        '["kaos-tree",1]\n'
        '["l","data/latest","ä.csv"]\n'
        f'["f","data/ä.csv",0,"{digest_bytes(b"")}"]\n'
        '["d","logs"]\n'
        f'["x","train",3,"{digest_bytes(b"abc")}"]\n'
    )
    assert tree.digest == "f751e85b4c57bc0b5c3f4b1e5f8d39930fc910a2d3be3adf4292fd1e73081bc2"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "a//b", "./a", "a/..", "../a", "a/../../b", "a\0", "a/"])
def test_paths_that_leave_the_tree_are_refused(path: str) -> None:
    with pytest.raises(InvalidBundleError):
        Tree.of([File(path, 0, digest_bytes(b""))])


@pytest.mark.parametrize(
    ("links", "fine"),
    [
        ({"a/l": "b"}, True),
        ({"a/l": "../b"}, True),
        ({"a/l": "../../b"}, False),
        ({"l": "/etc/passwd"}, False),
        ({"l": ".."}, False),
        ({"a/l": "..", "m": "a/l/../.."}, False),
        ({"a/up": "..", "m": "a/up/x"}, False),
    ],
)
def test_links_stay_inside(links: dict[str, str], fine: bool) -> None:
    entries = [Link(path, target) for path, target in links.items()]
    if fine:
        assert Tree.decode(Tree.of(entries).encoded).entries == tuple(entries)
    else:
        with pytest.raises(InvalidBundleError):
            Tree.of(entries)


def test_file_that_is_also_a_directory_is_refused() -> None:
    with pytest.raises(InvalidBundleError, match="both a file and"):
        Tree.of([File("a", 0, digest_bytes(b"")), File("a/b", 0, digest_bytes(b""))])


@pytest.mark.parametrize(
    "document",
    [b"", b"x", b'["kaos-tree",2]\n', b'["kaos-tree",1]', b'["kaos-tree",1]\n["f","a",-1,"0"]\n', b"\xff"],
)
def test_other_documents_are_no_trees(document: bytes) -> None:
    with pytest.raises(InvalidBundleError):
        Tree.decode(document)


def test_tree_in_another_order_is_refused() -> None:
    lines = Tree.of([EmptyDirectory("a"), EmptyDirectory("b")]).encoded.decode().splitlines()
    with pytest.raises(InvalidBundleError, match="canonical form"):
        Tree.decode("\n".join([lines[0], lines[2], lines[1], ""]).encode())


def test_name_comes_from_the_one_sub_directory(tmp_path: Path) -> None:
    write_tree(tmp_path / "model-train" / "mnist", {"Dockerfile": "FROM python", "model/train": "x"})
    nested = scan(walk(tmp_path / "model-train"))
    flat = scan(walk(tmp_path / "model-train" / "mnist"))
    assert nested.name == flat.name == "mnist"
    assert nested.tree.digest == flat.tree.digest
    (tmp_path / "model-train" / "mnist").rename(tmp_path / "model-train" / "mnist:e23a2")
    back = scan(walk(tmp_path / "model-train"))
    assert (back.name, back.tree.digest) == ("mnist", nested.tree.digest)


def test_empty_files_and_directories_survive(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/empty.txt": "", "b": None, "c": "x"})
    assert [entry.path for entry in scan(walk(tmp_path)).tree.entries] == ["a/empty.txt", "b", "c"]


def test_ignored_files_are_left_out(tmp_path: Path) -> None:
    files = {"keep.py": "1", ".git/HEAD": "x", "a/__pycache__/k.pyc": "x", ".venv/bin/python": "x"}
    write_tree(tmp_path, {**files, "a/b.py": "2"})
    assert [file.path for file in scan(walk(tmp_path)).tree.files] == ["a/b.py", "keep.py"]
    write_tree(tmp_path, {".kaosignore": "*.py\n!keep.py\n", "notes.txt": "n"})
    assert [file.path for file in scan(walk(tmp_path)).tree.files] == [".kaosignore", "keep.py", "notes.txt"]


def test_everything_that_cannot_be_kept_is_named_at_once(tmp_path: Path) -> None:
    write_tree(tmp_path, {"fine": "x", "d/e": "y"})
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "d" / "sock"))
        with pytest.raises(InvalidBundleError) as caught:
            walk(tmp_path)
    assert "pipe: a named pipe" in str(caught.value)
    assert "d/sock: a socket" in str(caught.value)
    assert ".kaosignore" in caught.value.next_step


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fine").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()
    with pytest.raises(InvalidBundleError, match="not UTF-8"):
        walk(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": "x", "b": "y"})
    (tmp_path / "b").chmod(0)
    with pytest.raises(InvalidBundleError, match="b: this file cannot be read"):
        walk(tmp_path)


def test_case_collisions_are_warned_of(tmp_path: Path) -> None:
    write_tree(tmp_path, {"Data/a.csv": "1", "data/b.csv": "2"})
    (warning,) = scan(walk(tmp_path)).warnings
    assert warning == "'Data' and 'data' are the same name on a case-insensitive disk"


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundleError, match="nowhere does not exist"):
        walk(tmp_path / "nowhere")


def test_stat_cache_reads_only_what_changed(tmp_path: Path) -> None:
    write_tree(tmp_path / "b", {"a": "one", "c": "two"})
    old = 1_000_000_000

    def read(path: Path) -> str:
        seen.append(path.name)
        return digest_bytes(path.read_bytes())

    caches = tmp_path / "caches"
    seen: list[str] = []
    fresh = StatCache.of(tmp_path / "b", caches)
    fresh._start += 10 * old  # as if the files had rested for ten seconds
    first = scan(walk(tmp_path / "b"), fresh, read)
    assert sorted(seen) == ["a", "c"]
    seen.clear()
    assert scan(walk(tmp_path / "b"), StatCache.of(tmp_path / "b", caches), read).tree == first.tree
    assert seen == []
    (tmp_path / "b" / "a").write_text("ONE")
    os.utime(tmp_path / "b" / "a", ns=(1, 1))
    assert scan(walk(tmp_path / "b"), StatCache.of(tmp_path / "b", caches), read).tree != first.tree
    assert seen == ["a"]
    next(caches.iterdir()).write_text("no json")
    assert scan(walk(tmp_path / "b"), StatCache.of(tmp_path / "b", caches)).tree != first.tree


@given(st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=20, unique=True))
def test_prefixes_are_unambiguous_and_short(digests: list[str]) -> None:
    prefixes = [shortest_prefix(digest, digests) for digest in digests]
    assert len(set(prefixes)) == len(digests)
    assert all(len(prefix) >= 5 for prefix in prefixes)
