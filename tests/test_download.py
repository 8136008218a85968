from __future__ import annotations

import contextlib
import datetime
import gzip
import ipaddress
import json
import os
import random
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from faults import Fault, FaultServer
from seaweed import put, running_s3

from kaos.digest import digest_bytes
from kaos.errors import DownloadFailedError, InvalidInputError, SourceUnavailableError
from kaos.manifest import Manifest, parse
from kaos.store import Objects, memory_store, open_file_store
from kaos.transfer.download import Downloaded, Network, Progress, S3Access, download
from kaos.transfer.download.addresses import AddressPolicy
from kaos.transfer.download.retry import retry_after, wait

LOOPBACK = ("127.0.0.0/8", "::1/128")
QUICK = Network(allowed_networks=LOOPBACK, backoff=0.02, longest_wait=1.0, stall_timeout=1)
MANY = 300  # above the number from which processes share the work
BIG = os.urandom(6 << 20)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer().running() as found:
        yield found


class Here:
    """A store and a work directory, as a worker has them."""

    def __init__(self, root: Path, objects: Objects | None = None) -> None:
        self.work = root / "work"
        self.objects = objects or open_file_store(root / "store").objects

    def get(self, manifest: Manifest, network: Network = QUICK, **options: object) -> Downloaded:
        return download(manifest, self.objects, self.work, network=network, **options)  # type: ignore[arg-type]

    def contents(self, result: Downloaded) -> dict[str, bytes]:
        return {file.path: self.objects.get(file.digest) for file in result.tree.files}

    def failures(self, manifest: Manifest, network: Network = QUICK, **options: object) -> list[str]:
        with pytest.raises(DownloadFailedError) as caught:
            self.get(manifest, network, **options)
        return [row.strip() for row in caught.value.message.splitlines()[1:]]


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def manifest_of(*rows: str | dict[str, object]) -> Manifest:
    """Return a manifest of URLs, or of whole rows, under the paths 0, 1, 2."""
    dicts = [{"url": row} if isinstance(row, str) else row for row in rows]
    return parse("\n".join(json.dumps({"path": f"{n}"} | row) for n, row in enumerate(dicts)).encode())


def serving(server: FaultServer, number: int, size: int = 2000) -> Manifest:
    source = random.Random(number)
    server.files |= {f"f{n}": source.randbytes(size) for n in range(number)}
    return manifest_of(*(server.url(f"f{n}") for n in range(number)))


def test_files_arrive_byte_exact_through_faults(server: FaultServer, here: Here) -> None:
    manifest = serving(server, MANY)
    server.files |= {"big": BIG, "empty": b"", "é a": b"a name"}
    more = manifest_of(*(server.url(path) for path in ("big", "empty", "%C3%A9%20a")))
    server.files["%C3%A9%20a"] = b"a name"
    server.chance, server.delay = 0.05, 0.002
    result = here.get(manifest, Network(LOOPBACK, backoff=0.02, longest_wait=0.2, attempts=12))
    assert here.contents(result) == {str(n): server.files[f"f{n}"] for n in range(MANY)}
    assert result.progress.retries > 0
    assert server.open["most"] <= 16
    assert here.contents(here.get(more)) == {"0": BIG, "1": b"", "2": b"a name"}
    assert here.contents(here.get(manifest_of(server.url("é a")))) == {"0": b"a name"}
    assert list((here.work / "parts").glob("*")) == []


@pytest.mark.parametrize("big", [False, True])
def test_any_store_will_do(server: FaultServer, tmp_path: Path, big: bool) -> None:
    here = Here(tmp_path, memory_store().objects)
    server.files["f"] = BIG if big else b"small"
    assert here.contents(here.get(manifest_of(server.url("f")))) == {"0": server.files["f"]}


def test_connections_are_reused_and_bounded(server: FaultServer, here: Here) -> None:
    server.delay = 0.002
    here.get(serving(server, 100), Network(LOOPBACK, per_host=4))
    assert server.open["most"] <= 4
    assert server.connections <= 8


def test_second_run_asks_only_what_changed(server: FaultServer, here: Here) -> None:
    manifest = serving(server, 10)
    first = here.get(manifest)
    server.requests.clear()
    again = here.get(manifest)
    assert again.tree == first.tree
    assert again.origins == first.origins
    assert {file.how for file in again.files} == {"unchanged"}
    assert again.progress.received == 0
    assert all("if-none-match" in request.headers for request in server.requests)
    server.files["f3"] = b"another"
    changed = here.get(manifest)
    assert changed.tree.digest != first.tree.digest
    assert [file.path for file in changed.files if file.how == "downloaded"] == ["3"]
    assert here.contents(changed)["3"] == b"another"
    # What the store has lost is fetched again, without asking for a change.
    store = here.work.parent / "store" / "objects"
    for path in store.rglob(changed.files[5].sha256):
        path.unlink()
    assert here.contents(here.get(manifest))["5"] == server.files["f5"]


def test_refresh_fetches_everything(server: FaultServer, here: Here) -> None:
    manifest = serving(server, 5)
    here.get(manifest)
    server.requests.clear()
    result = here.get(manifest, refresh=True)
    assert {file.how for file in result.files} == {"downloaded"}
    assert not any("if-none-match" in request.headers for request in server.requests)


def test_lineage_says_what_each_url_gave(server: FaultServer, here: Here) -> None:
    server.files["a"] = b"abc"
    result = here.get(manifest_of(server.url("a")))
    (row,) = map(json.loads, result.origins.splitlines())
    assert row["url"] == server.url("a")
    assert (row["path"], row["size"], row["sha256"]) == ("0", 3, digest_bytes(b"abc"))
    assert row["etag"].startswith('"')
    assert row["last_modified"].endswith("GMT")


def test_all_bad_lines_fail_at_once_and_nothing_of_them_is_stored(server: FaultServer, here: Here) -> None:
    server.files |= {"good": b"good", "page": b"a page", "big": BIG}
    server.always["gone"] = Fault(410)
    server.always["page404"] = Fault(404)
    manifest = manifest_of(
        server.url("good"),
        server.url("page404") + "?signature=secret",
        {"url": server.url("page"), "sha256": "0" * 64},
        {"url": server.url("page"), "size": 5},
        server.url("gone"),
        {"url": server.url("big"), "sha256": "1" * 64},
        {"url": server.url("big"), "size": 100},
        "s3://bucket/key",
    )
    page = digest_bytes(b"a page")
    assert here.failures(manifest) == [
        f"line 2: {server.url('page404')}?…: the server answered 404 Not Found",
        f"line 3: {server.url('page')}: its SHA-256 is {page}, the manifest says {'0' * 64}",
        f"line 4: {server.url('page')}: it has 6 bytes, the manifest says 5",
        f"line 5: {server.url('gone')}: the server answered 410 Gone",
        f"line 6: {server.url('big')}: its SHA-256 is {digest_bytes(BIG)}, the manifest says {'1' * 64}",
        f"line 7: {server.url('big')}: it has {len(BIG)} bytes, the manifest says 100",
        "line 8: s3://bucket/key: no S3 connection is set up",
    ]
    assert list(here.objects.digests()) == [digest_bytes(b"good")]
    assert server.asked()["page404?signature=secret"] == 1
    # What did arrive is not asked for again.
    server.requests.clear()
    here.failures(manifest)
    assert server.asked()["good"] == 0


def test_body_that_is_too_long_is_cut_off(server: FaultServer, here: Here) -> None:
    server.files["f"] = BIG
    server.always["f"] = Fault(chunked=True, pause=0.001)
    manifest = manifest_of({"url": server.url("f"), "size": 100_000})
    assert here.failures(manifest) == [
        f"line 1: {server.url('f')}: it has more than the 100000 bytes that the manifest says"
    ]


def test_wrong_content_md5_is_tried_again_and_then_fails(server: FaultServer, here: Here) -> None:
    server.files["f"] = b"right"
    wrong = Fault(headers=(("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="),))
    server.faults["f"].append(wrong)
    assert here.contents(here.get(manifest_of(server.url("f")))) == {"0": b"right"}
    server.always["f"], server.files["f"] = wrong, b"other"
    assert "have the MD5" in here.failures(manifest_of(server.url("f")))[0]
    assert len(list(here.objects.digests())) == 1


def test_what_may_work_later_is_tried_and_said_to(server: FaultServer, here: Here) -> None:
    server.always["f"] = Fault(503, (("Retry-After", "0"),))
    with pytest.raises(SourceUnavailableError, match="503 Service Unavailable") as caught:
        here.get(manifest_of(server.url("f")))
    assert caught.value.code == "source_unavailable"
    assert server.asked()["f"] == QUICK.attempts
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SourceUnavailableError):
        here.get(manifest_of(f"http://127.0.0.1:{port}/"))


def test_pinned_file_that_the_store_has_needs_no_network(here: Here) -> None:
    digest = here.objects.put(b"pinned")
    manifest = manifest_of({"url": "https://example.invalid/x", "sha256": digest})
    assert here.get(manifest).files[0].how == "stored"


def test_one_request_for_a_file_that_several_lines_want(server: FaultServer, here: Here) -> None:
    server.files["f"] = b"once"
    manifest = manifest_of(server.url("f"), server.url("f"))
    assert here.contents(here.get(manifest)) == {"0": b"once", "1": b"once"}
    assert server.asked()["f"] == 1


# Large files


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_large_file_goes_on_where_it_stopped(server: FaultServer, here: Here, kind: str) -> None:
    server.files["f"] = BIG
    for _ in range(10):  # more than the attempts: each brings something new
        server.faults["f"].append(Fault(**{kind: 1_500_000}, pause=0.0001))
    result = here.get(manifest_of({"url": server.url("f"), "sha256": digest_bytes(BIG)}))
    assert here.contents(result) == {"0": BIG}
    ranges = [int(request.headers.get("range", "bytes=0-")[6:-1]) for request in server.requests]
    assert len(ranges) >= 4
    assert ranges == sorted(ranges)
    assert result.progress.received < len(BIG) * 1.2


def test_large_file_that_changed_meanwhile_starts_over(server: FaultServer, here: Here) -> None:
    server.files["f"] = BIG
    server.faults["f"] += [Fault(truncate=3_000_000), Fault(503), Fault(late=0.3)]
    other = os.urandom(len(BIG))

    def change(now: Progress) -> None:
        if now.received > 2_000_000:
            server.files["f"] = other

    assert here.contents(here.get(manifest_of(server.url("f")), progress=change)) == {"0": other}


def test_without_a_version_nothing_is_put_together(server: FaultServer, here: Here) -> None:
    server.files["f"], server.validators = BIG, False
    server.faults["f"].append(Fault(truncate=3_000_000))
    assert here.contents(here.get(manifest_of(server.url("f")))) == {"0": BIG}
    assert not any("range" in request.headers for request in server.requests)


def test_part_of_another_version_is_refused(server: FaultServer, here: Here) -> None:
    server.files["f"] = BIG
    liar = Fault(206, (("Content-Range", f"bytes 5-9/{len(BIG)}"),))
    server.faults["f"] += [Fault(truncate=3_000_000), liar]
    assert here.contents(here.get(manifest_of(server.url("f")))) == {"0": BIG}
    assert "range" not in server.requests[2].headers


def test_same_bytes_again_and_again_are_no_progress(server: FaultServer, here: Here) -> None:
    # Named by an ETag, but never gone on with: it would be asked for without an end.
    server.files["f"], server.ranges = BIG, False
    server.always["f"] = Fault(truncate=3_000_000)
    with pytest.raises(SourceUnavailableError):
        here.get(manifest_of(server.url("f")))
    assert QUICK.attempts <= server.asked()["f"] <= QUICK.attempts + 2


@pytest.mark.parametrize("chunked", [False, True])
def test_empty_bodies(server: FaultServer, here: Here, chunked: bool) -> None:
    server.files |= {"f": b"", "g": b""}
    server.always |= dict.fromkeys(("f", "g"), Fault(chunked=chunked))
    pinned = {"url": server.url("g"), "size": 0, "sha256": digest_bytes(b"")}
    result = here.get(manifest_of(server.url("f"), pinned))
    assert here.contents(result) == {"0": b"", "1": b""}
    assert here.failures(manifest_of({"url": server.url("f"), "size": 1})) == [
        f"line 1: {server.url('f')}: it has 0 bytes, the manifest says 1"
    ]
    server.always["none"], server.files["none"] = Fault(204), b""
    assert "answered 204 No Content" in here.failures(manifest_of(server.url("none")))[0]


def test_body_that_the_server_compresses_all_the_same(server: FaultServer, here: Here) -> None:
    packed = gzip.compress(b"a,b")
    names = ("a.csv", "a.csv.gz", "a.tgz", "plain")
    server.files |= dict.fromkeys(names, packed)
    server.always |= dict.fromkeys(names, Fault(headers=(("Content-Encoding", "gzip"),)))
    server.always["plain"] = Fault(headers=(("Content-Encoding", "identity"),))
    (said,) = here.failures(manifest_of(server.url("a.csv?x=.gz")))
    assert said.endswith("the server answered 404 Not Found")
    (said,) = here.failures(manifest_of(server.url("a.csv")))
    assert said.endswith("sends it compressed (gzip); its sha256 in the manifest would allow it")
    assert list(here.objects.digests()) == []
    # Meant as they are: by their name, or by what the manifest says of them.
    fine = [server.url(name) for name in names[1:]]
    pinned = {"url": server.url("a.csv"), "sha256": digest_bytes(packed)}
    assert set(here.contents(here.get(manifest_of(*fine, pinned))).values()) == {packed}
    assert all(request.headers["accept-encoding"] == "identity" for request in server.requests)


def test_percent_encoded_urls_are_asked_for_as_they_stand(server: FaultServer, here: Here) -> None:
    paths = ["a%20b", "a%2Fb", "%C3%A9", "100%25", "q?x=%26&y=a+b", "a%zz", "x;y=1", "~a'()!*"]
    server.files |= {path: path.encode() for path in paths}
    result = here.get(manifest_of(*map(server.url, paths)))
    assert here.contents(result) == {str(n): path.encode() for n, path in enumerate(paths)}


def test_ipv6(here: Here) -> None:
    with FaultServer(files={"f": b"six"}).running("::1") as server:
        assert here.contents(here.get(manifest_of(server.url("f", "[::1]")))) == {"0": b"six"}
        only4 = Network(allowed_networks=("127.0.0.0/8",), attempts=1)
        assert (
            "::1 (loopback)" in here.failures(manifest_of(server.url("f", "[::1]")), only4, refresh=True)[0]
        )


def test_answer_that_is_no_http(here: Here) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as line:
                line.recv(4096)
                line.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        (said,) = here.failures(manifest_of(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        thread.join()
    assert "HTTP/0.9" in said
    assert "redirected" not in said


def test_full_disk_is_said_and_nothing_half_is_stored(
    server: FaultServer, here: Here, tmp_path: Path
) -> None:
    server.files |= {"big": BIG, "small": b"small"}
    manifest = manifest_of(server.url("big"), server.url("small"))
    (tmp_path / "m.mf").write_bytes(manifest.encoded)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000,) * 2)"
    child = subprocess.run(
        [sys.executable, "-c", f"{limit}\n{RUN}", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 1
    assert child.stderr.splitlines()[-1] == "OSError: [Errno 27] File too large"
    assert digest_bytes(BIG) not in set(here.objects.digests())
    for digest in here.objects.digests():
        here.objects.verify(digest)
    assert here.contents(here.get(manifest)) == {"0": BIG, "1": b"small"}


def test_memory_that_is_damaged_is_begun_anew(server: FaultServer, here: Here) -> None:
    manifest = serving(server, 3)
    here.get(manifest)
    memory = here.work / "urls.sqlite"
    memory.write_bytes(b"no database at all, but long enough for its header" * 100)
    assert len(here.get(manifest).files) == 3
    assert {file.how for file in here.get(manifest).files} == {"unchanged"}
    memory.unlink()
    memory.mkdir()
    with pytest.raises(OSError, match=r"unable to open.*may be removed.*urls\.sqlite"):
        here.get(manifest)


# Killed


RUN = """
import sys
from pathlib import Path
from kaos.manifest import parse
from kaos.store import open_file_store
from kaos.transfer.download import Network, download
root = Path(sys.argv[1])
manifest = parse((root / "m.mf").read_bytes())
network = Network(("127.0.0.0/8",))
download(manifest, open_file_store(root / "store").objects, root / "work", network=network)
"""


def start_and_kill(root: Path, manifest: Manifest, when: object) -> None:
    (root / "m.mf").write_bytes(manifest.encoded)
    child = subprocess.Popen([sys.executable, "-c", RUN, str(root)])
    try:
        until(when)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def until(when: object, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not when():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_download_asks_only_for_what_is_missing(
    server: FaultServer, here: Here, tmp_path: Path
) -> None:
    manifest = serving(server, MANY)
    server.delay, server.held = 0.05, 150
    start_and_kill(tmp_path, manifest, lambda: len(server.requests) > 150)
    server.held = None
    # Its processes end with it.
    until(lambda: server.open["now"] == 0)
    with contextlib.closing(sqlite3.connect(here.work / "urls.sqlite")) as database:
        kept = {url for (url,) in database.execute("SELECT url FROM urls")}
    assert len(kept) > 50
    server.requests.clear()
    result = here.get(manifest)
    assert {server.url(path) for path in server.asked()} == {entry.url for entry in manifest.entries} - kept
    assert set(server.asked().values()) == {1}
    assert sum(file.how == "continued" for file in result.files) == len(kept)
    assert here.contents(result) == {str(n): server.files[f"f{n}"] for n in range(MANY)}
    # Once it is over, the next one asks for all again.
    server.requests.clear()
    here.get(manifest)
    assert len(server.requests) == MANY


def test_killed_large_file_goes_on(server: FaultServer, here: Here, tmp_path: Path) -> None:
    server.files["f"] = BIG
    server.faults["f"].append(Fault(pause=0.01))
    manifest = manifest_of(server.url("f"))
    parts = here.work / "parts"

    def arrived() -> int:
        return sum(path.stat().st_size for path in parts.glob("*"))

    start_and_kill(tmp_path, manifest, lambda: arrived() > 2_000_000)
    until(lambda: server.open["now"] == 0)
    server.requests.clear()
    result = here.get(manifest)
    assert here.contents(result) == {"0": BIG}
    assert int(server.requests[0].headers["range"][6:-1]) > 2_000_000
    assert result.progress.received < 5_000_000
    assert list(parts.glob("*")) == []


def test_refresh_that_was_killed_goes_on_for_the_same_run_only(server: FaultServer, here: Here) -> None:
    manifest = serving(server, 10)
    here.get(manifest)
    server.always["f9"] = Fault(404)
    here.failures(manifest, run="job1", refresh=True)
    server.requests.clear()
    here.failures(manifest, run="job1", refresh=True)
    assert server.asked() == {"f9": 1}
    here.failures(manifest, run="job2", refresh=True)
    assert len(server.asked()) == 10


def test_exception_of_the_caller_ends_it(server: FaultServer, here: Here) -> None:
    manifest = serving(server, MANY)
    server.delay = 0.05

    def give_up(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        here.get(manifest, progress=give_up)
    until(lambda: server.open["now"] == 0)
    assert len(server.requests) < MANY


def test_killed_process_of_a_download_is_said(server: FaultServer, here: Here) -> None:
    manifest = serving(server, MANY)
    server.delay = 0.05

    def kill(_: Progress) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        for task in children.parent.parent.iterdir():
            for child in (task / "children").read_text().split():
                if b"download.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)

    with pytest.raises(ChildProcessError, match="ended with -9"):
        here.get(manifest, progress=kill)


# Waiting


def test_waits() -> None:
    assert retry_after(None) == retry_after("soon") == retry_after("-1") == 0
    assert retry_after("120") == 120
    assert retry_after(formatdate(1000, usegmt=True), now=940) == 60
    assert retry_after(formatdate(1000, usegmt=True), now=2000) == 0
    assert wait(1, 0.5, 60, asked=1e6) == 60
    assert 5 <= wait(1, 0.5, 60, asked=5) <= 5.5
    bounds = [max(wait(attempt, 0.5, 60) for _ in range(2000)) for attempt in (1, 2, 3)]
    assert 0.4 < bounds[0] <= 0.5 < bounds[1] <= 1 < bounds[2] <= 2
    assert wait(10_000, 0.5, 60) <= 60


def test_retry_after_is_honoured(server: FaultServer, here: Here) -> None:
    server.files["f"] = b"late"
    server.faults["f"].append(Fault(503, (("Retry-After", "1"),)))
    start = time.monotonic()
    here.get(manifest_of(server.url("f")))
    assert time.monotonic() - start >= 1


def test_host_that_asks_for_less_gets_less(server: FaultServer, here: Here) -> None:
    manifest = serving(server, 200)
    server.most = 50
    network = Network(LOOPBACK, backoff=0.02, attempts=3)
    assert here.contents(here.get(manifest, network)) == {str(n): server.files[f"f{n}"] for n in range(200)}
    # The others do not go on asking while one waits.
    assert len(server.requests) < 350


def test_server_that_says_nothing_is_given_up(server: FaultServer, here: Here) -> None:
    server.files["f"] = b"there"
    server.faults["f"].append(Fault(late=20))
    assert here.contents(here.get(manifest_of(server.url("f")))) == {"0": b"there"}
    assert server.asked()["f"] == 2


def test_progress(server: FaultServer, here: Here) -> None:
    server.files |= {f"f{n}": bytes(100) for n in range(10)}
    manifest = manifest_of(*({"url": server.url(f"f{n}"), "size": 100} for n in range(10)))
    seen: list[Progress] = []
    here.get(manifest, progress=seen.append)
    last = seen[-1]
    assert (last.ended, last.files, last.total, last.received, last.size) == (True, 10, 10, 1000, 1000)
    assert last.eta == 0
    assert str(last).startswith("10 of 10 files, 0.0 MB received")
    halfway = last._replace(files=5, present=500, received=500, seconds=2.0)
    assert (halfway.eta, halfway.rate) == (2.0, 250.0)
    assert halfway._replace(files=4, unchanged=2, size=None).eta == 6.0
    assert halfway._replace(files=0, received=0, size=None).eta is None


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1",
        "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "fe80::1", "fe80::1%2", "fc00::1",
        "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "100::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe", "4000::1",
    ],
)  # fmt: skip
def test_address_that_is_not_public_is_refused(address: str) -> None:
    assert AddressPolicy().refusal(address)


def test_public_and_allowed_addresses() -> None:
    assert not any(
        map(AddressPolicy().refusal, ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1"])
    )
    policy = AddressPolicy(["10.1.0.0/16", "fd00::/8"])
    assert not any(map(policy.refusal, ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"]))
    assert policy.refusal("10.2.0.1") == "private"
    assert AddressPolicy(["0.0.0.0/0"]).refusal("::1") == "loopback"
    with pytest.raises(InvalidInputError, match=r"'10\.0\.0\.1/8' is no network"):
        AddressPolicy(["10.0.0.1/8"])


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "127.0.0.1 (loopback)"),
        ("localhost", "(loopback)"),
        ("LOCALHOST.", "(loopback)"),
        ("2130706433", "127.0.0.1 (loopback)"),
        ("0x7f.1", "127.0.0.1 (loopback)"),
        ("0", "(unspecified)"),
        ("[::1]", "(loopback)"),
        ("[::ffff:127.0.0.1]", "(loopback)"),
        ("[::ffff:7f00:1]", "(loopback)"),
    ],
)
def test_loopback_by_any_name_is_not_connected_to(
    server: FaultServer, here: Here, host: str, why: str
) -> None:
    server.files["f"] = b"secret"
    (said,) = here.failures(manifest_of(server.url("f", host)), Network())
    assert why in said
    assert "[kaos] manifest_allowed_networks does not allow" in said
    assert server.connections == 0


def test_name_is_checked_by_the_address_that_it_has(server: FaultServer, here: Here) -> None:
    server.files["f"] = b"named"
    network = Network(allowed_networks=("127.0.0.1/32", "::1/128"))
    assert here.contents(here.get(manifest_of(server.url("f", "localhost")), network)) == {"0": b"named"}
    (said,) = here.failures(manifest_of(server.url("f", "127.0.0.2")), network)
    assert "127.0.0.2 (loopback)" in said


def test_redirects(server: FaultServer, here: Here) -> None:
    server.files["end"] = b"here"

    def redirect(path: str, target: str) -> str:
        server.always[path] = Fault(302, (("Location", target),))
        return server.url(path)

    fine = redirect("a", "/b")
    redirect("b", server.url("end", "localhost"))
    assert here.contents(here.get(manifest_of(fine))) == {"0": b"here"}
    narrow = Network(allowed_networks=("127.0.0.1/32",), backoff=0.01)
    manifest = manifest_of(
        redirect("metadata", "http://169.254.169.254/latest/meta-data/"),
        redirect("elsewhere", server.url("end", "127.0.0.2")),
        redirect("file", "file:///etc/passwd"),
        redirect("loop", "/loop"),
        redirect("s3", "s3://bucket/key"),
        redirect("mapped", server.url("end", "[::ffff:127.0.0.3]")),
    )
    said = here.failures(manifest, narrow)
    assert [row.partition(": ")[0] for row in said] == [f"line {n}" for n in range(1, 7)]
    assert "169.254.169.254 (link-local)" in said[0]
    assert "127.0.0.2 (loopback)" in said[1]
    assert "file" in said[2]
    assert "redirected more than 10 times" in said[3]
    assert "s3" in said[4]
    assert "127.0.0.3 (loopback)" in said[5]
    assert server.asked()["loop"] == 11


def test_proxy_only_if_it_is_given(server: FaultServer, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["f"] = b"direct"
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert here.contents(here.get(manifest_of(server.url("f")))) == {"0": b"direct"}
    server.files["http://example.invalid/x"] = b"by proxy"
    network = Network(proxy=server.url(""))
    assert here.contents(here.get(manifest_of("http://example.invalid/x"), network)) == {"0": b"by proxy"}


def test_certificates_are_checked(here: Here, tmp_path: Path) -> None:
    context, ca = certificate(tmp_path)
    plain = FaultServer(files={"f": b"plain"})
    with plain.running(), FaultServer(files={"f": b"over TLS"}).running(tls=context) as server:
        url = f"https://127.0.0.1:{server.port}/f"
        (said,) = here.failures(manifest_of(url))
        assert "certificate" in said
        network = Network(allowed_networks=LOOPBACK, ca_file=ca)
        assert here.contents(here.get(manifest_of(url), network)) == {"0": b"over TLS"}
        # What was to come over TLS never comes without it.
        server.always["down"] = Fault(302, (("Location", plain.url("f")),))
        (said,) = here.failures(manifest_of(url.replace("/f", "/down")), network)
        assert "redirected to http://" in said
    assert plain.requests == []


def test_certificates_that_cannot_be_read(server: FaultServer, here: Here, tmp_path: Path) -> None:
    context, _ = certificate(tmp_path)
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with FaultServer(files={"f": b"over TLS"}).running(tls=context) as secure:
        for file in (broken, tmp_path / "missing.pem"):
            network = Network(allowed_networks=LOOPBACK, ca_file=file)
            (said,) = here.failures(manifest_of(f"https://127.0.0.1:{secure.port}/f"), network)
            assert str(file) in said
    # They are no matter where there is no TLS.
    server.files["f"] = b"plain"
    assert here.contents(here.get(manifest_of(server.url("f")), network)) == {"0": b"plain"}


def certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, secret = directory / "cert.pem", directory / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, secret)
    return context, chain


# S3


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Access]:
    with running_s3(tmp_path_factory.mktemp("s3")) as access:
        yield access


def test_s3(s3: S3Access, here: Here) -> None:
    put(s3, "data", {"a/b c+é%20.csv": b"one", "big": BIG})
    put(s3, "public", {"x": b"for all"})
    manifest = manifest_of("s3://data/a/b c+é%20.csv", "s3://data/big")
    strict = Network(backoff=0.02)  # the endpoint is the administrator's: it needs no allowance
    first = here.get(manifest, strict, s3=s3)
    assert here.contents(first) == {"0": b"one", "1": BIG}
    assert {file.how for file in here.get(manifest, strict, s3=s3).files} == {"unchanged"}
    put(s3, "data", {"a/b c+é%20.csv": b"two"})
    again = here.get(manifest, strict, s3=s3)
    assert [file.how for file in again.files] == ["downloaded", "unchanged"]
    assert again.tree.digest != first.tree.digest
    anonymous = S3Access(s3.endpoint, anonymous=True)
    assert here.contents(here.get(manifest_of("s3://public/x"), strict, s3=anonymous)) == {"0": b"for all"}
    assert (
        "403 Forbidden" in here.failures(manifest_of("s3://data/big"), strict, s3=anonymous, refresh=True)[0]
    )
    (said,) = here.failures(manifest_of("s3://data/none"), strict, s3=s3)
    assert said == "line 1: s3://data/none: the server answered 404 Not Found (NoSuchKey)"
    stranger = replace(s3, access_key_id="nobody")
    (said,) = here.failures(manifest_of("s3://data/big"), strict, s3=stranger, refresh=True)
    assert said.endswith("the server answered 403 Forbidden (InvalidAccessKeyId)")
    # A manifest cannot reach the endpoint by its address.
    (said,) = here.failures(manifest_of(f"{s3.endpoint}/public/x"), strict, s3=s3)
    assert "(loopback)" in said


@pytest.mark.parametrize("number", [2, MANY])
def test_s3_without_credentials(
    server: FaultServer, here: Here, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # The machine's own identity is asked for here; it has none.
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url("credentials"))
    server.files["f"] = b"fetched all the same"
    manifest = manifest_of(server.url("f"), *(f"s3://bucket/{n}" for n in range(number)))
    said = here.failures(manifest, s3=S3Access(server.url("")))
    assert len(said) == min(number, 21)  # an error shows 20, and says how many more there are
    assert said[0].startswith("line 2: s3://bucket/0: there are no S3 credentials, neither in the connection")
    assert list(here.objects.digests()) == [digest_bytes(server.files["f"])]
    (said_half,) = here.failures(manifest_of("s3://bucket/0"), s3=S3Access(access_key_id="only"))
    assert "it cannot be signed for S3: Missing SecretAccessKey" in said_half


def test_s3_endpoint_and_region(server: FaultServer, here: Here) -> None:
    for endpoint in ("localhost:9000", "ftp://x", "http://", "not a url", ""):
        with pytest.raises(InvalidInputError, match="is no URL"):
            S3Access(endpoint)
    moved = b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>"
    server.pages["bucket/key"] = moved
    server.always["bucket/key"] = Fault(400, (("x-amz-bucket-region", "eu-west-1"),))
    (said,) = here.failures(manifest_of("s3://bucket/key"), s3=S3Access(server.url(""), anonymous=True))
    assert said.endswith("400 Bad Request (AuthorizationHeaderMalformed, the bucket is in eu-west-1)")


def test_s3_etag_is_checked(server: FaultServer, here: Here) -> None:
    server.files["bucket/key"], server.validators = b"damaged", False
    etag = ("ETag", f'"{"0" * 32}"')
    server.always["bucket/key"] = Fault(headers=(etag,))
    access = S3Access(server.url(""), anonymous=True)
    assert "have the MD5" in here.failures(manifest_of("s3://bucket/key"), s3=access)[0]
    kms = ("x-amz-server-side-encryption", "aws:kms")
    server.always["bucket/key"] = Fault(headers=(etag, kms))
    assert here.contents(here.get(manifest_of("s3://bucket/key"), s3=access)) == {"0": b"damaged"}
