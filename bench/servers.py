"""What files are fetched from: nginx, and SeaweedFS for S3, both on loopback."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import urllib3

KEY, SECRET = "benchmark", "benchmark-secret"

_NGINX = """
daemon off;
{user}
pid {root}/pid;
error_log {root}/error.log crit;
worker_processes 2;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    open_file_cache max=20000 inactive=600s;
    open_file_cache_valid 600s;
    client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
    uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
    server {{ listen 127.0.0.1:{port}; root {files}; }}
}}
"""


@contextmanager
def nginx(root: Path, files: Path) -> Iterator[str]:
    """Serve a directory, and yield its URL."""
    root.mkdir()
    port = free_port()
    # A daemon that root starts gives its workers to another user, who may not look into root's directories.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = _NGINX.format(root=root, files=files, port=port, user=user)
    (root / "nginx.conf").write_text(configuration)
    command = [find("nginx"), "-p", str(root), "-e", str(root / "error.log"), "-c", str(root / "nginx.conf")]
    with _running(command, root / "log", lambda: _answers(f"http://127.0.0.1:{port}/")):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def seaweed(root: Path) -> Iterator[str]:
    """Start an S3 service, and yield its URL; `KEY` and `SECRET` may do everything."""
    root.mkdir()
    credentials = {"accessKey": KEY, "secretKey": SECRET}
    identity = {"name": "bench", "credentials": [credentials], "actions": ["Admin"]}
    (root / "s3.json").write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, port = (free_port() for _ in range(4))
    command = [find("weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={root}"]
    command += ["-master.telemetry=false", f"-master.port={master}", f"-volume.port={volume}"]
    command += ["-volume.max=20", "-volume.preStopSeconds=0", "-filer", f"-filer.port={filer}", "-s3"]
    command += [f"-s3.port={port}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={root}/s3.json"]
    with _running(command, root / "log", lambda: _answers(f"http://127.0.0.1:{port}/status")):
        yield f"http://127.0.0.1:{port}"


def find(name: str) -> str:
    """Return the path of a program, also of one that Debian keeps for root.

    :raises FileNotFoundError: it is not installed
    """
    places = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    found = shutil.which(name, path=places)
    if found is None:
        raise FileNotFoundError(name)
    return found


def free_port() -> int:
    """Return a port whose number, and that 10,000 above it, which SeaweedFS takes too, are free."""
    while True:
        with socket.socket() as one, socket.socket() as two, suppress(OSError):
            one.bind(("127.0.0.1", random.randrange(12_000, 30_000)))
            two.bind(("127.0.0.1", one.getsockname()[1] + 10_000))
            return int(one.getsockname()[1])


@contextmanager
def _running(command: list[str], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        end = time.monotonic() + 60
        while not ready():
            if child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, retries=False, timeout=2).status < 500
    except urllib3.exceptions.HTTPError:
        return False
