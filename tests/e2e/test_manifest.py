"""Data that a job downloads: `train deploy -m`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Fault, FaultServer
from seaweed import put, running_s3

from e2e.harness import Kaos, Server, task, until, write_source

TRAIN = """#!/bin/sh
cd "$KAOS_DATA"
find . -type f | sort | xargs sha256sum > "$KAOS_OUTPUT/seen"
"""


@pytest.fixture
def remote() -> Iterator[FaultServer]:
    with FaultServer().running() as server:
        yield server


def write_manifest(path: Path, remote: FaultServer, files: dict[str, bytes], **pinned: Any) -> Path:
    """Serve files, and write the manifest that names them."""
    remote.files |= files
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"url": remote.url(name), "path": name, **pinned.get(name, {})} for name in files]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_only_what_changed_is_downloaded_and_both_digests_are_told(
    kaos: Kaos, tmp_path: Path, remote: FaultServer
) -> None:
    source = write_source(tmp_path / "source", TRAIN)
    files = {f"training/{number:02d}.csv": os.urandom(3000) for number in range(20)}
    manifest = write_manifest(tmp_path / "features" / "data.mf", remote, files)
    first = kaos.info(kaos.deploy_and_wait("-s", source, "-m", manifest.parent))
    assert first["manifest"]["files"] == 20
    assert first["manifest_shown"] == f"/features:{first['manifest']['digest'][:5]}"
    assert first["data"]["digest"] == first["models"][0]["data_digest"]
    assert first["data"]["size"] == 60_000
    shown = kaos.run("train", "info", "-j", first["job_id"]).stdout
    assert f"Data manifest: {first['manifest_shown']}, {first['manifest']['digest']}" in shown
    assert f"Data: {first['data_shown']}, {first['data']['digest']}" in shown
    kaos.run("train", "get", "-j", first["job_id"], "-d")
    (got,) = kaos.directory.glob("*/*/data/features:*")
    assert {str(path.relative_to(got)): path.read_bytes() for path in got.rglob("*.csv")} == files

    # The same again: every file is asked for, none is sent.
    remote.requests.clear()
    again = kaos.info(kaos.deploy_and_wait())
    assert again["data"] == first["data"]
    assert len(remote.requests) == 20
    assert all("if-none-match" in request.headers for request in remote.requests)

    remote.files["training/07.csv"] = b"changed"
    changed = kaos.info(kaos.deploy_and_wait("-m", manifest))
    assert changed["manifest"] == first["manifest"]
    assert changed["data"]["digest"] != first["data"]["digest"]
    assert changed["data"]["size"] == 57_007

    remote.requests.clear()
    kaos.deploy_and_wait("--refresh")
    assert len(remote.requests) == 20
    assert not any("if-none-match" in request.headers for request in remote.requests)

    # A rerun is on what the job had, whatever became of the files; a directory takes the manifest's place.
    remote.requests.clear()
    kaos.run("train", "rerun", "-j", first["job_id"], "--wait")
    rerun = kaos.info(kaos.json("train", "list")[0]["job_id"])
    assert (rerun["data"], rerun["models"][0]["model_id"]) == (first["data"], first["models"][0]["model_id"])
    last = kaos.info(kaos.deploy_and_wait("-d", got.parent))
    assert last["manifest"] is None
    assert last["data"]["digest"] == first["data"]["digest"]
    assert not remote.requests
    assert "ManifestDownload" not in kaos.run("train", "dag", "-j", last["job_id"]).stdout


def test_all_bad_lines_are_told_at_once(kaos: Kaos, tmp_path: Path, remote: FaultServer) -> None:
    source = write_source(tmp_path / "source", TRAIN)
    manifest = tmp_path / "m" / "data.mf"
    manifest.parent.mkdir()
    lines = [
        '{"url": "http://example.org/a", "path": "../a"}',
        '{"url": "file:///etc/passwd", "path": "b"}',
        "{",
    ]
    manifest.write_text("\n".join(lines))
    refused = kaos.run("train", "deploy", "-s", source, "-m", manifest, code=2)
    for line in (
        "line 1: the path '../a' has '..' in it",
        "line 2: a file:// URL",
        "line 3: it is not valid",
    ):
        assert line in refused.stderr
    assert "Submitting" not in refused.stderr
    assert kaos.run("train", "deploy", "-m", tmp_path / "nothing.mf", code=2).stderr.count("\n") == 2
    (manifest.parent / "second.mf").touch()
    assert (
        "it has 2 of them: data.mf, second.mf"
        in kaos.run("train", "deploy", "-m", tmp_path / "m", code=2).stderr
    )
    both = kaos.run("train", "deploy", "-d", tmp_path, "-m", manifest, code=2)
    assert "Give a directory, -d, or a manifest, -m." in both.stderr
    assert "no manifest to download anew" in kaos.run("train", "deploy", "--refresh", code=2).stderr

    files = {"good": b"good", "wrong": b"wrong", "gone": b""}
    write_manifest(manifest, remote, files, wrong={"sha256": "0" * 64})
    del remote.files["gone"]
    with manifest.open("a") as more:
        more.write('{"url": "http://169.254.169.254/latest/meta-data/", "path": "secret"}\n')
        more.write('{"url": "s3://bucket/key", "path": "key"}\n')
    job_id = kaos.deploy_and_wait("-s", source, "-m", manifest, code=1)
    reason = kaos.info(job_id)["reason"]
    assert "no credentials for s3://" in reason  # nothing else of the manifest was tried
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    job_id = kaos.deploy_and_wait("-s", source, "-m", manifest, code=1)
    info = kaos.info(job_id)
    assert "3 files of the manifest could not be downloaded" in info["reason"]
    assert f"line 2: {remote.url('wrong')}: its SHA-256 is " in info["reason"]
    assert f"line 3: {remote.url('gone')}: the server answered 404 Not Found" in info["reason"]
    assert "169.254.169.254 (link-local)" in info["reason"]
    assert info["data"] is None
    refused = kaos.run("train", "get", "-j", job_id, "-d", code=2)
    assert "is not downloaded (JOB_FAILURE)" in refused.stderr
    kaos.run("train", "info", "-j", job_id)


def test_progress_shows_and_a_killed_download_goes_on(
    kaos: Kaos, server: Server, workspace: str, tmp_path: Path, remote: FaultServer
) -> None:
    source = write_source(tmp_path / "source", TRAIN)
    files = {f"f{number:03d}": os.urandom(1000) for number in range(300)}
    manifest = write_manifest(tmp_path / "features" / "data.mf", remote, files)
    remote.delay, remote.held = 0.3, 150  # 16 at a time: three seconds for the first half of them
    job_id = kaos.deploy("-s", source, "-m", manifest)
    with kaos.start("train", "logs", "-j", job_id, "--follow") as follower:
        row = until(lambda: progressing(kaos), 60, "the progress of the download")
        assert row["stage"] == "INGESTING"
        assert row["progress"]["total"] == 300
        table = kaos.run("train", "list").stdout
        assert "INGESTING" in table
        assert " of 300 files, " in table
        until(lambda: len(remote.requests) > 150, 60, "half of the files")
        task(server).kill()
        remote.held = None
        info = kaos.ended(job_id, 120)
        _, told = follower.communicate(timeout=60)
    assert info["state"] == "JOB_SUCCESS", info
    assert info["data"]["files"] == 300
    assert "Downloading: " in told
    # What had arrived was not asked for again; what was on its way may have been.
    assert max(remote.asked().values()) <= 2
    assert len(remote.requests) < 300 + 100
    assert not kaos.json("train", "list")[0]["progress"]
    assert kaos.damage(workspace) == []


def test_unavailable_server_is_tried_again_only_if_asked(
    kaos: Kaos, tmp_path: Path, remote: FaultServer
) -> None:
    source = write_source(tmp_path / "source", TRAIN)
    manifest = write_manifest(tmp_path / "features" / "data.mf", remote, {"a": b"a", "b": b"b"})
    remote.always["b"] = Fault(status=503, headers=(("Retry-After", "0"),))
    job_id = kaos.deploy("-s", source, "-m", manifest, "--retries", "3")
    until(lambda: remote.asked()["b"] >= 6, 120, "all tries of the first round")
    time.sleep(0.5)
    del remote.always["b"]
    info = kaos.ended(job_id, 120)
    assert info["state"] == "JOB_SUCCESS", info
    assert remote.asked()["a"] == 1


def progressing(kaos: Kaos) -> dict[str, Any] | None:
    row = kaos.json("train", "list")[0]
    return row if row["progress"] else None


def test_s3_is_read_with_the_credentials_of_the_connection(
    kaos: Kaos, server: Server, token: str, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source", TRAIN)
    manifest = tmp_path / "features" / "data.mf"
    manifest.parent.mkdir()
    manifest.write_text('{"url": "s3://digits/a b.csv", "path": "a.csv"}')
    with running_s3(tmp_path / "s3") as access, server.http(token) as http:
        put(access, "digits", {"a b.csv": b"1,2,3"})
        connection = {
            "connection_id": "aws_default",
            "conn_type": "aws",
            "login": access.access_key_id,
            "password": "wrong",
            "extra": json.dumps({"endpoint_url": access.endpoint, "region_name": "us-east-1"}),
        }
        http.post("/api/v2/connections", json=connection).raise_for_status()
        try:
            job_id = kaos.deploy_and_wait("-s", source, "-m", manifest, code=1)
            assert "line 1: s3://digits/a b.csv: the server answered 403" in kaos.info(job_id)["reason"]
            connection["password"] = access.secret_access_key
            http.patch("/api/v2/connections/aws_default", json=connection).raise_for_status()
            info = kaos.info(kaos.deploy_and_wait())
        finally:
            http.delete("/api/v2/connections/aws_default")
    assert (info["data"]["files"], info["data"]["size"]) == (1, 5)
