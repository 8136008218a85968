"""What user code can see, and where the server's secrets are not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.harness import TRAIN, Kaos, Server, content_of, files_of, write_data, write_source

# Everything that a script inherits.
DUMP = f"""{TRAIN}
import sys
descriptors = {{}}
for name in os.listdir("/proc/self/fd"):
    try:
        descriptors[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass  # the one that lists them
seen = dict(environ=dict(os.environ), descriptors=descriptors, argv=sys.argv, cwd=os.getcwd())
(output / "model" / "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def job(server: Server, token: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kaos, str, Any]:
    """Return who deployed, the job's id, and what its script saw."""
    root = tmp_path_factory.mktemp("secrets")
    kaos = Kaos(root / ".kaos", root, {"HOME": str(root)})
    kaos.run("init", "-e", server.url, "-t", "-", stdin=f"{token}\n")
    kaos.run("workspace", "create", "-n", "secrets")
    job_id = kaos.deploy_and_wait("-s", write_source(root / "s", DUMP), "-d", write_data(root / "d"))
    model = root / kaos.run("train", "get", "-j", job_id, "-m").stdout.strip()
    return kaos, job_id, json.loads((model / "model" / "seen.json").read_text())


def test_a_script_sees_an_environment_of_its_own(server: Server, job: tuple[Kaos, str, Any]):
    _, job_id, seen = job
    environ = seen["environ"]
    assert not [
        name for name in environ if name.startswith(("AIRFLOW", "SUPERVISOR", "_AIRFLOW", "PG", "KAOS_HOME"))
    ]
    assert {"KAOS_JOB", "KAOS_DATA", "KAOS_PARAMS", "KAOS_OUTPUT"} <= set(environ)
    assert environ["KAOS_JOB"] == job_id
    allowed = (
        r"KAOS_(JOB|DATA|PARAMS|OUTPUT|CHECKPOINT|RUN|INSTANCE)\w*|PATH|HOME|TMPDIR|LANG|LC_\w+|TZ|USER|LOGNAME"
        r"|VIRTUAL_ENV|PYTHON\w+|LD_LIBRARY_PATH|\w*(?i:proxy)|(SSL|REQUESTS|CURL)_\w+"
    )
    assert not [name for name in environ if not re.fullmatch(allowed, name)]
    text = json.dumps(seen)
    assert not [name for name, secret in server.secrets.items() if secret in text]
    assert "eyJ" not in text  # the beginning of every JSON web token
    assert seen["argv"][1:] == [environ["KAOS_OUTPUT"]]


def test_a_script_inherits_no_descriptor_but_the_three(job: tuple[Kaos, str, Any]):
    descriptors = job[2]["descriptors"]
    assert set(descriptors) == {"0", "1", "2"}
    assert descriptors["0"] == "/dev/null"
    assert descriptors["1"] == descriptors["2"]


def test_no_secret_is_in_a_log_a_record_or_an_object(server: Server, job: tuple[Kaos, str, Any]):
    """Of all files of the server only its settings know its secrets."""
    settings = {"instance.json", "server.json", "client.json", "airflow.cfg", "passwords.json"}
    secrets = {name: secret.encode() for name, secret in server.secrets.items()}
    files = files_of(server.home)
    for path in files:
        if path.name in settings or "environments" in path.parts:
            continue
        content = content_of(path)
        assert not [name for name, secret in secrets.items() if secret in content], path
        if path.suffix in (".log", ".json", ".txt"):
            assert not re.search(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}", content), path
    found = {path: status for path, status in files.items() if path.name in settings}
    assert {path.name for path in found} >= {"instance.json", "server.json", "airflow.cfg"}
    for path, status in found.items():
        assert status.st_mode & 0o077 == 0, path


def test_no_secret_is_in_what_airflow_keeps_of_a_run(server: Server, token: str, job: tuple[Kaos, str, Any]):
    _, job_id, _ = job
    at = f"/api/v2/dags/kaos.secrets.train/dagRuns/{job_id}"
    with server.http(token) as http:
        texts = [http.get(at).text]
        for entry in http.get(f"{at}/taskInstances/~/xcomEntries", params={"limit": 100}).json()[
            "xcom_entries"
        ]:
            query = {"map_index": entry["map_index"]}
            texts.append(
                http.get(
                    f"{at}/taskInstances/{entry['task_id']}/xcomEntries/{entry['key']}", params=query
                ).text
            )
        texts += [
            http.get(f"{at}/taskInstances").text,
            http.get("/api/v2/eventLogs", params={"limit": 1000}).text,
        ]
        texts.append(http.get("/api/v2/connections").text)
    assert len(texts) > 8
    for text in texts:
        assert not [name for name, secret in server.secrets.items() if secret in text]
        assert "eyJ" not in text
    assert set(json.loads(texts[0])["conf"]) == {"job", "workspace", "author"}


def test_no_secret_is_on_a_command_line_or_in_an_environment(server: Server):
    found = list(server.processes())
    assert len(found) > 6
    for process in found:
        try:
            text = " ".join(process.cmdline()) + json.dumps(process.environ())
        except psutil.Error:
            continue
        assert not [name for name, secret in server.secrets.items() if secret in text], process


def test_the_jobs_directory_is_nobody_elses(server: Server):
    assert server.home.stat().st_mode & 0o077 == 0
    for folder in ("work", "store", "airflow", "logs"):
        assert (server.home / folder).stat().st_mode & 0o077 == 0, folder
    assert Path(server.home / "work").is_dir()
