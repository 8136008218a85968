"""`kaos template serve`, as a process of its own, over real HTTP."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
import urllib3

from kaos.manifest import parse
from kaos.store import open_file_store
from kaos.transfer.download import Network, download
from kaos_templates import find
from kaos_templates.remote import PORT, manifest, served

KAOS = Path(sys.executable).with_name("kaos")
PIECE = "micro/test/xaaa.csv"


def start(*options: str) -> subprocess.Popen[str]:
    command = [str(KAOS), "template", "serve", *options]
    # A shell's background job ignores Ctrl-C, and hands that on.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = start("mnist", "--port", "0")
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.send_signal(signal.SIGINT)
        out, said = server.communicate(timeout=10)
    assert (server.returncode, out) == (0, "")
    assert "Traceback" not in said
    assert "Stopped" not in said


def ask(url: str, path: str, method: str = "GET", **headers: str) -> urllib3.BaseHTTPResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return urllib3.request(method, f"{url}/{path}", headers=names, retries=False)


def test_pieces_and_the_files_of_the_template(url: str) -> None:
    for path, content in list(served("mnist").items())[::100]:
        answer = ask(url, path)
        assert (answer.status, answer.data) == (200, content)
    assert ask(url, "data/features/test/test_mini.csv").data.count(b"\n") == 300
    head = ask(url, PIECE, "HEAD")
    assert (head.data, head.headers["Content-Length"]) == (b"", str(len(served("mnist")[PIECE])))


def test_conditions(url: str) -> None:
    first = ask(url, PIECE)
    etag, modified = first.headers["ETag"], first.headers["Last-Modified"]
    for headers in ({"If_None_Match": etag}, {"If_None_Match": f'"x", W/{etag}'}, {"If_None_Match": "*"}):
        answer = ask(url, PIECE, **headers)
        assert (answer.status, answer.data, answer.headers["ETag"]) == (304, b"", etag)
    assert ask(url, PIECE, If_Modified_Since=modified).status == 304
    old = formatdate(time.time() - 86400, usegmt=True)
    assert ask(url, PIECE, If_Modified_Since=old).status == 200
    # The tag is the better witness.
    assert ask(url, PIECE, If_None_Match='"x"', If_Modified_Since=modified).status == 200
    assert ask(url, PIECE, If_Modified_Since="yesterday").status == 200


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("5-9", slice(5, 10)),
        ("10-", slice(10, None)),
        ("-7", slice(-7, None)),
        ("100-9999999", slice(100, None)),
    ],
)
def test_ranges(url: str, asked: str, part: slice) -> None:
    content = served("mnist")[PIECE]
    etag = ask(url, PIECE).headers["ETag"]
    for condition in ({}, {"If_Range": etag}):
        answer = ask(url, PIECE, Range=f"bytes={asked}", **condition)
        assert (answer.status, answer.data) == (206, content[part])
        assert answer.headers["Content-Range"].endswith(f"/{len(content)}")
    changed = ask(url, PIECE, Range=f"bytes={asked}", If_Range='"another"')
    assert (changed.status, changed.data) == (200, content)


@pytest.mark.parametrize("asked", ["bytes=9-5", "bytes=-", "lines=1-2", "bytes=0-1,3-4", "nonsense"])
def test_range_that_is_none_gives_the_whole(url: str, asked: str) -> None:
    assert ask(url, PIECE, Range=asked).data == served("mnist")[PIECE]


def test_range_beyond_the_end(url: str) -> None:
    size = len(served("mnist")[PIECE])
    answer = ask(url, PIECE, Range=f"bytes={size}-")
    assert (answer.status, answer.headers["Content-Range"], answer.data) == (416, f"bytes */{size}", b"")


@pytest.mark.parametrize(
    "path",
    [
        "", "mid", "mid/", "../mnist/README.md", "../../property-val/README.md", "/etc/passwd",
        "//etc/passwd", "..%2f..%2f__init__.py", "%2e%2e/%2e%2e/__init__.py", "....//README.md",
        "README.md%00", "./README.md", "mid/training/../../README.md", "mid\\training\\xaaaa.csv",
    ],
)  # fmt: skip
def test_nothing_else_can_be_had(url: str, path: str) -> None:
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as line:  # no client tidies the path up
        line.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_only_loopback_and_only_reading(url: str) -> None:
    port = int(url.rpartition(":")[2])
    assert ask(url, PIECE, "PUT").status == 501
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0


def test_manifest_is_downloaded_from_it(url: str, tmp_path: Path) -> None:
    for remote in find("mnist").remotes:
        content = manifest("mnist", remote).replace(f"127.0.0.1:{PORT}".encode(), url[7:].encode())
        objects = open_file_store(tmp_path / "store").objects
        result = download(parse(content), objects, tmp_path / "work", network=Network(("127.0.0.0/8",)))
        files = served("mnist")
        assert len(result.files) == {"micro": 6, "mid": 2000}[remote.name]
        assert all(objects.get(file.sha256) == files[f"{remote.name}/{file.path}"] for file in result.files)
        assert result.progress.retries == 0


def test_what_it_says(url: str) -> None:
    port = url.rpartition(":")[2]
    other = start("mnist", "--port", port)
    out, said = other.communicate(timeout=20)
    assert (other.returncode, out) == (1, "")
    assert said.splitlines() == [
        f"Error: Port {port} of 127.0.0.1 cannot be had: Address already in use.",
        "Choose another one with --port.",
    ]
    none = start("property-val")
    assert none.communicate(timeout=20)[1].startswith("Error: The template property-val has no data manifest")
    assert none.returncode == 2
    unknown = start("minst")
    assert "Did you mean mnist?" in unknown.communicate(timeout=20)[1]
    assert unknown.returncode == 3


def test_command_for_another_port_changes_the_manifests(tmp_path: Path) -> None:
    subprocess.run([KAOS, "template", "get", "-n", "mnist"], cwd=tmp_path, check=True, capture_output=True)
    server = start("mnist", "--port", "0")
    assert server.stdout is not None
    assert server.stderr is not None
    url = server.stdout.readline().strip()
    lines = [server.stderr.readline() for _ in range(6)]
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=10)
    assert server.returncode == 0
    (command,) = [line.strip() for line in lines if line.strip().startswith("sed ")]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    for remote in find("mnist").remotes:
        text = (tmp_path / "templates" / "mnist" / remote.directory / "data.mf").read_text()
        assert set(re.findall(r"http://[^/]+", text)) == {url}
        parse(text.encode())
    assert lines[-2:] == [
        "    kaos train deploy -s templates/mnist/model-train \\\n",
        "        -m templates/mnist/data_manifest_mid/data.mf\n",
    ]
