"""One contract suite for every store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kaos.digest import digest_bytes
from kaos.errors import ConflictError, CorruptObjectError, InvalidInputError
from kaos.store import FileObjects, Store, memory_store, open_file_store, open_store


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return memory_store() if request.param == "memory" else open_file_store(tmp_path / "store")


def test_what_is_put_comes_back(store: Store) -> None:
    for content in (b"", b"x", b"x" * (20 << 20)):
        digest = store.objects.put(content)
        assert digest == digest_bytes(content)
        assert store.objects.get(digest) == content
        assert store.objects.size(digest) == len(content)
        assert store.objects.put(content) == digest
    assert len(list(store.objects.digests())) == 3


def test_wrong_bytes_are_not_stored(store: Store) -> None:
    digest = digest_bytes(b"right")
    with pytest.raises(CorruptObjectError):
        store.objects.write(digest, [b"wr", b"ong"])
    assert store.objects.size(digest) is None
    assert list(store.objects.digests()) == []


def test_source_that_breaks_off_stores_nothing(store: Store) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.objects.write(digest_bytes(b"half of it"), chunks())
    assert list(store.objects.digests()) == []


def test_missing_are_those_that_are_not_whole(store: Store) -> None:
    there = store.objects.put(b"there")
    absent = digest_bytes(b"absent")
    assert store.objects.missing({there: 5, absent: 6}) == [absent]
    assert store.objects.missing({there: 4}) == [there]


def test_absent_object_is_an_error(store: Store) -> None:
    with pytest.raises(CorruptObjectError, match="not in the store"):
        store.objects.get(digest_bytes(b"absent"))


def test_place_writes_modes(store: Store, tmp_path: Path) -> None:
    digest = store.objects.put(b"content")
    store.objects.place(digest, tmp_path / "shared")
    store.objects.place(digest, tmp_path / "script", executable=True)
    store.objects.place(digest, tmp_path / "mine", writable=True)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("shared", "script", "mine")}
    assert modes == {"shared": 0o444, "script": 0o555, "mine": 0o644}
    (tmp_path / "mine").write_bytes(b"changed")
    assert store.objects.get(digest) == b"content"


def test_ref_changes_only_from_the_version_that_was_seen(store: Store) -> None:
    refs = store.refs
    assert refs.get("a/b") is None
    first = refs.set("a/b", b"1", None)
    assert refs.get("a/b") == first
    with pytest.raises(ConflictError):
        refs.set("a/b", b"2", None)
    second = refs.set("a/b", b"2", first.version)
    with pytest.raises(ConflictError):
        refs.set("a/b", b"3", first.version)
    assert refs.get("a/b") == second
    assert not refs.create("a/b", b"4")
    assert refs.create("a/c", b"")
    assert [name for name in refs.names("a")] == ["a/b", "a/c"]
    assert list(refs.names("nothing")) == []
    refs.delete("a/b")
    refs.delete("a/b")
    assert refs.get("a/b") is None


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/../b", ".a", "a/", "a b", "a\n"])
def test_hostile_ref_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidInputError):
        store.refs.set(name, b"", None)


def test_a_name_that_is_too_long_names_nothing(store: Store) -> None:
    store.refs.create("models/a", b"")
    for name in ("x" * 300, "models/" + "x" * 300, "x" * 5000, "models/a/" + "x" * 300):
        assert store.refs.get(name) is None
        assert list(store.refs.names(name)) == []


def test_concurrent_increments_lose_nothing(store: Store) -> None:
    def increment(_: int) -> None:
        while True:
            ref = store.refs.get("counter")
            value = int(ref.value) if ref else 0
            try:
                store.refs.set("counter", str(value + 1).encode(), ref.version if ref else None)
            except ConflictError:
                continue
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(100)))
    ref = store.refs.get("counter")
    assert ref is not None
    assert ref.value == b"100"


def test_concurrent_writers_of_one_object(store: Store) -> None:
    content = os.urandom(1 << 20)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: store.objects.put(content), range(32)))) == 1
    assert store.objects.get(digest_bytes(content)) == content


def aside(store: Store, digest: str, batch: str = "1") -> None:
    """Set one object aside."""
    found = {each.digest: each for each in store.objects.stored()}
    assert store.objects.condemn(found[digest], batch)


@pytest.mark.parametrize(
    "use", ["size", "missing", "read", "place", "place_writable", "put", "write", "restore"]
)
def test_use_of_an_object_that_was_set_aside_brings_it_back(store: Store, tmp_path: Path, use: str) -> None:
    objects = store.objects
    digest = objects.put(b"content")
    aside(store, digest)
    assert [(each.digest, each.size, each.batch) for each in objects.condemned()] == [(digest, 7, "1")]
    assert list(objects.digests()) == []
    match use:
        case "size":
            assert objects.size(digest) == 7
        case "missing":
            assert objects.missing({digest: 7}) == []
        case "read":
            assert objects.get(digest) == b"content"
        case "place":
            objects.place(digest, tmp_path / "out")
        case "place_writable":
            objects.place(digest, tmp_path / "out", writable=True)
        case "put":
            objects.put(b"content")
        case "write":
            objects.write(digest, [b"content"])
        case "restore":
            assert objects.restore(digest)
            assert not objects.restore(digest)
    assert list(objects.digests()) == [digest]


def test_object_that_was_discarded_is_gone_and_can_come_again(store: Store) -> None:
    objects = store.objects
    digest = objects.put(b"content")
    aside(store, digest)
    (found,) = objects.condemned()
    assert objects.discard(found)
    assert not objects.discard(found)
    assert objects.missing({digest: 7}) == [digest]
    objects.put(b"content")
    assert not objects.discard(found)
    assert objects.get(digest) == b"content"


def test_object_that_was_written_again_is_not_set_aside(store: Store) -> None:
    objects = store.objects
    digest = objects.put(b"content")
    (found,) = objects.stored()
    time.sleep(0.01)
    objects.write(digest, [b"content"])
    assert not objects.condemn(found, "1")
    assert list(objects.condemned()) == []


def test_what_one_collection_set_aside_is_not_what_another_did(store: Store) -> None:
    objects = store.objects
    digest = objects.put(b"content")
    aside(store, digest, "1")
    (first,) = objects.condemned()
    objects.restore(digest)
    aside(store, digest, "2")
    assert not objects.discard(first)
    assert objects.get(digest) == b"content"


def test_one_of_restore_and_discard_wins(store: Store) -> None:
    objects = store.objects
    for number in range(50):
        digest = objects.put(str(number).encode())
        aside(store, digest)
        (found,) = objects.condemned()
        with ThreadPoolExecutor(2) as pool:
            lost, back = pool.submit(objects.discard, found), pool.submit(objects.restore, digest)
            assert lost.result() != back.result()
        assert objects.missing({digest: len(str(number))}) == ([digest] if lost.result() else [])


def test_settle_waits_for_those_inside_and_for_nobody_later(store: Store) -> None:
    with ThreadPoolExecutor(1) as pool, store.uses.hold(), store.uses.hold():
        assert not store.uses.settle(0.05)
        waiting = pool.submit(store.uses.settle, 30)
        time.sleep(0.1)
        assert not waiting.done()
        later = store.uses.hold()
        later.__enter__()  # is never left before the others are
    assert waiting.result()
    later.__exit__(None, None, None)
    assert store.uses.settle(0)


def test_all_names_can_be_listed(store: Store) -> None:
    for name in ("b/1", "a", "c/d/e"):
        store.refs.create(name, b"")
    names = list(store.refs.names(""))
    assert [name for name in names if name != "instance"] == ["a", "b/1", "c/d/e"]


# -- what only files have ---------------------------------------------------------------------------


def objects_of(store: Store) -> FileObjects:
    assert isinstance(store.objects, FileObjects)
    return store.objects


def damage(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_damaged_object_is_found_and_can_be_stored_again(tmp_path: Path) -> None:
    store = open_file_store(tmp_path)
    digest = store.objects.put(b"content")
    damage(objects_of(store).path(digest), b"CONTENT")
    with pytest.raises(CorruptObjectError, match="changed or damaged"):
        store.objects.get(digest)
    assert store.objects.missing({digest: 7}) == [digest]
    store.objects.put(b"content")
    assert store.objects.get(digest) == b"content"
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_last_bytes_of_a_damaged_large_object_are_never_served(tmp_path: Path) -> None:
    store = open_file_store(tmp_path)
    content = os.urandom(20 << 20)
    digest = store.objects.put(content)
    damage(objects_of(store).path(digest), content[:-1] + b"?")
    received: list[int] = []
    with pytest.raises(CorruptObjectError):
        received.extend(len(chunk) for chunk in store.objects.read(digest))
    assert sum(received) < len(content)


def test_damaged_object_is_not_placed(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "store")
    digest = store.objects.put(b"content")
    for options in ({}, {"writable": True}):
        damage(objects_of(store).path(digest), b"CONTENT")
        with pytest.raises(CorruptObjectError):
            store.objects.place(digest, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
        store.objects.put(b"content")


def test_shared_files_are_hard_links(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "store")
    digest = store.objects.put(b"content")
    store.objects.place(digest, tmp_path / "out")
    assert (tmp_path / "out").stat().st_ino == objects_of(store).path(digest).stat().st_ino


def test_block_of_a_process_that_was_killed_is_left(tmp_path: Path) -> None:
    store = open_file_store(tmp_path)
    script = (
        "import sys, time; from pathlib import Path; from kaos.store import open_file_store\n"
        "with open_file_store(Path(sys.argv[1])).uses.hold(): print('in', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not store.uses.settle(0.05)
        process.kill()
    assert store.uses.settle(5)


def test_scratch_of_a_killed_writer_is_swept(tmp_path: Path) -> None:
    objects = objects_of(open_file_store(tmp_path))
    objects.put(b"content")
    left = tmp_path / "objects" / "tmp" / "left"
    left.write_bytes(b"half")
    assert objects.sweep_scratch(time.time() - 60) == 0
    assert objects.sweep_scratch(time.time() + 60) == 4
    assert not left.exists()
    assert objects.get(digest_bytes(b"content"))


def test_store_urls(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/a%20b")
    assert store.objects.get(store.objects.put(b"x")) == b"x"
    assert (tmp_path / "a b").stat().st_mode & 0o777 == 0o700
    for url in ("ftp://x", "/tmp", "file:relative", "file://host/x", ""):
        with pytest.raises(InvalidInputError, match="names no store"):
            open_store(url)


def test_kill_at_any_moment_leaves_a_store_that_verifies(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from kaos.store import open_file_store
        store = open_file_store(Path(sys.argv[1]))
        print("ready", flush=True)
        number = 0
        while True:
            content = os.urandom(1 + number % 200_000)
            digest = store.objects.put(content)
            ref = store.refs.get("last")
            store.refs.set("last", digest.encode(), ref.version if ref else None)
            number += 1
        """
    )
    for delay in (0.05, 0.1, 0.15, 0.2):
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
    store = open_file_store(tmp_path)
    digests = list(store.objects.digests())
    assert digests
    for digest in digests:
        assert digest_bytes(store.objects.get(digest)) == digest
    ref = store.refs.get("last")
    assert ref is not None
    assert ref.value.decode() in digests
