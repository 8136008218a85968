"""Endpoints for tests: a server that starts in no time, and clients that never stop asking."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conftest import write_tree

from e2e.harness import DOCKERFILE, Kaos, until

SERVE = """#!/usr/bin/env python3
import os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

print("serving", os.environ["KAOS_ENDPOINT"], "revision", os.environ["KAOS_REVISION"], flush=True)
time.sleep(START)
model = Path(os.environ["KAOS_MODEL"]) if "KAOS_MODEL" in os.environ else None

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, "pong")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body.startswith(b"sleep"):
            time.sleep(float(body.split()[1]))
        if body == b"die":
            os._exit(3)
        if body == b"headers":
            return self.answer(200, str(self.headers))
        if body == b"environment":
            return self.answer(200, repr(dict(os.environ)))
        ANSWER

    def log_message(self, *arguments):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 256

Server((os.environ["KAOS_HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""

ANSWER = 'self.answer(200, os.environ["KAOS_REVISION"] + " " + str(len(body)))'


def write_serve(
    root: Path, *, start: float = 0, answer: str = ANSWER, script: str = SERVE, sample: str | None = None
) -> Path:
    """Write a serve bundle; return the directory to deploy."""
    text = script.replace("START", str(start)).replace("ANSWER", answer)
    files: dict[str, bytes | str | None] = {"echo/Dockerfile": DOCKERFILE, "echo/model/serve": text}
    if sample is not None:
        files["echo/test_payload.txt"] = sample
    return write_tree(root, files)


class Endpoint:
    """An endpoint as its clients know it."""

    def __init__(self, kaos: Kaos, name: str, url: str) -> None:
        self.kaos, self.name, self.url = kaos, name, url

    @classmethod
    def deploy(cls, kaos: Kaos, source: Path, *options: str) -> Endpoint:
        """Deploy and wait until it is routed."""
        done = kaos.run("serve", "deploy", "-s", source, *options, "--wait", "-o", "json")
        document = json.loads(done.stdout)
        return cls(kaos, document["name"], document["url"])

    def update(self, source: Path, *options: str, code: int = 0) -> str:
        """Deploy another revision and wait; return what was said."""
        return self.kaos.run(
            "serve", "update", "-e", self.name, "-s", source, *options, "--wait", code=code
        ).stderr

    def ask(
        self, body: bytes = b"x", *, path: str = "invocations", method: str = "POST", headers: Any = None
    ) -> tuple[int, str]:
        """Send a request of its own connection; return status and answer."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        try:
            connection.connect()
            target = f"/{self.name}/{path}"
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
                connection.request(
                    method, target, body=body if method == "POST" else None, headers=headers or {}
                )
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def revision(self) -> int:
        """Return which revision answers."""
        status, text = self.ask()
        assert status == 200, text
        return int(text.split()[0])

    def info(self) -> Any:
        """Return what ``serve info`` says."""
        return self.kaos.json("serve", "info", "-e", self.name)

    def state(self) -> str:
        """Return the state that the list shows."""
        rows = self.kaos.json("serve", "list")
        return str(next(row["state"] for row in rows if row["name"] == self.name))

    def answers_within(self, seconds: float) -> None:
        """Wait until it answers; the gateway may have been killed, too."""

        def answers() -> bool:
            try:
                return self.ask()[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        until(answers, seconds, f"an answer of {self.name}")


class Load:
    """Clients that go on asking over kept connections; what they were answered is counted."""

    def __init__(self, endpoint: Endpoint, clients: int = 8) -> None:
        self.endpoint = endpoint
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        parts = urlsplit(self.endpoint.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        while not self._ended.is_set():
            try:
                connection.request("POST", parts.path, body=b"x")
                response = connection.getresponse()
                text = response.read().decode()
                if response.status == 200:
                    self.answers[text.split()[0]] += 1
                else:
                    self.failures.append(f"{response.status} {text}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            time.sleep(0.002)
        connection.close()
