"""How a user gets in: by password, by token, and what happens when the token is over."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import stat
import subprocess
import sys
import termios
import time
from pathlib import Path

import jwt
import pytest

from e2e.harness import Kaos, Server, until


@pytest.fixture
def stranger(tmp_path: Path) -> Kaos:
    """Return somebody who was never connected."""
    return Kaos(tmp_path / ".kaos", tmp_path, {"HOME": str(tmp_path)})


def answer(user: Kaos, questions: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run a command at a terminal, answer its questions; return its exit code and what the screen showed."""
    terminal, inside = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "kaos_cli", *arguments],
        cwd=user.directory,
        env={**os.environ, **user.variables, "KAOS_HOME": str(user.home)},
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(inside)
        os.set_blocking(terminal, False)
        shown = ""

        def screen() -> str:
            nonlocal shown
            with contextlib.suppress(OSError):  # nothing new, or its end
                shown += os.read(terminal, 65536).decode(errors="replace")
            return shown

        for question, text in questions.items():
            until(lambda asked=question: asked in screen(), 20, question)
            time.sleep(0.1)  # the echo is switched off after the question
            os.write(terminal, f"{text}\n".encode())
        until(lambda: (screen(), process.poll() is not None)[1], 20, "the command's end")
        screen()
    os.close(terminal)
    return process.returncode, shown


def expired(server: Server, token: str) -> str:
    """Return the token as it was an hour ago, signed by the server's own key, and over."""
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    now = int(time.time())
    return jwt.encode(
        {**claims, "iat": now - 7200, "nbf": now - 7200, "exp": now - 3600},
        server.instance["jwt_secret"],
        algorithm=jwt.get_unverified_header(token)["alg"],
        headers=jwt.get_unverified_header(token),
    )


def test_init_asks_for_user_and_password_and_shows_none(server: Server, stranger: Kaos):
    name, user = next(iter(server.instance["users"].items()))
    questions = {"User: ": name, "Password: ": user["password"]}
    code, shown = answer(stranger, questions, "init", "-e", server.url)
    assert code == 0, shown
    assert f" ✔ Connected to {server.url} as {name} " in shown
    assert user["password"] not in shown
    kept = stranger.home / "client.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert user["password"] not in kept.read_text()
    stranger.run("workspace", "list")


def test_init_keeps_nothing_after_a_wrong_password(server: Server, stranger: Kaos):
    code, shown = answer(stranger, {"User: ": "root", "Password: ": "wrong"}, "init", "-e", server.url)
    assert code == 5
    assert f"Error: {server.url} does not accept this password for user 'root'." in shown
    assert not (stranger.home / "client.json").exists()


def test_a_connection_is_replaced_only_by_force(server: Server, token: str, stranger: Kaos):
    stranger.run("init", "-e", server.url, "-t", token)
    other = server.url.replace("127.0.0.1", "localhost")
    refused = stranger.run("init", "-e", other, "-t", token, code=4)
    assert f"Error: kaos is connected to {server.url}.\n" in refused.stderr
    assert f"kaos init -f -e {other}" in refused.stderr
    stranger.run("init", "-f", "-e", other, "-t", token)
    assert json.loads((stranger.home / "client.json").read_text())["url"] == other


def test_an_expired_token_says_so_and_how_to_renew_it(server: Server, token: str, stranger: Kaos):
    stranger.run("init", "-e", server.url, "-t", token)
    kept = stranger.home / "client.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "token": expired(server, token)}))
    told = stranger.run("workspace", "list", code=5).stderr
    assert told.startswith("Error: Your token expired on ")
    assert told.endswith(f"Renew it: kaos init -f -e {server.url}\n")


def test_the_servers_own_user_never_meets_an_expired_token(server: Server, token: str):
    server.owner.run("init", "-f")
    kept = server.home / "client.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "token": expired(server, token)}))
    server.owner.run("workspace", "list")
    assert "eyJ" in json.loads(kept.read_text())["token"]
