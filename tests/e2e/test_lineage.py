"""Lineage at the command line: pictures, questions and differences, and who may ask."""

from __future__ import annotations

import json
from pathlib import Path

from e2e.harness import TRAIN, Kaos, Server, write_data, write_source
from kaos.digest import digest_bytes

SCRIPT = TRAIN + (
    'params = json.loads(Path(os.environ["KAOS_PARAMS"]).read_text())\n'
    '(output / "model" / "weights").write_text(str(params))\n'
    '(output / "metrics" / "metrics.json").write_text(json.dumps({"accuracy": 0.5}))\n'
)


def test_from_a_model_back_to_its_files_and_from_a_file_to_its_models(
    kaos: Kaos, eve: Kaos, workspace: str, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "one", "1,2,3\n")
    source = write_source(tmp_path / "code", SCRIPT)
    first = kaos.info(kaos.deploy_and_wait("-s", source, "-d", data))["models"][0]["model_id"]
    (tmp_path / "grid.json").write_text('{"degree": [1, 2]}')
    grid = kaos.deploy_and_wait("-h", tmp_path / "grid.json")
    second = kaos.info(grid)["models"][0]["model_id"]

    drawn = kaos.run("train", "provenance", "-m", first).stdout.strip()
    assert drawn == f"{workspace}/provenance/model-{first}.pdf"
    assert (kaos.directory / drawn).read_bytes().startswith(b"%PDF")
    for wanted, begins in {"svg": "<?xml", "dot": "digraph", "json": '{\n  "nodes"'}.items():
        path = kaos.run("train", "provenance", "-m", first, "--format", wanted, "-o", tmp_path).stdout.strip()
        assert Path(path).read_text().startswith(begins), wanted
    graph = json.loads((tmp_path / workspace / "provenance" / f"model-{first}.json").read_text())
    [job] = [node["attributes"] for node in graph["nodes"] if node["kind"] == "job"]
    assert job["state"] == "JOB_SUCCESS"
    assert job["by"] == kaos.json("train", "info", "-j", grid)["author"]
    assert len(job["dag_version"]) == 64

    used = kaos.json("lineage", "downstream", digest_bytes(b"1,2,3\n"))
    assert used["counts"]["model"] == 3
    assert used["counts"]["job"] == 2
    assert [(file["path"], file["kind"]) for file in used["files"]] == [("table.csv", "data")]
    assert {row["name"] for row in used["rows"]} >= {first, second, used["files"][0]["holder"]}
    inside = kaos.json("lineage", "downstream", f"{used['files'][0]['holder']}/table.csv")
    assert inside == used
    table = kaos.run("lineage", "upstream", second, "-n", "2")
    assert "1 source, 1 data, 1 hyperparams, 1 image, 1 job had a part in model" in table.stderr
    assert "and 3 more: -n 5, or -o json" in table.stderr

    differences = kaos.json("lineage", "diff", first, second)
    assert {(each["of"], each["what"]) for each in differences["differences"]} == {
        ("hyperparams", "degree"),
        ("model", "model/weights"),
    }
    assert "hyperparams" not in kaos.run("lineage", "diff", first, second).stderr

    # Who may read the workspace may ask; a name that is not there is said to be none, and what is.
    eve.run("workspace", "set", "-n", workspace)
    assert eve.json("lineage", "upstream", first)["counts"]["data"] == 1
    missing = kaos.run("lineage", "downstream", "nowhere", code=3)
    assert "There is no lineage of 'nowhere'" in missing.stderr
    assert "Ask about a file" in missing.stderr
    for name in ("nowhere", "../x", ""):
        refused = kaos.run("train", "provenance", "-m", name, code=3)
        assert (refused.stdout, refused.stderr.partition("\n")[0]) == (
            "",
            f"Error: There is no model or tag {name!r}.",
        )
    assert "one model twice" in kaos.run("lineage", "diff", first, first, code=2).stderr


def test_all_workspaces_are_asked_that_one_may_read(
    kaos: Kaos, eve: Kaos, server: Server, workspace: str, tmp_path: Path
) -> None:
    content = f"shared by {workspace}\n"
    data, other = write_data(tmp_path / "data", content), f"{workspace[:40]}-3"
    kaos.deploy_and_wait("-s", write_source(tmp_path / "code", SCRIPT), "-d", data)
    kaos.run("workspace", "create", "-n", other)
    job = kaos.deploy_and_wait("-s", write_source(tmp_path / "code", SCRIPT), "-d", data)
    model_id = kaos.info(job)["models"][0]["model_id"]
    kaos.run("model", "tag", model_id, other)

    file = digest_bytes(content.encode())
    used = kaos.json("lineage", "downstream", file, "--all")
    assert (used["counts"]["model"], used["counts"]["job"], used["counts"]["tag"]) == (2, 2, 1)
    models = [row["workspace"] for row in used["rows"] if row["kind"] == "model"]
    assert sorted(models) == sorted([workspace, other])
    assert sorted(each["workspace"] for each in used["files"]) == sorted([workspace, other])
    table = kaos.run("lineage", "downstream", file, "--all")
    assert f"table.csv in data {used['files'][0]['holder']} of {workspace}\n" in table.stderr
    assert "workspace" in table.stdout.splitlines()[1]
    assert max(map(len, table.stdout.splitlines())) <= 80

    # Only one of them knows the tag; a viewer may ask, and a name that none knows is said to be none.
    alone = eve.json("lineage", "upstream", other, "--all")
    assert {row["workspace"] for row in alone["rows"]} == {other}
    missing = kaos.run("lineage", "upstream", "nowhere", "--all", code=3)
    assert "There is no lineage of 'nowhere'" in missing.stderr


def test_a_workspace_knows_nothing_of_the_others(
    kaos: Kaos, server: Server, workspace: str, tmp_path: Path
) -> None:
    content = f"only in {workspace}\n"
    kaos.deploy_and_wait(
        "-s", write_source(tmp_path / "code", SCRIPT), "-d", write_data(tmp_path / "data", content)
    )
    kaos.run("workspace", "create", "-n", f"{workspace[:40]}-2")
    answer = kaos.run("lineage", "downstream", digest_bytes(content.encode()), code=3)
    assert workspace not in answer.stderr.replace(f"{workspace[:40]}-2", "")
    with server.http(None) as anonymous:
        path = f"/kaos/api/v1/workspaces/{workspace}/lineage/downstream"
        assert anonymous.get(path, params={"ref": "x"}).status_code == 401
