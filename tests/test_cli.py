"""The command line without a server, or with one that misbehaves."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from conftest import write_tree

from kaos.errors import ConflictError, KaosError, UnauthenticatedError, UnknownNameError, error_of
from kaos_cli import config


def kaos(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kaos_cli", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Yield the address of a server that gives everybody the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def token(expires: float) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


def connect(url: str, *, expires: float = 2e9, workspace: str | None = "mnist") -> None:
    config.save_config(config.Config(url=url, user="ada", token=token(expires), workspace=workspace))


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'airflow', 'pydantic', 'urllib3', 'rich', 'httpx', 'prettytable', 'kaos_cli.client'}"
    script = f"import sys, kaos_cli.main; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    shown = kaos("--help")
    assert shown.returncode == 0
    assert "train" in shown.stdout


def test_unknown_command_is_suggested() -> None:
    shown = kaos("trian")
    assert shown.returncode == 3
    assert "Did you mean train?" in shown.stderr


def test_digest_needs_no_server(tmp_path: Path) -> None:
    write_tree(tmp_path / "b", {"x/a": "1", "y": "2"})
    shown = kaos("bundle", "digest", tmp_path / "b")
    assert shown.returncode == 0
    assert len(shown.stdout.strip()) == 64
    tree = kaos("bundle", "digest", "--tree", tmp_path / "b").stdout
    assert tree.startswith('["kaos-tree",1]\n')
    missing = kaos("bundle", "digest", tmp_path / "nowhere")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "nowhere does not exist" in missing.stderr


def test_without_a_connection_the_next_step_is_named() -> None:
    for arguments in (("train", "list"), ("workspace", "list"), ("bundle", "verify")):
        shown = kaos(*arguments)
        assert shown.returncode == 5
        assert "kaos init -e URL" in shown.stderr
    shown = kaos("init")
    assert shown.returncode == 2
    assert "kaos up" in shown.stderr


def test_server_that_is_not_there_is_named() -> None:
    connect("http://127.0.0.1:9")
    shown = kaos("train", "list")
    assert shown.returncode == 7
    assert "http://127.0.0.1:9 does not answer: " in shown.stderr
    assert "Traceback" not in shown.stderr


def test_expired_token_says_so_and_how_to_renew_it() -> None:
    with answering(401, b"{}") as url:
        connect(url, expires=time.time() - 3600)
        shown = kaos("train", "list")
        assert shown.returncode == 5
        assert "Your token expired on" in shown.stderr
        assert f"kaos init -f -e {url}" in shown.stderr
        connect(url)
        assert "does not accept your token" in kaos("train", "list").stderr


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"code": 1}', b'{"detail": "Not Found"}'])
def test_server_that_is_no_kaos_is_named(body: bytes) -> None:
    with answering(404, body) as url:
        connect(url)
        shown = kaos("train", "list")
        assert shown.returncode != 0
        assert "Traceback" not in shown.stderr
        assert "HTTP 404" in shown.stderr


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"jobs": 3}'])
def test_answer_of_another_shape_is_no_traceback(body: bytes) -> None:
    with answering(200, body) as url:
        connect(url)
        shown = kaos("train", "list")
        assert shown.returncode != 0
        assert "Traceback" not in shown.stderr


def test_init_checks_address_and_password() -> None:
    for address in ("ftp://x", "http://", "http://x?y=1"):
        assert "is no address of a server" in kaos("init", "-e", address).stderr
    with answering(401, b"{}") as url:
        shown = kaos("init", "-e", url, stdin="ada\nwrong\n")
        assert shown.returncode == 5
        assert "does not accept this password for user 'ada'" in shown.stderr
    assert config.read_config() is None


def test_another_server_needs_force() -> None:
    connect("http://127.0.0.1:9")
    shown = kaos("init", "-e", "http://127.0.0.1:10", "-t", "x")
    assert shown.returncode == 4
    assert "kaos init -f" in shown.stderr


def test_files_with_secrets_are_private() -> None:
    connect("http://127.0.0.1:9")
    path = config.home() / "client.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.write_text("{")
    shown = kaos("train", "list")
    assert shown.returncode == 2
    assert "client.json is damaged" in shown.stderr


def test_row_is_that_of_the_list_that_was_printed() -> None:
    connect("http://127.0.0.1:9")
    loaded = config.load_config()
    with pytest.raises(UnknownNameError, match="Print the list first"):
        config.row(loaded, "mnist train", 0, "kaos train list")
    config.remember_rows(loaded, "mnist train", ["a", "b"])
    assert config.row(loaded, "mnist train", 1, "kaos train list") == "b"
    for index in (2, -1):
        with pytest.raises(UnknownNameError, match="has 2 rows"):
            config.row(loaded, "mnist train", index, "kaos train list")


def test_bad_resources_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    connect("http://127.0.0.1:9")
    for option, value in (("--memory", "512"), ("--memory", "1X"), ("--cpu", "0"), ("--gpu", "half")):
        shown = kaos("train", "deploy", "-s", tmp_path, option, value)
        assert shown.returncode == 2
        assert option in shown.stderr


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [KaosError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert isinstance(error_of("conflict", "m", "n"), ConflictError)
    assert type(error_of("from the future", "m", "n")) is KaosError


def test_errors_survive_a_process(tmp_path: Path) -> None:
    import pickle

    error = pickle.loads(pickle.dumps(UnknownNameError("job", "x", ["xy"], "List them.")))
    assert isinstance(error, UnknownNameError)
    assert str(error) == "There is no job 'x'.\nDid you mean xy? List them."
    assert UnauthenticatedError.status == 401


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal")
def test_tables_fit_on_eighty_columns() -> None:
    from datetime import UTC, datetime

    from kaos.job import JobState, Stage
    from kaos.schema.job import JobRow
    from kaos_cli.train_output import _narrow, jobs_json

    job = JobRow(
        job_id="0123456789abcdef" * 2,
        stage=Stage.TRAINING,
        state=JobState.SUCCESS,
        hyperopt=True,
        started=datetime(2019, 7, 29, 12, 38, 39, tzinfo=UTC),
        duration=71.4,
    )
    (row,) = jobs_json([job])
    assert row["started"] == "Mon, 29 Jul 2019 12:38:39 GMT"
    assert (_narrow(row)["started"], _narrow(row)["job_id"]) == ("29 Jul 12:38:39", "0123456789abcd")


@pytest.mark.parametrize(
    "options", [("--keep-days", "nan"), ("--keep-days", "inf"), ("--keep-days", "1e9"), ("--grace", "nan")]
)
def test_numbers_that_no_range_has_are_refused(options: tuple[str, str]) -> None:
    refused = kaos("gc", *options)
    assert refused.returncode == 2
    assert f"Invalid value for '{options[0]}'" in refused.stderr
