"""The first session of somebody new, word for word, with a real model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from e2e.harness import Kaos, Server, tree_of

DEPLOY = ("train", "deploy", "-s", "templates/mnist/model-train", "-d", "templates/mnist/data")
BAR = "100%|" + "█" * 27 + "|"


class Session:
    """What the commands of the session printed; the tests look at one after the other."""

    def __init__(self, user: Kaos) -> None:
        self.user = user
        self.init = user.run("init")
        self.create = user.run("workspace", "create", "-n", "mnist")
        self.template = user.run("template", "get", "--name", "mnist")
        self.deploy = user.run(*DEPLOY, "--wait")
        self.jobs = user.run("train", "list")
        self.job_id: str = user.json("train", "list")[0]["job_id"]
        self.get = user.run("train", "get", "-i", "0")
        self.top = user.directory / "mnist" / self.job_id

    def bundles(self) -> tuple[str, str]:
        """Return the two bundles as the deploy named them."""
        source, data = re.findall(
            r" ✔ Setting (?:source|data) bundle: (/\S+:[0-9a-f]{5,})\n", self.deploy.stderr
        )
        return source, data


@pytest.fixture(scope="module")
def session(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Session:
    directory = tmp_path_factory.mktemp("newcomer")
    return Session(Kaos(server.home, directory, {"HOME": str(directory)}))


def test_init_needs_no_password_on_ones_own_server(session: Session, server: Server):
    assert session.init.stderr.startswith(f" ✔ Connected to {server.url} as ")
    config = server.home / "client.json"
    assert config.stat().st_mode & 0o777 == 0o600
    assert json.loads(config.read_text())["url"] == server.url


def test_the_first_words_are_those_of_the_reference(session: Session):
    assert session.create.stderr == "Successfully set mnist workspace\n"
    loaded, serving = session.template.stderr.splitlines()
    assert loaded == "Successfully loaded mnist template"
    assert serving.endswith("kaos template serve mnist")


def test_deploy_sets_both_bundles_and_shows_the_inputs(session: Session):
    source, data = session.bundles()
    assert session.deploy.stderr.startswith(
        "Submitting source bundle: templates/mnist/model-train\n"
        f"Compressing source bundle: {BAR}\n"
        f" ✔ Setting source bundle: {source}\n\n"
        "Submitting data bundle: templates/mnist/data\n"
        f"Compressing data bundle: {BAR}\n"
        f" ✔ Setting data bundle: {data}\n\n"
    )
    assert source.startswith("/mnist:")
    assert data.startswith("/features:")
    title, _, *table = session.deploy.stdout.splitlines()
    assert title == "CURRENT TRAINING INPUTS"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("|")]
    assert cells == [
        ["Image", "Data", "Hyperparams"],
        ["⨂", "✔", "✗"],
        ["<building>", data, ""],
    ]


def test_waiting_shows_the_stages_and_the_model(session: Session):
    stages = re.findall(r"^ ✔ (\S+) +[\d.]+ s$", session.deploy.stderr, re.MULTILINE)
    assert sorted(stages[:3]) == ["build", "ingest", "plan"]
    assert stages[3:] == ["train[0]", "register"]
    model_id = session.user.info(session.job_id)["models"][0]["model_id"]
    assert re.search(rf"^JOB_SUCCESS after [\d.]+ s: {model_id}$", session.deploy.stderr, re.MULTILINE)


def test_the_list_is_the_table_of_the_reference(session: Session):
    lines = session.jobs.stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[:2] == [["TRAINING"], ["ind", "duration", "hyperopt", "job_id", "started", "state"]]
    row = dict(zip(cells[1], cells[2], strict=True))
    assert row["ind"] == "0"
    assert int(row["duration"]) > 0
    assert row["hyperopt"] == "False"
    assert re.fullmatch(r"[0-9a-f]{32}", row["job_id"])
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", row["started"])
    assert row["state"] == "JOB_SUCCESS"


def test_the_list_as_json_has_the_columns_as_keys(session: Session):
    found = session.user.json("train", "list")
    assert {"ind", "duration", "hyperopt", "job_id", "started", "state"} <= set(found[0])
    assert found[-1]["job_id"] == session.job_id
    assert (found[-1]["hyperopt"], found[-1]["state"]) == (False, "JOB_SUCCESS")


def test_info_shows_what_made_the_model(session: Session):
    out = session.user.run("train", "info", "-j", session.job_id).stdout
    source, data = session.bundles()
    assert f"    Job ID: {session.job_id}\n" in out
    assert re.search(r"^    Process time: \d+s$", out, re.MULTILINE)
    assert "    State: JOB_SUCCESS\n" in out
    assert "    Page count: 1\n    Page ID: 0\n" in out
    for metric in ("accuracy_train", "accuracy_validation", "accuracy_test", "metrics_test"):
        assert f"'{metric}'" in out
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if "|" in line
    ]
    assert cells[0] == ["ind", "Code", "Data", "Model ID", "Hyperparams"]
    short = f"{source[-5:]}_{data[-5:]}"
    assert cells[1][0] == "0"
    assert cells[1][1:3] == [f"Author: {self_name(session)}"] * 2
    assert re.fullmatch(rf"{short}:[0-9a-f]{{6}}", cells[1][3])
    assert cells[1][4] == "None"
    assert cells[2][1:3] == [f"Path: {source}", f"Path: {data}"]


def test_the_model_is_listed_with_its_job(session: Session):
    (model,) = session.user.json("model", "list")
    assert model["job_id"] == session.job_id
    assert model["model_id"] in session.user.run("model", "list").stdout


def test_a_metric_becomes_the_score(session: Session):
    out = session.user.run("train", "info", "-j", session.job_id, "-s", "accuracy_test").stdout
    assert "Score" in out
    model = session.user.json("train", "info", "-j", session.job_id, "-s", "accuracy_test")["models"][0]
    assert model["score"] == model["metrics"]["accuracy_test"]


def test_the_model_is_better_than_nine_in_ten(session: Session):
    metrics = json.loads(next((session.top / "models").glob("*/metrics/metrics.json")).read_text())
    assert metrics["accuracy_test"] > 0.9
    assert metrics == session.user.info(session.job_id)["models"][0]["metrics"]


def test_logs_are_the_lines_of_the_script(session: Session):
    lines = session.user.log(session.job_id)
    assert lines[0] == "mnist: starting"
    assert any(line.startswith("accuracy_test: 0.9") for line in lines)
    followed = session.user.run("train", "logs", "-j", session.job_id, "--follow").stdout.splitlines()
    assert followed == lines


def test_build_logs_name_the_packages(session: Session):
    out = session.user.run("train", "build-logs", "-j", session.job_id).stdout
    assert re.search(r"^ \+ scikit-learn==[\d.]+$", out, re.MULTILINE)


def test_dag_is_python_that_runs_the_operators(session: Session):
    source = session.user.run("train", "dag", "-j", session.job_id).stdout
    compile(source, "dag.py", "exec")
    assert 'WORKSPACE = "mnist"' in source
    for name in ("BundleIngestOperator", "ImageBuildOperator", "TrainOperator", "RegisterModelOperator"):
        assert name in source


def test_get_writes_the_trees_of_the_reference(session: Session):
    source, data = (shown[1:] for shown in session.bundles())
    model = session.user.info(session.job_id)["models"][0]["model_id"].rpartition(":")[2]
    assert set(tree_of(session.user.directory / "mnist")) == {
        f"{session.job_id}/code/{source}/Dockerfile",
        f"{session.job_id}/code/{source}/model/params.json",
        f"{session.job_id}/code/{source}/model/requirements.txt",
        f"{session.job_id}/code/{source}/model/train",
        f"{session.job_id}/code/{source}/model/utils.py",
        f"{session.job_id}/data/{data}/test/test_mini.csv",
        f"{session.job_id}/data/{data}/training/training_mini.csv",
        f"{session.job_id}/data/{data}/validation/validation_mini.csv",
        f"{session.job_id}/models/{model}/metrics/metrics.json",
        f"{session.job_id}/models/{model}/model/model.pkl",
    }
    templates = session.user.directory / "templates" / "mnist"
    assert tree_of(session.top / "code" / source) == tree_of(templates / "model-train" / "mnist")
    assert tree_of(session.top / "data" / data) == tree_of(templates / "data" / "features")
    assert (
        f"Extracting train bundle: /mnist/{session.job_id}\nExtracting train bundle: {BAR}\n"
        == session.get.stderr
    )


def test_get_writes_over_nothing_unless_told(session: Session):
    refused = session.user.run("train", "get", "-j", session.job_id, code=4)
    assert "is there already" in refused.stderr
    train = next((session.top / "code").glob("*/model/train"))
    content = train.read_text()
    train.write_text("changed")
    session.user.run("train", "get", "-j", session.job_id, "-c", "-f")
    assert train.read_text() == content
    assert train.stat().st_mode & 0o111


def test_what_get_wrote_deploys_to_the_same_digests_and_the_same_model(session: Session):
    user, first = session.user, session.user.info(session.job_id)["models"][0]
    code = next((session.top / "code").iterdir())
    data = next((session.top / "data").iterdir())
    for directory, key in ((code, "source_digest"), (data, "data_digest")):
        assert user.run("bundle", "digest", directory).stdout.strip() == first[key]
    again = user.deploy_and_wait("-s", code, "-d", data)
    assert again != session.job_id
    second = user.info(again)["models"][0]
    for key in ("source_digest", "data_digest", "model_digest", "model_id"):
        assert second[key] == first[key], key
    assert (second["code"], second["data"]) == session.bundles()


def test_the_other_directory_of_code_gives_the_same_bundle(session: Session, tmp_path: Path):
    """`-o` writes elsewhere; the bundle's own directory deploys like the one above it."""
    session.user.run("train", "get", "-j", session.job_id, "-c", "-o", tmp_path)
    code = next((tmp_path / "mnist" / session.job_id / "code").iterdir())
    above = session.user.run("bundle", "digest", code.parent).stdout
    assert above == session.user.run("bundle", "digest", code).stdout


def self_name(session: Session) -> str:
    return str(json.loads((session.user.home / "client.json").read_text())["user"])
