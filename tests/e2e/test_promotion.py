"""From a scheduled training to the endpoint's next revision: `train schedule --promote-to`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.harness import TRAIN, Kaos, Server, until, write_data, write_source
from e2e.serving import SERVE, Endpoint, write_serve
from e2e.test_schedule import next_run, trigger

SCRIPT = f"""{TRAIN}
value = float(Path(os.environ["KAOS_DATA"], "table.csv").read_text())
(output / "metrics" / "metrics.json").write_text(json.dumps(dict(accuracy=value)))
(output / "model" / "accuracy").write_text(str(value))
"""
"""Trains a model as good as its data says."""

PICKY = SERVE.replace(
    "class Handler",
    'if Path("accuracy").exists() and Path("accuracy").read_text() == "0.99":\n'
    '    raise SystemExit("too good to be true")\n\nclass Handler',
)


def test_better_models_are_promoted_and_worse_ones_stay_out(
    kaos: Kaos, server: Server, token: str, workspace: str, tmp_path: Path
) -> None:
    endpoint = Endpoint.deploy(kaos, write_serve(tmp_path / "serve", script=PICKY))
    kaos.run("train", "deploy", "-s", write_source(tmp_path / "s", SCRIPT), "--no-run")
    promote = ["train", "schedule", "--cron", "@yearly", "--promote-to", endpoint.name]
    condition = "accuracy >= 0.5 and > current"
    kaos.run(*promote, "--if", condition)

    def data(value: float) -> None:
        directory = write_data(tmp_path / f"d{value}", str(value))
        kaos.run("train", "deploy", "-d", directory, "--no-run")

    def trained(value: float) -> Any:
        data(value)
        return kaos.info(next_run(kaos, server, token, workspace)["job_id"])

    job = trained(0.4)
    told = until(lambda: kaos.info(job["job_id"])["promotion"], 30, "the decision")
    assert f"was kept out of {endpoint.name} by schedule scheduled: accuracy >= 0.5: 0.4 and 0.5, no" in told
    assert "no model serves yet" in told
    tasks = until(lambda: ended_tasks(server, token, job), 30, "the end of the run")
    assert (tasks["gate"], tasks["promote"]) == ("success", "skipped")

    job = trained(0.6)
    told = until(lambda: routed(kaos, job["job_id"]), 60, "the promotion")
    assert f"was promoted to revision 2 of {endpoint.name}, which is routed, by schedule scheduled" in told
    assert endpoint.revision() == 2
    assert f"Promotion: {told}" in kaos.run("train", "info", "-j", job["job_id"]).stdout
    model = job["models"][0]["model_id"]
    assert endpoint.info()["revisions"][0]["model"]["model_id"] == model

    broken = trained(0.99)
    told = until(lambda: routed(kaos, broken["job_id"], "failed"), 60, "the failed promotion")
    assert "to revision 3" in told
    assert endpoint.revision() == 2
    tasks = until(lambda: ended_tasks(server, token, broken), 30, "the end of the run")
    assert tasks["promote"] == "failed"
    broken = kaos.info(broken["job_id"])
    assert broken["state"] == "JOB_SUCCESS"  # there is a model; it does not serve
    assert "There is a model, but then Airflow failed promote" in broken["reason"]
    drawn = kaos.run("train", "provenance", "-m", broken["models"][0]["model_id"], "--format", "json")
    assert "Warning" not in drawn.stderr  # the job's record and the run's history do not contradict

    kaos.run(*promote, "--if", condition, "--approve")
    data(0.7)
    trigger(server, token, workspace, "scheduled")
    row = until(lambda: waits(kaos), 60, "the question")
    assert "waits for approval" in kaos.run("train", "schedule", "list").stdout
    assert endpoint.revision() == 2
    kaos.run("train", "schedule", "approve")
    told = until(lambda: routed(kaos, row["waiting"]), 60, "the promotion")
    assert "to revision 4" in told
    assert f"by {row['schedule']['author']}" in told
    assert endpoint.revision() == 4
    none = kaos.run("train", "schedule", "approve", code=4)
    assert "No model of scheduled waits for approval." in none.stderr

    data(0.8)
    until(lambda: ended_tasks(server, token, kaos.info(row["waiting"])), 30, "the end of the run")
    trigger(server, token, workspace, "scheduled")
    row = until(lambda: waits(kaos), 60, "the question")
    kaos.run("train", "schedule", "approve", "--reject")
    told = until(lambda: kaos.info(row["waiting"])["promotion"], 30, "the decision")
    assert "was rejected" in told
    assert endpoint.revision() == 4


def routed(kaos: Kaos, job_id: str, how: str = "is routed") -> str | None:
    told = str(kaos.info(job_id)["promotion"])
    return told if f"which {how}" in told else None


def waits(kaos: Kaos) -> dict[str, Any] | None:
    (row,) = kaos.json("train", "schedule", "list")
    return row if row["waiting"] else None


def ended_tasks(server: Server, token: str, job: dict[str, Any]) -> dict[str, str] | None:
    """Return the states of the tasks of a job's run once it has ended."""
    stages = job["url"].replace("/runs/", "/dagRuns/").replace("+", "%2B")
    with server.http(token) as http:
        if http.get(f"/api/v2{stages}").json()["state"] not in ("success", "failed"):
            return None
        found = http.get(f"/api/v2{stages}/taskInstances").json()["task_instances"]
    return {task["task_id"]: task["state"] for task in found}


def test_what_cannot_be_promoted_is_refused(kaos: Kaos) -> None:
    times = ["train", "schedule", "--every", "6h"]
    unread = kaos.run(*times, "--promote-to", "digits", "--if", "accuracy >= and > current", code=2).stderr
    assert unread.splitlines()[1:3] == ["  accuracy >= and > current", "              ^"]
    missing = kaos.run(*times, "--promote-to", "not-there", "--if", "accuracy > current", code=3)
    assert "There is no endpoint 'not-there'" in missing.stderr
    for options, said in (
        (["--if", "a > 0"], "--if goes with --promote-to"),
        (["--approve"], "--approve goes with --promote-to"),
        (["--promote-to", "digits"], "Which models shall be promoted?"),
        (["--promote-to", "digits", "--if", "a > 0", "--metric", "b"], "does not ask for the metric 'b'"),
    ):
        assert said in kaos.run(*times, *options, code=2).stderr
    assert names(kaos) == []


def names(kaos: Kaos) -> list[str]:
    return [row["name"] for row in kaos.json("train", "schedule", "list")]
