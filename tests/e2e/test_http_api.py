"""The HTTP API: who gets in, and what it answers to nonsense."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from e2e.harness import TRAIN, Kaos, Server, tree_of, write_data, write_source

pytestmark = pytest.mark.second

API = "/kaos/api/v1"
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
NOTHING = "0" * 64


@pytest.fixture
def http(server: Server, token: str) -> Iterator[httpx.Client]:
    with server.http(token) as client:
        yield client


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Return method and path of every route, the pages and the unlisted ones included."""
    program = """
import contextlib, json, sys
with contextlib.redirect_stdout(sys.stderr):
    from kaos_plugin.app import create_app
    found = [(method, "/kaos" + route.path) for route in create_app().routes for method in route.methods]
print(json.dumps(found))
"""
    home = tmp_path_factory.mktemp("airflow")
    out = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "AIRFLOW_HOME": str(home)},
        capture_output=True,
        check=True,
    ).stdout
    return [(method, path) for method, path in json.loads(out)]


def check_error(answer: httpx.Response) -> dict[str, Any]:
    """Check that an answer is an error of the one shape."""
    body = answer.json()
    assert set(body) == {"code", "message", "next_step"}, answer.text
    assert all(isinstance(value, str) for value in body.values())
    assert body["code"]
    assert body["message"]
    assert "Traceback" not in answer.text
    return dict(body)


def filled(path: str, **values: str) -> str:
    """Return a route's path with something for each of its parameters."""
    given = {
        "workspace": "mnist",
        "kind": "data",
        "digest": NOTHING,
        "job_id": "0" * 32,
        "dag_id": "kaos.mnist.train",
        "name": "not-there",
        "revision": "1",
        "tag": "not-there",
        "model_id": "a_b:c",
    }
    return re.sub(r"{(\w+)}", lambda match: {**given, "run_id": "0" * 32, **values}[match[1]], path)


def test_the_committed_document_is_what_the_server_serves(http: httpx.Client):
    assert http.get(f"{API}/openapi.json").json() == json.loads(DOCUMENT.read_text())


def test_the_document_has_every_route_but_the_pages(routes: list[tuple[str, str]]):
    document = json.loads(DOCUMENT.read_text())
    listed = {
        (method.upper(), document["servers"][0]["url"] + path)
        for path, methods in document["paths"].items()
        for method in methods
    }
    unlisted = {path for method, path in routes if (method, path) not in listed}
    assert {f"{API}/openapi.json"} | {path for path in unlisted if path.startswith("/kaos/ui/")} == unlisted


def unreadable(token: str) -> str:
    """Return a token whose signature is not the server's."""
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "exp": time.time() + 1e6}).encode()).decode()
    return f"{head}.{forged.rstrip('=')}.{signature}"


def unsigned(token: str) -> str:
    """Return a token that says it needs no signature."""
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    return f"{head}.{token.split('.')[1]}."


def test_no_route_answers_without_a_valid_token(server: Server, token: str, routes: list[tuple[str, str]]):
    assert len(routes) > 25
    for header in (
        "",
        "Bearer nonsense",
        f"Bearer {unreadable(token)}",
        f"Bearer {unsigned(token)}",
        "Basic cm9vdDpyb290",
    ):
        with server.http(None) as http:
            http.headers["Authorization"] = header
            for method, path in routes:
                answer = http.request(method, filled(path))
                assert answer.status_code == 401, (method, path, header, answer.text)
                assert check_error(answer)["code"] == "unauthenticated"


def test_what_is_no_route_has_the_same_shape(http: httpx.Client):
    for method, path in (
        ("GET", "/kaos/"),
        ("GET", "/kaos/ui"),
        ("GET", f"{API}/nothing"),
        ("PATCH", f"{API}/workspaces"),
    ):
        answer = http.request(method, path)
        assert answer.status_code in (404, 405), path
        check_error(answer)


def test_a_viewer_may_read_and_nothing_else(
    server: Server, kaos: Kaos, eve: Kaos, workspace: str, tmp_path: Path, routes: list[tuple[str, str]]
):
    source, data = write_source(tmp_path / "s", TRAIN), write_data(tmp_path / "d")
    job_id = kaos.deploy_and_wait("-s", source, "-d", data)
    job = kaos.info(job_id)["models"][0]
    model_id = job["model_id"]
    kaos.run("model", "tag", model_id, "best")
    eve.run("workspace", "set", "-n", workspace)
    assert eve.json("train", "list")[0]["job_id"] == job_id
    assert eve.info(job_id)["models"][0]["model_id"] == job["model_id"]
    eve.run("train", "get", "-j", job_id)
    assert len(tree_of(eve.directory / workspace)) == 4
    for arguments in (("-s", source), ("-d", data), ()):
        result = eve.run("train", "deploy", *arguments, code=5)
        assert result.stderr.rpartition("Error: ")[2].startswith(
            f"eve may not deploy to workspace '{workspace}'."
        )
    assert "eve may not remove workspace" in eve.run("workspace", "kill", "-y", code=5).stderr
    assert "eve may not deploy to workspace" in eve.run("workspace", "create", "-n", "hers", code=5).stderr
    digest = job["data_digest"]
    readable = {"POST": ("/trees/{digest}/objects", "/store/verify")}
    with server.http(json.loads((eve.home / "client.json").read_text())["token"]) as http:
        for method, path in routes:
            if method == "GET" and "/uploads/" not in path:
                answer = http.get(
                    filled(
                        path,
                        workspace=workspace,
                        digest=digest,
                        job_id=job_id,
                        run_id=job_id,
                        dag_id=f"kaos.{workspace}.train",
                        model_id=model_id,
                        tag="best",
                    ),
                    params={"ref": model_id, "one": model_id, "other": model_id, "model": model_id},
                )
                # It has no endpoint, and its job made no model again.
                there = 404 if "{name}" in path or "/reproductions/" in path else 200
                assert answer.status_code == there, (path, answer.text)
            elif not path.endswith(readable.get(method, ())):
                body = (
                    {"name": "hers"}
                    if path.endswith("/workspaces")
                    else {"objects": {}}
                    if path.endswith("/missing")
                    else {}
                )
                options: dict[str, Any] = {"params": {"offset": 0, "size": 1, "name": "x"}}
                answer = http.request(method, filled(path, workspace=workspace), json=body, **options)
                assert answer.status_code == 403, (method, path, answer.text)
                assert check_error(answer)["code"] == "forbidden"
    assert kaos.json("workspace", "info")["jobs"] == 1


HOSTILE = [
    "..",
    "%2e%2e",
    "..%2f..%2fetc",
    "%00",
    "a%0ab",
    "'",
    '"',
    "{{7*7}}",
    "%7b%7b7*7%7d%7d",
    "x" * 4000,
    "%ff",
    "🐍",
    "-1",
    "*",
    "~",
]


def test_no_parameter_of_any_route_makes_it_fail(
    http: httpx.Client, kaos: Kaos, workspace: str, routes: list[tuple[str, str]]
):
    """Each parameter in turn is hostile; the path may become another route's by it, but nothing breaks."""
    for method, path in routes:
        if "/store/verify" in path:
            continue
        for parameter in re.findall(r"{(\w+)}", path):
            for value in HOSTILE:
                known = {"workspace": workspace, parameter: value}
                if method == "DELETE" and known["workspace"] == workspace:
                    continue
                answer = http.request(method, filled(path, **known))
                assert answer.status_code < 500, (method, path, value, answer.text)
                if answer.status_code >= 400 and value != "a%0ab":  # a line break never gets past Airflow
                    check_error(answer)
        for query in (
            "limit=-1",
            "limit=x",
            "limit=99999999999999999999999",
            "offset=-1",
            "page=-1",
            "page=1e9",
            "position=-5",
            "position=abc",
            "trial=99",
            "offset=999999999999999999999&limit=1",
            "metric=%00",
            "keep_models=maybe",
        ):
            if method != "DELETE":
                answer = http.request(method, filled(path, workspace=workspace) + f"?{query}")
                assert answer.status_code < 500, (method, path, query, answer.text)
    assert kaos.json("workspace", "info")["jobs"] == 0


KEYS = st.text() | st.sampled_from(
    ["name", "source", "data", "resources", "objects", "digests", "cpu", "memory", "gpu", NOTHING]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(NOTHING)
FLAT = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(KEYS, SCALARS, max_size=4)
JSON = FLAT | st.lists(FLAT, max_size=3) | st.dictionaries(KEYS, FLAT, max_size=4)


@seed(0)
@settings(max_examples=60)
@given(body=JSON)
def test_no_json_makes_a_route_fail(server: Server, token: str, body: Any):
    text = json.dumps(body).encode("utf-8", "surrogatepass")
    with server.http(token) as http:
        if not http.get(f"{API}/workspaces/fuzz").is_success:
            assert http.post(f"{API}/workspaces", json={"name": "fuzz"}).status_code == 201
        for path in (
            "/workspaces",
            "/workspaces/fuzz/deploys",
            "/workspaces/fuzz/objects/missing",
            f"/workspaces/fuzz/trees/{NOTHING}/objects",
        ):
            answer = http.post(f"{API}{path}", content=text, headers={"Content-Type": "application/json"})
            if answer.status_code >= 400:
                assert answer.status_code < 500, (path, text, answer.text)
                check_error(answer)
            else:
                assert answer.status_code == 200 or body in ({}, {"name": body.get("name")}), (
                    path,
                    text,
                    answer.text,
                )


def packed(*contents: bytes, end: bool = True) -> bytes:
    """Return a pack of objects."""
    parts = [
        hashlib.sha256(content).digest() + struct.pack(">Q", len(content)) + content for content in contents
    ]
    return b"".join(parts) + (bytes(40) if end else b"")


def tree(*lines: str) -> bytes:
    """Return the text of a canonical tree."""
    return "".join(f"{line}\n" for line in lines).encode()


def test_broken_packs_are_refused_and_leave_nothing(
    server: Server, http: httpx.Client, kaos: Kaos, workspace: str
):
    at = f"{API}/workspaces/{workspace}/objects"
    content = os.urandom(3 << 20)
    digest = hashlib.sha256(content).hexdigest()
    whole = packed(content)
    lying = bytes.fromhex(digest) + struct.pack(">Q", 4) + b"liar" + bytes(40)
    huge = bytes.fromhex(digest) + struct.pack(">Q", 2**63) + content
    for broken in (
        b"",
        b"x",
        whole[:39],
        whole[:-40],
        whole[:-1],
        whole[: 2 << 20],
        lying,
        huge,
        bytes(39),
        b"\xff" * 200,
    ):
        answer = http.post(at, content=broken)
        assert 400 <= answer.status_code < 500, (broken[:50], answer.text)
        check_error(answer)
        missing = http.post(f"{at}/missing", json={"objects": {digest: len(content)}}).json()["objects"]
        # An object that came whole before the stream broke is kept.
        assert (
            missing == ({} if broken in (whole[:-40], whole[:-1]) else {digest: len(content)}) or not missing
        )
    assert list((server.home / "store" / "objects" / "tmp").iterdir()) == []
    assert kaos.damage(workspace) == []


def test_broken_uploads_of_large_objects_are_refused_and_leave_nothing(
    server: Server, http: httpx.Client, kaos: Kaos, workspace: str
):
    content = os.urandom(1 << 20)
    digest = hashlib.sha256(content).hexdigest()
    at = f"{API}/workspaces/{workspace}/uploads/{digest}"

    def put(body: bytes, offset: int, size: int) -> httpx.Response:
        return http.put(at, params={"offset": offset, "size": size}, content=body)

    assert http.get(at).json() == {"offset": 0}
    assert check_error(put(content, 7, len(content)))["code"] == "conflict"
    assert put(content[:1000], 0, len(content)).json() == {"offset": 1000}
    assert check_error(put(content, 0, len(content)))["code"] == "conflict"
    assert check_error(put(content, 1000, len(content)))["code"] == "invalid_input"  # too much: dropped
    assert http.get(at).json() == {"offset": 0}
    assert check_error(put(bytes(len(content)), 0, len(content)))["code"] == "invalid_input"  # other bytes
    assert http.get(at).json() == {"offset": 0}
    for query in ("offset=0", "size=1", "offset=-1&size=1", "offset=0&size=x", "offset=1e3&size=1"):
        assert http.put(f"{at}?{query}", content=b"x").status_code == 422
    assert put(content[:1000], 0, len(content)).json() == {"offset": 1000}
    assert put(content[1000:], 1000, len(content)).json() == {"offset": len(content)}
    assert http.post(
        f"{API}/workspaces/{workspace}/objects/missing", json={"objects": {digest: len(content)}}
    ).json() == {"objects": {}}
    assert [
        path for path in (server.home / "work" / "uploads").iterdir() if path.name.startswith(digest)
    ] == []
    assert kaos.damage(workspace) == []


def test_trees_that_are_none_are_refused_and_leave_nothing(
    http: httpx.Client, kaos: Kaos, workspace: str, tmp_path: Path
):
    at = f"{API}/workspaces/{workspace}"
    data = write_data(tmp_path / "d", "content of a file")
    good = kaos.run("bundle", "digest", data, "--tree").stdout.encode()
    digest = hashlib.sha256(good).hexdigest()
    assert kaos.run("bundle", "digest", data).stdout.strip() == digest

    def commit(body: bytes, *, kind: str = "data", digest: str | None = None, **query: str) -> httpx.Response:
        known = digest or hashlib.sha256(body).hexdigest()
        return http.put(f"{at}/bundles/{kind}/{known}", params={"name": "x", **query}, content=body)

    # Its file is not there yet.
    assert "have not arrived" in check_error(commit(good))["message"]
    assert http.post(f"{at}/objects", content=packed(b"content of a file")).status_code == 200
    file = good.decode().splitlines()[-1]
    broken = [
        b"",
        b"\xff\xfe",
        b"null",
        b"{}",
        good[:-1],
        good + b"\n",
        good + good,
        good.replace(b"table.csv", b"../table.csv"),
        good.replace(b"table.csv", b"/etc/passwd"),
        good.replace(b"table.csv", b"a/../b"),
        good.replace(b"table.csv", b"a//b"),
        good.replace(b"table.csv", b"."),
        good.replace(b"table.csv", b"a\\u0000b"),
        tree(*([file] * 2)),
        os.urandom(500),
    ]
    for body in broken:
        answer = commit(body)
        assert answer.status_code == 422, (body, answer.text)
        check_error(answer)
    assert commit(good, digest=NOTHING).status_code == 422
    assert commit(good, kind="source").json()["code"] == "invalid_bundle"
    for name in ("", ".", "..", "a/b", "a\nb", "x" * 101, "a:b"):
        assert commit(good, name=name).status_code == 422, name
    assert kaos.json("workspace", "info")["bundles"] == 0
    for wrong in ("xyz", NOTHING[:-1], NOTHING.replace("0", "g"), NOTHING + "0", digest.upper()):
        assert http.put(f"{at}/bundles/data/{wrong}?name=x", content=good).status_code == 422
    assert commit(good).status_code == 200
    for body in ({"data": NOTHING}, {"data": "x"}, {"source": digest}):  # data is no source
        assert http.post(f"{at}/deploys", json=body).status_code in (404, 422), body
    for body in (
        {"cpu": -1},
        {"cpu": 1e9},
        {"memory": -5},
        {"memory": 0},
        {"gpu": -1},
        {"gpu": 1000},
        {"cpu": 0},
    ):
        answer = http.post(f"{at}/deploys", json={"data": digest, "resources": body})
        assert answer.status_code == 422, (body, answer.text)
    assert kaos.json("workspace", "info")["inputs"]["data"] is None
    assert kaos.damage(workspace) == []


def test_a_workspace_shows_nothing_of_another(http: httpx.Client, kaos: Kaos, workspace: str, tmp_path: Path):
    """Digests are no keys to what other workspaces have."""
    made = kaos.json("train", "deploy", "-d", write_data(tmp_path / "d", f"secret of {workspace}"))
    digest = made["data_digest"]
    assert http.get(f"{API}/workspaces/{workspace}/trees/{digest}").status_code == 200
    other = f"{workspace[:40]}-other"
    http.post(f"{API}/workspaces", json={"name": other})
    for path in (f"trees/{digest}", f"bundles/data/{digest}"):
        assert http.get(f"{API}/workspaces/{other}/{path}").status_code == 404
    assert (
        http.post(f"{API}/workspaces/{other}/trees/{digest}/objects", json={"digests": []}).status_code == 404
    )
    assert http.post(f"{API}/workspaces/{other}/deploys", json={"data": digest}).status_code == 404


def test_the_pages_show_names_as_text(
    server: Server, http: httpx.Client, kaos: Kaos, workspace: str, tmp_path: Path
):
    name = "<script>alert(1)<"
    source = write_source(tmp_path / "s", TRAIN, name=name)
    job_id = kaos.deploy_and_wait("-s", source, "-d", write_data(tmp_path / "d"))
    for page in (
        "workspaces",
        f"workspaces/{workspace}",
        f"workspaces/{workspace}/jobs/{job_id}",
        f"runs/kaos.{workspace}.train/{job_id}",
    ):
        answer = http.get(f"/kaos/ui/{page}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert(1)&lt;" in answer.text
