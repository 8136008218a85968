"""Two users in one workspace at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from e2e.harness import TRAIN, Kaos, Server, until, write_data, write_source

ROUNDS = 6

# The script and its data each say whose they are; a job that mixes them fails, and shows both.
PAIRED = f"""{TRAIN}
owner = {{owner!r}}
found = (Path(os.environ["KAOS_DATA"]) / "table.csv").read_text()
print(owner, found)
(output / "model" / "pair").write_text(owner + "=" + found)
raise SystemExit(owner != found)
"""


def test_two_who_deploy_at_once_never_get_halves_of_each_others_jobs(
    server: Server, kaos: Kaos, ada: Kaos, workspace: str, token: str, tmp_path: Path
):
    ada.run("workspace", "set", "-n", workspace)
    pairs: dict[str, tuple[str, str]] = {}

    def deploy(user: Kaos, name: str) -> list[str]:
        jobs = []
        for number in range(ROUNDS):
            owner = f"{name}-{number}"
            source = write_source(tmp_path / owner / "s", PAIRED.format(owner=owner))
            data = write_data(tmp_path / owner / "d", owner)
            made = user.json("train", "deploy", "-s", source, "-d", data)
            pairs[made["job_id"]] = made["source_digest"], made["data_digest"]
            jobs.append(made["job_id"])
        return jobs

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(deploy, kaos, "root")
        second = pool.submit(deploy, ada, "ada")
        jobs = [*first.result(), *second.result()]
    assert len(set(jobs)) == 2 * ROUNDS
    assert len(set(pairs.values())) == 2 * ROUNDS
    for job_id in jobs:
        assert kaos.ended(job_id)["state"] == "JOB_SUCCESS", kaos.log(job_id)
    with server.http(token) as http:
        for job_id in jobs:
            content = http.get(f"/kaos/api/v1/workspaces/{workspace}/jobs/{job_id}/content").json()
            assert (content["source"]["digest"], content["data"]["digest"]) == pairs[job_id]
    authors = {job_id: kaos.info(job_id)["author"] for job_id in jobs}
    assert {authors[job_id] for job_id in second.result()} == {"ada"}
    assert "ada" not in {authors[job_id] for job_id in first.result()}


def test_a_deploy_of_one_half_takes_the_other_half_from_the_workspace(kaos: Kaos, tmp_path: Path):
    source = write_source(
        tmp_path / "s", f"{TRAIN}\nprint(next(Path(os.environ['KAOS_DATA']).iterdir()).read_text())"
    )
    first = kaos.json("train", "deploy", "-s", source, "-d", write_data(tmp_path / "one", "one"))
    second = kaos.json("train", "deploy", "-d", write_data(tmp_path / "two", "two"))
    assert first["source_digest"] == second["source_digest"]
    assert first["data_digest"] != second["data_digest"]
    for job, printed in ((first, "one"), (second, "two")):
        assert kaos.ended(job["job_id"])["state"] == "JOB_SUCCESS"
        assert kaos.log(job["job_id"]) == [printed]


def test_without_data_nothing_starts_and_the_table_shows_what_is_missing(kaos: Kaos, tmp_path: Path):
    source = write_source(tmp_path / "s", TRAIN)
    result = kaos.run("train", "deploy", "-s", source)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()[2:]]
    assert ["Image", "Data", "Hyperparams"] in cells
    assert ["⨂", "✗", "✗"] in cells
    assert "No job started: there is no data yet." in result.stderr
    assert kaos.json("train", "list") == []
    result = kaos.run("train", "deploy", "-d", write_data(tmp_path / "d"), "--wait")
    assert "JOB_SUCCESS" in result.stderr


def test_without_anything_nothing_starts(kaos: Kaos):
    result = kaos.run("train", "deploy")
    assert "there is no source and no data yet" in result.stderr
    assert ["✗", "✗", "✗"] in [
        [cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()
    ]


def test_i_means_the_row_of_the_list_that_was_printed_last(kaos: Kaos, tmp_path: Path):
    script = f"{TRAIN}\nprint(next(Path(os.environ['KAOS_DATA']).iterdir()).read_text())"
    source = write_source(tmp_path / "s", script)
    first = kaos.deploy_and_wait("-s", source, "-d", write_data(tmp_path / "one", "one"))
    kaos.run("train", "list")
    second = kaos.deploy("-d", write_data(tmp_path / "two", "two"))
    assert kaos.json("train", "info", "-i", "0")["job_id"] == first
    assert kaos.run("train", "logs", "-i", "0").stdout == "one\n"
    until(lambda: kaos.info(second)["state"] == "JOB_SUCCESS", 60, "the second job's end")
    assert kaos.json("train", "info", "-i", "0")["job_id"] == first
    kaos.run("train", "list")
    assert kaos.json("train", "info", "-i", "0")["job_id"] == second
    assert kaos.json("train", "info", "-i", "1")["job_id"] == first


def test_workspaces_that_are_made_at_once_have_each_its_own_dag(server: Server, kaos: Kaos, token: str):
    names = [f"at-once-{number}" for number in range(12)]
    with server.http(token) as http:

        def make(name: str) -> int:
            return http.post("/kaos/api/v1/workspaces", json={"name": name}).status_code

        with ThreadPoolExecutor(len(names)) as pool:
            assert list(pool.map(make, names)) == [201] * len(names)
        for name in names:
            tasks = http.get(f"/api/v2/dags/kaos.{name}.train/tasks").json()["tasks"]
            assert {"ingest", "build", "plan", "train", "register"} <= {task["task_id"] for task in tasks}, (
                name
            )
