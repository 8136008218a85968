from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import write_tree
from hypothesis import given
from hypothesis import strategies as st

from kaos.bundle import File, Tree
from kaos.digest import digest_bytes
from kaos.errors import ConflictError, CorruptObjectError, InvalidBundleError, InvalidInputError
from kaos.store import FileObjects, memory_store, open_file_store
from kaos.store.verify import verify_store
from kaos.transfer.checkout import SharedCheckouts, checkout
from kaos.transfer.pack import Packed, read_pack, write_pack
from kaos.transfer.push import DirectTarget, push, store_directory
from kaos.transfer.scan import scan, walk
from kaos.transfer.upload import PartialUploads

BIG = 300_000


def packed(contents: list[bytes]) -> Iterator[Packed]:
    for content in contents:
        yield Packed(digest_bytes(content), len(content), iter([content[:3], content[3:]]))


@given(
    contents=st.lists(st.one_of(st.binary(max_size=50), st.just(os.urandom(BIG))), max_size=6),
    cuts=st.lists(st.integers(0, BIG), max_size=10),
)
def test_pack_comes_back_whatever_the_blocks(contents: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(write_pack(packed(contents)))
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    blocks = iter([stream[start:end] for start, end in pairwise(edges)])
    assert [(found.digest, b"".join(found.chunks)) for found in read_pack(blocks)] == [
        (digest_bytes(content), content) for content in contents
    ]


@given(st.lists(st.binary(max_size=50), max_size=4), st.data())
def test_pack_that_is_cut_short_is_known(contents: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(write_pack(packed(contents)))
    short = stream[: data.draw(st.integers(0, len(stream) - 1))]
    with pytest.raises(InvalidInputError, match="cut short"):
        [b"".join(found.chunks) for found in read_pack(iter([short] if short else []))]


def test_objects_that_nobody_reads_are_skipped() -> None:
    stream = b"".join(write_pack(packed([b"first", b"second"])))
    assert [found.size for found in read_pack(iter([stream]))] == [5, 6]


def test_large_object_arrives_in_parts(tmp_path: Path) -> None:
    content = os.urandom(1000)
    digest = digest_bytes(content)
    store = open_file_store(tmp_path / "store")
    uploads = PartialUploads(tmp_path / "parts", "root")
    assert uploads.append(digest, 0, 1000, iter([content[:300]]), store.objects) == 300
    assert uploads.offset(digest) == 300
    assert PartialUploads(tmp_path / "parts", "bob").offset(digest) == 0
    with pytest.raises(ConflictError, match="has 300 bytes"):
        uploads.append(digest, 0, 1000, iter([content]), store.objects)
    assert uploads.append(digest, 300, 1000, iter([content[300:]]), store.objects) == 1000
    assert store.objects.get(digest) == content
    assert uploads.offset(digest) == 0


@pytest.mark.parametrize("wrong", [b"x" * 1000, b"y" * 1001])
def test_upload_of_other_bytes_is_dropped(tmp_path: Path, wrong: bytes) -> None:
    digest = digest_bytes(b"z" * 1000)
    store = memory_store()
    uploads = PartialUploads(tmp_path, "root")
    with pytest.raises(InvalidInputError, match="not the object"):
        uploads.append(digest, 0, 1000, iter([wrong]), store.objects)
    assert uploads.offset(digest) == 0
    assert list(store.objects.digests()) == []


def test_push_sends_what_is_missing_once(tmp_path: Path) -> None:
    write_tree(tmp_path / "b", {"a": "same", "b": "same", "c": "other"})
    objects = open_file_store(tmp_path / "store").objects
    assert isinstance(objects, FileObjects)
    scanned = scan(walk(tmp_path / "b"))
    assert push(scanned, DirectTarget(objects)) == 9
    assert push(scanned, DirectTarget(objects)) == 0
    (tmp_path / "b" / "c").write_text("OTHER")
    objects.path(digest_bytes(b"other")).unlink()
    with pytest.raises(InvalidBundleError, match="changed while it was sent"):
        push(scanned, DirectTarget(objects))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_what_a_trial_wrote_comes_back_the_same(tmp_path: Path, kind: str) -> None:
    store = memory_store() if kind == "memory" else open_file_store(tmp_path / "store")
    output = write_tree(
        tmp_path / "out", {"model/m.pkl": b"\0" * 5000, "metrics/metrics.json": "{}", "e": None}
    )
    (output / "latest").symlink_to("model/m.pkl")
    (output / "run.sh").write_text("#!/bin/sh\n")
    (output / "run.sh").chmod(0o755)
    tree = store_directory(output, store.objects)
    checkout(store.objects, tree, tmp_path / "back", writable=True)
    assert store_directory(tmp_path / "back", store.objects) == tree
    assert os.access(tmp_path / "back" / "run.sh", os.X_OK)
    assert (tmp_path / "back" / "latest").read_bytes() == b"\0" * 5000


def test_checkout_is_whole_or_not_at_all(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "store")
    tree = store_directory(write_tree(tmp_path / "b", {"a/x": "1", "b": "2"}), store.objects)
    assert isinstance(store.objects, FileObjects)
    store.objects.path(digest_bytes(b"1")).unlink()
    with pytest.raises(CorruptObjectError, match=r"^a/x: "):
        checkout(store.objects, tree, tmp_path / "out", writable=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "store"]


def test_shared_checkout_is_made_once_and_found_changed(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "store")
    tree = store_directory(write_tree(tmp_path / "b", {"a/x": "one", "b": "two", "e": None}), store.objects)
    shared = SharedCheckouts(tmp_path / "trees")
    first = shared.get(store.objects, tree)
    inode = (first / "b").stat().st_ino
    assert shared.get(store.objects, tree) == first
    assert (first / "b").stat().st_ino == inode
    # A file that somebody added is gone from the next checkout.
    (first / "added").touch()
    assert not (shared.get(store.objects, tree) / "added").exists()
    # A file that somebody wrote into is the store's own: the next user is told its name.
    (first / "a" / "x").chmod(0o644)
    (first / "a" / "x").write_text("ONE")
    os.utime(first / "a" / "x", (1, 1))
    with pytest.raises(CorruptObjectError, match="a/x"):
        shared.get(store.objects, tree)
    store.objects.put(b"one")
    assert (shared.get(store.objects, tree) / "a" / "x").read_text() == "one"


def test_ten_thousand_files_are_checked_out_in_a_moment(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "store")
    files = [File(f"d{n % 100}/f{n}", 8, store.objects.put(f"{n:08d}".encode())) for n in range(10_000)]
    start = time.monotonic()
    checkout(store.objects, Tree.of(files), tmp_path / "out", writable=False)
    assert time.monotonic() - start < 20  # a bound against another order of growth; the figure is in bench/
    assert sum(1 for _ in (tmp_path / "out").rglob("f*")) == 10_000


def test_verify_names_what_is_wrong(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "store")
    tree = store_directory(write_tree(tmp_path / "b", {"a": "one", "b": "two", "c": "three"}), store.objects)
    titles = [(tree.digest, "bundle /b:12345")]
    assert verify_store(store, titles) == (4, [])
    assert isinstance(store.objects, FileObjects)
    store.objects.path(digest_bytes(b"one")).unlink()
    damaged = store.objects.path(digest_bytes(b"two"))
    damaged.chmod(0o600)
    damaged.write_bytes(b"TWO")
    assert verify_store(store, titles)[1] == [
        "bundle /b:12345: a is missing",
        "bundle /b:12345: b is damaged",
    ]
