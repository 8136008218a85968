"""What is refused, with which words, and that nothing of it stays."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from e2e.harness import TRAIN, Kaos, Server, write_data, write_source

HOSTILE = [
    "",
    "MNIST",
    "../mnist",
    "mnist/../other",
    "a b",
    "'",
    '"',
    "'; import os; os.system('id') #",
    '"""\nimport os\n"""',
    "mnist\n",
    "mnist\nimport os",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "__import__('os')",
    "mnist.train",
    "mnist:e23a2",
    "mnist%2f..",
    "ｍnist",
    "mnist\u202e",
    "-mnist",
    "a" * 51,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_workspace_name_is_refused_by_the_server(server: Server, token: str, name: str):
    with server.http(token) as http:
        before = http.get("/kaos/api/v1/workspaces").json()
        answer = http.post("/kaos/api/v1/workspaces", json={"name": name})
        assert answer.status_code == 422, answer.text
        assert answer.json()["code"] == "invalid_name"
        assert http.get("/kaos/api/v1/workspaces").json() == before


@pytest.mark.parametrize("name", ["'; import os #", "mnist\nimport os", "{{ 7 * 7 }}"])
def test_a_hostile_workspace_name_is_refused_with_the_rule(kaos: Kaos, name: str):
    result = kaos.run("workspace", "create", "-n", name, code=2)
    assert result.stderr.startswith(f"Error: {name!r} is not a valid workspace name.\n")
    assert "lower-case letters, digits, '-' and '_'" in result.stderr


@pytest.mark.parametrize("name", ["{{ 7 * 7 }}", "'quoted' \"twice\"", "__import__('os')", "name of words"])
def test_a_strange_bundle_name_is_shown_as_it_is(kaos: Kaos, tmp_path: Path, name: str):
    """Any directory's name is a bundle's name; it reaches no generated source."""
    source = write_source(tmp_path / "s", TRAIN, name=name)
    made = kaos.json("train", "deploy", "-s", source, "-d", write_data(tmp_path / "d", name="data"))
    assert made["source"].startswith(f"/{name}:")
    assert kaos.ended(made["job_id"])["state"] == "JOB_SUCCESS"
    assert name not in kaos.run("train", "dag", "-j", made["job_id"]).stdout
    kaos.run("train", "get", "-j", made["job_id"], "-c")
    assert len(list(kaos.directory.glob("*/*/code/*/model/train"))) == 1


def test_a_workspace_that_is_nearly_there_is_suggested(kaos: Kaos, workspace: str):
    result = kaos.run("workspace", "set", "-n", workspace[:-1], code=3)
    assert f"Error: There is no workspace '{workspace[:-1]}'.\n" in result.stderr
    assert "Did you mean " in result.stderr
    assert workspace in result.stderr
    assert kaos.run("workspace", "current").stdout == f"{workspace}\n"


def test_a_workspace_that_exists_is_not_created_again(kaos: Kaos, workspace: str):
    result = kaos.run("workspace", "create", "-n", workspace, code=4)
    assert result.stderr == (
        f"Error: The workspace '{workspace}' exists.\nUse it: kaos workspace set -n {workspace}\n"
    )


@pytest.mark.parametrize("command", ["info", "logs", "build-logs", "dag", "get"])
def test_unknown_jobs_and_rows_are_named(kaos: Kaos, command: str):
    unknown = "0123456789abcdef" * 2
    result = kaos.run("train", command, "-j", unknown, code=3)
    assert result.stderr == f"Error: There is no job '{unknown}'.\nSee kaos train list.\n"
    result = kaos.run("train", command, "-i", "0", code=3)
    assert result.stderr == "Error: There is no row '0'.\nPrint the list first: kaos train list\n"
    kaos.run("train", "list")
    for row in ("0", "-1", "99"):
        result = kaos.run("train", command, f"-i{row}", code=3)
        assert "The list that was printed last has 0 rows: kaos train list" in result.stderr
    assert "Which job?" in kaos.run("train", command, code=2).stderr
    assert "Which job?" in kaos.run("train", command, "-i", "0", "-j", unknown, code=2).stderr


def test_the_beginning_of_a_jobs_id_will_do(kaos: Kaos, tmp_path: Path):
    job_id = kaos.deploy_and_wait("-s", write_source(tmp_path / "s", TRAIN), "-d", write_data(tmp_path / "d"))
    assert kaos.info(job_id[:12])["job_id"] == job_id
    near = job_id[:-1] + ("0" if job_id[-1] != "0" else "1")
    assert f"Did you mean {job_id}?" in kaos.run("train", "info", "-j", near, code=3).stderr
    for strange in ("", "..", "a/b", "%2e%2e", "' OR 1=1", "nonsense"):
        told = kaos.run("train", "info", "-j", strange, code=3).stderr
        assert told == f"Error: There is no job {strange!r}.\nSee kaos train list.\n"


def test_commands_and_templates_that_are_nearly_there_are_suggested(kaos: Kaos):
    assert "Did you mean train?" in kaos.run("trian", code=3).stderr
    assert "Did you mean mnist?" in kaos.run("template", "get", "--name", "mnits", code=3).stderr


def test_who_is_not_connected_is_told_how(kaos: Kaos, tmp_path: Path):
    stranger = Kaos(tmp_path / "stranger", tmp_path)
    result = stranger.run("train", "list", code=5)
    assert result.stderr == "Error: kaos is not connected to a server.\nConnect it: kaos init -e URL\n"


def test_no_workspace_is_set_for_a_new_user(server: Server, token: str, tmp_path: Path):
    user = Kaos(tmp_path / "new", tmp_path)
    user.run("init", "-e", server.url, "-t", "-", stdin=f"{token}\n")
    result = user.run("train", "list", code=2)
    assert result.stderr.startswith("Error: No workspace is set.\n")


def test_a_wrong_token_is_not_kept(server: Server, tmp_path: Path):
    user = Kaos(tmp_path / "new", tmp_path)
    result = user.run("init", "-e", server.url, "-t", "nonsense", code=5)
    assert f"{server.url} does not accept your token." in result.stderr
    assert not (user.home / "client.json").exists()


def test_a_server_that_is_not_there_is_said_to_be_so(tmp_path: Path):
    user = Kaos(tmp_path / "new", tmp_path)
    result = user.run("init", "-e", "127.0.0.1:9", "-t", "x", code=7)
    assert result.stderr.startswith("Error: http://127.0.0.1:9 does not answer: ")


def test_bundles_that_cannot_be_are_refused_and_nothing_is_stored(kaos: Kaos, tmp_path: Path):
    source, data = write_source(tmp_path / "s", TRAIN), write_data(tmp_path / "d")
    bad = tmp_path / "bad"

    def refused(*arguments: str | Path) -> str:
        return kaos.run("train", "deploy", *arguments, code=2).stderr

    write_data(bad / "link")
    (bad / "link" / "features" / "escape").symlink_to("/etc/passwd")
    assert "escape" in refused("-s", source, "-d", bad / "link")
    write_data(bad / "socket")
    with socket.socket(socket.AF_UNIX) as door:
        here = Path.cwd()
        os.chdir(bad / "socket" / "features")
        try:
            door.bind("door")
        finally:
            os.chdir(here)
        assert "door" in refused("-s", source, "-d", bad / "socket")
    write_source(bad / "empty", TRAIN)
    (bad / "empty" / "mnist" / "Dockerfile").unlink()
    assert "Dockerfile" in refused("-s", bad / "empty", "-d", data)
    write_source(bad / "untrained", TRAIN)
    (bad / "untrained" / "mnist" / "model" / "train").unlink()
    assert "train" in refused("-s", bad / "untrained", "-d", data)
    assert "nowhere" in refused("-s", source, "-d", tmp_path / "nowhere")
    assert kaos.json("train", "list") == []
    info = kaos.json("workspace", "info")
    assert (info["bundles"], set(info["inputs"].values())) == (0, {None})
