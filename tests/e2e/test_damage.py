"""Objects of the store that somebody changed: named, never trained on, and healed by the next deploy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from e2e.harness import TRAIN, Kaos, Server, write_data, write_source
from e2e.serving import write_serve

pytestmark = pytest.mark.second

READS = f"{TRAIN}\nprint((Path(os.environ['KAOS_DATA']) / 'table.csv').read_text())"


def damage(server: Server, content: str) -> Path:
    """Change a stored file by one character; return its path."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    path = server.home / "store" / "objects" / digest[:2] / digest
    assert path.read_text() == content
    path.chmod(0o644)
    path.write_text(f"X{content[1:]}")
    path.chmod(0o444)
    return path


@pytest.mark.parametrize(("found_by", "way"), [("verify", "http"), ("job", "direct")])
def test_a_changed_file_is_named_and_healed(
    server: Server, kaos: Kaos, workspace: str, tmp_path: Path, found_by: str, way: str
):
    kaos.variables["KAOS_TRANSFER"] = way
    content = f"the data of {workspace}"
    source, data = write_source(tmp_path / "s", READS), write_data(tmp_path / "d", content)
    job_id = kaos.deploy_and_wait("-s", source, "-d", data)
    shown = kaos.info(job_id)["models"][0]["data"]
    path = damage(server, content)
    if found_by == "verify":
        at = f"bundle {shown} of workspace {workspace}"
        assert kaos.damage(workspace) == [f"{at}: table.csv is damaged"]
        result = kaos.run("bundle", "verify", code=6)
        assert f"{at}: table.csv is missing\n" in result.stdout
        assert "damaged or missing" in result.stderr
        assert "Deploy" in result.stderr
        assert "table.csv" in kaos.run("train", "get", "-j", job_id, "-d", code=6).stderr
    failed = kaos.deploy_and_wait(code=1)
    assert kaos.info(failed)["state"] == "JOB_FAILURE"
    assert "table.csv" in kaos.info(failed)["reason"]
    assert kaos.log(failed) == []
    healed = kaos.deploy_and_wait("-d", data)
    assert kaos.log(healed) == [content]
    assert path.read_text() == content
    assert kaos.damage(workspace) == []
    kaos.run("train", "get", "-j", job_id, "-d")


def test_a_changed_file_never_reaches_train_get(server: Server, kaos: Kaos, workspace: str, tmp_path: Path):
    content = f"the data of {workspace}"
    data = write_data(tmp_path / "d", content)
    job_id = kaos.deploy_and_wait("-s", write_source(tmp_path / "s", READS), "-d", data)
    for way in ("direct", "http"):
        damage(server, content)
        result = kaos.run("train", "get", "-j", job_id, "-d", "-o", way, code=6, KAOS_TRANSFER=way)
        assert "Error: table.csv: " in result.stderr
        assert [path for path in (kaos.directory / way).rglob("*") if path.is_file()] == []
        kaos.run("train", "deploy", "-d", data, "--wait")
    kaos.run("train", "get", "-j", job_id, "-d")


def test_a_script_that_writes_into_its_data_spoils_no_later_run(kaos: Kaos, workspace: str, tmp_path: Path):
    """The data is read-only, but it is the script's own user who can change that."""
    script = f"""{READS}
path = Path(os.environ["KAOS_DATA"]) / "table.csv"
path.chmod(0o644)
path.write_text("spoiled")
"""
    source, data = write_source(tmp_path / "s", script), write_data(tmp_path / "d", "good as new")
    first = kaos.deploy_and_wait("-s", source, "-d", data)
    assert kaos.log(first) == ["good as new"]
    # Where the file shares its bytes with the store those are gone, else the data is laid out anew.
    second = kaos.run("train", "deploy", "--wait", "-o", "json", code=None)
    if second.returncode:
        assert "table.csv" in second.stderr
    else:
        assert kaos.log(json.loads(second.stdout)["job_id"]) == ["good as new"]
    harmless = write_source(tmp_path / "harmless", READS)
    healed = kaos.deploy_and_wait("-s", harmless, "-d", data)
    assert kaos.log(healed) == ["good as new"]
    assert kaos.damage(workspace) == []


def damage_object(server: Server, digest: str) -> Path:
    """Change an object by its first byte; return its path."""
    path = server.home / "store" / "objects" / digest[:2] / digest
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    return path


def test_whatever_uses_a_changed_object_names_it_and_serves_nothing(
    server: Server, kaos: Kaos, workspace: str, tmp_path: Path
):
    script = f"{READS}\n(output / 'model' / 'model.txt').write_text('the model of {workspace}')\n"
    source, data = write_source(tmp_path / "s", script), write_data(tmp_path / "d", f"data of {workspace}")
    job_id = kaos.deploy_and_wait("-s", source, "-d", data)
    (model,) = kaos.info(job_id)["models"]
    model_id, where = model["model_id"], f"of workspace {workspace}"
    serve = write_serve(tmp_path / "serve")

    # A file of the model: its bytes never reach an endpoint.
    damage(server, f"the model of {workspace}")
    failed = kaos.run("serve", "deploy", "-s", serve, "-m", model_id, "--wait", code=None)
    assert failed.returncode in (1, 6)
    assert "model.txt" in failed.stderr
    assert "model.txt" in kaos.run("train", "get", "-j", job_id, "-m", code=6).stderr
    assert f"model {model['model_digest'][:6]} {where}: model/model.txt is missing" in kaos.damage(workspace)
    again = kaos.json("train", "reproduce", "-m", model_id)  # of the same inputs, which are whole
    assert again["verdict"] == "identical"  # and brought the file back
    assert kaos.damage(workspace) == []

    # A file of the code.
    code = (tmp_path / "s" / "mnist" / "model" / "train").read_text()
    damage(server, code)
    failed = kaos.run("train", "reproduce", "-m", model_id, code=1)
    assert "not reproduced: no model came out" in failed.stdout
    assert f"bundle {model['code']} {where}: model/train is missing" in kaos.damage(workspace)
    kaos.deploy_and_wait("-s", source)

    # The record of the model, and the document of a job.
    refs = server.home / "store" / "refs" / "workspaces" / workspace
    record = (refs / "models" / model_id / f"{job_id}-0").read_text()
    damage_object(server, record)
    document = (refs / "jobs" / job_id).read_text()
    damage_object(server, document)
    assert record[:12] in kaos.run("train", "reproduce", "-m", model_id, "-j", job_id, code=6).stderr
    assert document[:12] in kaos.run("train", "info", "-j", job_id, code=6).stderr
    lineage = kaos.run("lineage", "upstream", model_id)
    assert f"models/{model_id}/{job_id}-0" in lineage.stderr
    assert kaos.damage(workspace) == [
        f"document of job {job_id} {where}: missing",
        f"record of model {model_id} {where}: missing",
    ]
    kaos.run("workspace", "kill", "-n", workspace, "--yes")
