"""Models that are made again: of what is pinned, compared, and recorded, through a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path

from e2e.harness import DOCKERFILE, TRAIN, Kaos, Server, until, write_data, write_source

SCORE = f"""{TRAIN}
from time import time_ns
params = json.loads(Path(os.environ["KAOS_PARAMS"]).read_text())
degree = params.get("degree", 1)
(output / "model" / "model.txt").write_text(f"{{degree}}")
(output / "metrics" / "metrics.json").write_text(json.dumps({{"score": degree / 10}}))
"""
"""Gives the same model every time."""


def test_the_template_is_reproduced_to_the_byte(kaos: Kaos) -> None:
    kaos.run("template", "get", "--name", "mnist")
    template = kaos.directory / "templates" / "mnist"
    job_id = kaos.deploy_and_wait("-s", template / "model-train", "-d", template / "data")
    (original,) = kaos.info(job_id)["models"]
    kaos.run("model", "tag", original["model_id"], "production")
    shown = kaos.run("train", "reproduce", "-m", "production").stdout
    assert shown == f"{original['model_id']}: reproduced to the byte\n"
    made = kaos.info(kaos.json("train", "list")[0]["job_id"])
    found = made["reproduction"]
    assert found["verdict"] == "identical"
    assert found["digest"] == found["made"] == original["model_digest"]
    assert (found["original_job"], found["made_id"]) == (job_id, original["model_id"])
    assert (found["changed"], found["metrics"], found["environment"]) == ([], [], [])
    graph, events = (
        json.loads((kaos.directory / written).read_text())
        for written in (
            kaos.run("train", "provenance", "-m", "production", "--format", wanted).stdout.strip()
            for wanted in ("json", "openlineage")
        )
    )
    verdicts = [node["attributes"].get("verdict") for node in graph["nodes"] if node["kind"] == "job"]
    assert verdicts == [None, "identical"]
    assert [event["eventType"] for event in events] == ["COMPLETE", "COMPLETE"]
    # It was trained, and not taken over.
    assert made["models"][0]["reused_from"] is None
    logs = [kaos.log(each) for each in (made["job_id"], job_id)]
    assert logs[0][:-1] == logs[1][:-1] != []
    assert logs[0] != logs[1]  # the last line names the job's directory


def test_one_trial_on_inputs_that_are_not_current_any_more(kaos: Kaos, tmp_path: Path) -> None:
    params = tmp_path / "params.json"
    params.write_text('{"degree": [2, 3]}')
    source, data = write_source(tmp_path / "s", SCORE), write_data(tmp_path / "d")
    job_id = kaos.deploy_and_wait("-s", source, "-d", data, "-h", params, "--reuse", "--cpu", "1")
    original = kaos.info(job_id)["models"][1]
    write_data(tmp_path / "d", "4,5,6\n")
    kaos.deploy_and_wait("-d", data, "--no-hyperparams")
    inputs = kaos.json("workspace", "info")["inputs"]
    assert inputs["params"] is None
    found = kaos.json("train", "reproduce", "-m", original["model_id"])
    assert (found["verdict"], found["trial"]) == ("identical", 1)
    assert kaos.json("workspace", "info")["inputs"] == inputs
    made = kaos.info(found["job_id"])
    (only,) = made["models"]
    assert (only["hyperparams"], only["reused_from"]) == ({"degree": 3}, None)
    assert only["data_digest"] == original["data_digest"]
    assert made["resources"]["cpu"] == 1
    assert f"Reproduces: {original['model_id']}, reproduced to the byte" in (
        kaos.run("train", "info", "-j", found["job_id"]).stdout
    )
    assert "made again: 1 identical" in kaos.run("train", "info", "-j", job_id).stdout


def test_a_model_that_comes_out_otherwise(kaos: Kaos, tmp_path: Path) -> None:
    script = f"""{SCORE}
(output / "when.txt").write_text(str(time_ns()))
(output / "metrics" / "metrics.json").write_text(json.dumps({{"score": time_ns() % 1000 / 1e6 + 1}}))
"""
    job_id = kaos.deploy_and_wait(
        "-s", write_source(tmp_path / "s", script), "-d", write_data(tmp_path / "d")
    )
    (model,) = kaos.info(job_id)["models"]
    different = kaos.run("train", "reproduce", "-m", model["model_id"], code=8)
    assert f"{model['model_id']}: not reproduced: another model came out" in different.stdout
    assert re.search(r"\| +score +\| +1\.\d+ +\| +1\.\d+ +\| +no +\|", different.stdout)
    assert re.search(r"\| +when.txt +\| +changed +\|", different.stdout)
    assert "kaos train get -j" in different.stderr
    equal = kaos.run("train", "reproduce", "-m", model["model_id"], "--tolerance", "0.01")
    assert "reproduced: equal metrics within 0.01, other files" in equal.stdout
    assert "made again: 1 different, 1 equal" in kaos.run("train", "info", "-j", job_id).stdout
    assert "Give a number from 0" in (
        kaos.run("train", "reproduce", "-m", model["model_id"], "--tolerance", "-1", code=2).stderr
    )


def test_the_environment_is_that_of_the_lock(server: Server, kaos: Kaos, tmp_path: Path) -> None:
    script = f"""{SCORE}
import six
print("six", six.__version__)
"""
    dockerfile = f"{DOCKERFILE}WORKDIR /opt/p\nCOPY . /opt/p/\nRUN pip install -r requirements.txt\n"
    newest = {"requirements": "six>=1.15\nidna\n", "dockerfile": dockerfile}
    source = write_source(tmp_path / "s", script, **newest)
    job_id = kaos.deploy_and_wait("-s", source, "-d", write_data(tmp_path / "d"))
    (model,) = kaos.info(job_id)["models"]
    (before,) = kaos.log(job_id)
    # Time passes: the same requirements are resolved to something else now.
    older = write_source(
        tmp_path / "older", script, requirements="six==1.16.0\nidna\n", dockerfile=dockerfile
    )
    kaos.deploy_and_wait("-s", older)
    locks = {
        path: path.read_text() for path in (server.home / "work" / "environments" / "locks").glob("*.txt")
    }
    (old,) = (text for text in locks.values() if "six==1.16.0" in text)
    (path,) = (each for each, text in locks.items() if "six==" in text and "idna==" in text and text != old)
    path.write_text(old)
    found = kaos.json("train", "reproduce", "-m", model["model_id"])
    assert (found["verdict"], found["environment"]) == ("identical", [])
    assert kaos.log(found["job_id"]) == [before]
    shown = kaos.run("train", "reproduce", "-m", model["model_id"], "--rebuild").stdout
    assert f"{model['model_id']}: reproduced to the byte, in another environment" in shown
    assert re.search(rf"\| +six +\| +{before.split()[1]} +\| +1\.16\.0 +\|", shown)


def test_a_model_that_cannot_be_made_again(server: Server, kaos: Kaos, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    script = f"""{SCORE}
if Path({str(marker)!r}).exists():
    raise SystemExit("the weather changed")
"""
    source = write_source(tmp_path / "s", script)
    jobs = [kaos.deploy_and_wait("-s", source, "-d", write_data(tmp_path / "d")) for _ in range(2)]
    (model,) = kaos.info(jobs[0])["models"]
    second = kaos.json("train", "reproduce", "-m", model["model_id"], "-j", jobs[1][:20])
    assert second["original_job"] == jobs[1]
    marker.touch()
    failed = kaos.run("train", "reproduce", "-m", model["model_id"], "-o", "json", code=1)
    assert json.loads(failed.stdout)["verdict"] == "failed"
    assert json.loads(failed.stdout)["original_job"] == jobs[0]
    assert "the weather changed" in json.loads(failed.stdout)["reason"] or "exit code 1" in failed.stdout
    unknown = kaos.run("train", "reproduce", "-m", f"{model['model_id']}0", code=3)
    assert f"Did you mean {model['model_id']}?" in unknown.stderr
    assert (
        "It was made by"
        in kaos.run("train", "reproduce", "-m", model["model_id"], "-j", "ffffff", code=3).stderr
    )
    imported = kaos.json("model", "import", write_data(tmp_path / "elsewhere"), "--name", "foreign")
    refused = kaos.run("train", "reproduce", "-m", imported["model_id"], code=2)
    assert f"The model {imported['model_id']} was imported" in refused.stderr
    assert "nobody knows what made it" in refused.stderr


def test_nobody_has_to_wait_for_the_verdict(kaos: Kaos, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.touch()
    held = f"{SCORE}\nimport time\nwhile not Path({str(go)!r}).exists():\n    time.sleep(0.05)\n"
    job_id = kaos.deploy_and_wait("-s", write_source(tmp_path / "s", held), "-d", write_data(tmp_path / "d"))
    (model,) = kaos.info(job_id)["models"]
    go.unlink()
    started = kaos.json("train", "reproduce", "-m", model["model_id"], "--no-wait")
    assert "no verdict yet" in kaos.run("train", "info", "-j", started["job_id"]).stdout
    go.touch()
    found = until(lambda: kaos.info(started["job_id"])["reproduction"], 60, "the verdict")
    assert found["verdict"] == "identical"
    go.unlink()
    killed = kaos.json("train", "reproduce", "-m", model["model_id"], "--no-wait")["job_id"]
    kaos.run("train", "kill", "-j", killed)
    found = kaos.info(killed)["reproduction"]
    assert found["verdict"] == "failed"
    assert found["reason"].startswith("Killed by ")


def test_who_may_only_look_makes_nothing_again(kaos: Kaos, eve: Kaos, workspace: str) -> None:
    eve.run("workspace", "set", "-n", workspace)
    assert "may not deploy" in eve.run("train", "reproduce", "-m", "x", code=5).stderr
