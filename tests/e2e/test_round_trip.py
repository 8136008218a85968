"""What `train get` and `serve get` write is deployed again, and is the same."""

from __future__ import annotations

from pathlib import Path

from e2e.harness import Kaos, write_data, write_source
from e2e.serving import write_serve
from e2e.test_reproduce import SCORE


def test_code_and_data_of_a_job_are_deployed_again(kaos: Kaos, workspace: str, tmp_path: Path) -> None:
    source, data = write_source(tmp_path / "s", SCORE), write_data(tmp_path / "d", f"data of {workspace}")
    jobs = [kaos.deploy_and_wait("-s", source, "-d", data)]
    original = kaos.info(jobs[0])["models"]
    for way in ("direct", "http"):
        got = kaos.run("train", "get", "-j", jobs[-1], "-c", "-d", KAOS_TRANSFER=way).stdout.split()
        top = Path(workspace) / jobs[-1]
        (code, features) = (Path(path) for path in got)
        assert (code.parent, features.parent) == (top / "code", top / "data")
        jobs.append(kaos.deploy_and_wait("-s", top / "code", "-d", top / "data"))
        assert kaos.info(jobs[-1])["models"] == original  # digests, names, and what came of them
        # The digest in the name comes once, however often it goes round.
        assert [path.name.count(":") for path in (code, features)] == [1, 1]
    assert kaos.run("bundle", "digest", top / "code").stdout.strip() == original[0]["source_digest"]
    assert kaos.run("bundle", "digest", kaos.directory / code).stdout.strip() == original[0]["source_digest"]


def test_an_endpoint_is_deployed_again_with_its_model(kaos: Kaos, workspace: str, tmp_path: Path) -> None:
    source, data = write_source(tmp_path / "s", SCORE), write_data(tmp_path / "d", f"data of {workspace}")
    (model,) = kaos.info(kaos.deploy_and_wait("-s", source, "-d", data))["models"]
    first = kaos.json("serve", "deploy", "-s", write_serve(tmp_path / "e"), "-m", model["model_id"], "--wait")
    shown = [first["shown"]]
    for _ in range(2):
        name = first["name"]
        kaos.run("serve", "get", "-e", name)
        code = Path(workspace) / name / "code"
        (inner,) = (kaos.directory / code).iterdir()
        assert inner.name == shown[-1].removeprefix("/")
        assert (inner / "model" / "model.txt").read_text() == "1"
        first = kaos.json("serve", "deploy", "-s", code, "--wait")
        shown.append(first["shown"])
    assert len(set(shown)) == 1
    for each in kaos.json("serve", "list"):
        kaos.run("serve", "kill", "-e", each["name"], "-y")
