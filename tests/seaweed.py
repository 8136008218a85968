"""A real S3 on loopback: SeaweedFS from PyPI."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from kaos.transfer.download import S3Access


@contextlib.contextmanager
def running_s3(root: Path) -> Iterator[S3Access]:
    """Run a server whose files are below `root`; anybody may read the bucket ``public``."""
    root.mkdir(exist_ok=True)
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if weed is None:
        if os.environ.get("CI"):
            pytest.fail("SeaweedFS is missing: install the dev extra")
        pytest.skip("SeaweedFS is missing, S3 IS NOT TESTED: install the dev extra")
    access = S3Access(access_key_id="key", secret_access_key="secret")
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": access.access_key_id, "secretKey": access.secret_access_key}],
        "actions": ["Admin"],
    }
    anyone = {"name": "anonymous", "credentials": [], "actions": ["Read:public"]}
    (root / "s3.json").write_text(json.dumps({"identities": [identity, anyone]}))
    master, volume, filer, port = (_free_port() for _ in range(4))
    command = [
        weed,
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={root}",
        "-master.telemetry=false",
    ]
    command += [f"-master.port={master}", "-master.volumeSizeLimitMB=64", f"-volume.port={volume}"]
    command += ["-volume.max=20", "-volume.preStopSeconds=0", "-filer", f"-filer.port={filer}", "-s3"]
    command += [f"-s3.port={port}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={root}/s3.json"]
    with (root / "log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(port)
            yield S3Access(f"http://127.0.0.1:{port}", access_key_id="key", secret_access_key="secret")
        finally:
            child.kill()
            child.wait()


def _free_port() -> int:
    """Return a port whose number, and that 10,000 above it, which SeaweedFS takes too, are free."""
    while True:
        with socket.socket() as one, socket.socket() as two, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", random.randrange(12_000, 30_000)))
            two.bind(("127.0.0.1", one.getsockname()[1] + 10_000))
            return int(one.getsockname()[1])


def _ready(port: int) -> bool:
    try:
        return (
            urllib3.request("GET", f"http://127.0.0.1:{port}/status", retries=False, timeout=2).status == 200
        )
    except urllib3.exceptions.HTTPError:
        return False


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while not _ready(port):
        assert time.monotonic() < deadline, "SeaweedFS does not answer"
        time.sleep(0.05)


def put(access: S3Access, bucket: str, objects: dict[str, bytes]) -> None:
    """Make a bucket and put objects into it."""
    from datetime import timedelta

    import obstore
    from obstore.store import S3Store

    options = {"endpoint": access.endpoint, "access_key_id": "key", "secret_access_key": "secret"}
    store = S3Store(bucket, **options, region="us-east-1", client_options={"allow_http": True})  # type: ignore[arg-type]
    bucket_url = obstore.sign(store, "PUT", "x", timedelta(hours=1)).partition("?")[0].removesuffix("/x")
    signed = obstore.sign(S3Store(bucket, **options, region="us-east-1", virtual_hosted_style_request=False,
        client_options={"allow_http": True}), "PUT", "", timedelta(hours=1))  # type: ignore[arg-type]  # fmt: skip
    assert signed.startswith(bucket_url)
    urllib3.request("PUT", signed)
    for key, content in objects.items():
        obstore.put(store, key, content)
