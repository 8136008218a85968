"""Questions to all workspaces of an Airflow whose auth manager lets a user see some DAGs alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient
from histories import History

from kaos.digest import digest_bytes
from kaos.errors import UnknownNameError
from kaos.store import open_file_store
from kaos_plugin.app import create_app

CODE = {"model/train": b"#!/bin/sh\n"}
DATA = {"a.csv": b"1,2\n"}


class Teams(SimpleAuthManager):
    """Lets a user see the DAGs of the workspaces whose names begin as the user's."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None) -> bool:
        """Tell whether the user may do this."""
        return method == "GET" and details.id.startswith(f"kaos.{user.username}-")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Return a client of eve's to a store with two workspaces of hers and one of ada's."""
    store = open_file_store(tmp_path / "store")
    for name in ("eve-1", "eve-2", "ada-1"):
        team = History(store, name)
        team.train(team.bundle("source", CODE), team.bundle("data", DATA), outputs=[name.encode()])
    monkeypatch.setenv("AIRFLOW__KAOS__STORE", store.url)
    monkeypatch.setenv("AIRFLOW__KAOS__WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setattr("kaos_plugin.auth.get_auth_manager", Teams)
    app = create_app()
    app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="eve", role="viewer")
    return TestClient(app)


def test_nothing_is_told_of_a_workspace_that_one_may_not_read(asked: TestClient, tmp_path: Path) -> None:
    answer = asked.get("/api/v1/lineage/downstream", params={"ref": digest_bytes(DATA["a.csv"])})
    assert answer.status_code == 200
    assert answer.json()["counts"]["model"] == 2
    assert {row["workspace"] for row in answer.json()["rows"]} == {"eve-1", "eve-2"}
    assert "ada-" not in answer.text
    # What was read is kept for the next start: of no other workspace anything was.
    assert len(list((tmp_path / "work" / "lineage").iterdir())) == 2

    hers = asked.get("/api/v1/workspaces/eve-1/lineage/downstream", params={"ref": digest_bytes(b"1,2\n")})
    assert hers.json()["rows"] == [row for row in answer.json()["rows"] if row["workspace"] == "eve-1"]
    refused = asked.get("/api/v1/workspaces/ada-1/lineage/downstream", params={"ref": "x"})
    assert refused.status_code == 403

    unknown = asked.get("/api/v1/lineage/upstream", params={"ref": digest_bytes(b"ada-1")})
    assert unknown.status_code == UnknownNameError.status
    assert unknown.json()["code"] == UnknownNameError.code
    assert "ada-" not in unknown.text.replace(digest_bytes(b"ada-1"), "")


def test_only_the_workspaces_that_one_may_see_are_listed(asked: TestClient) -> None:
    listed = asked.get("/api/v1/workspaces").json()["workspaces"]
    assert [each["name"] for each in listed] == ["eve-1", "eve-2"]
    page = asked.get("/ui/workspaces")
    assert "eve-1" in page.text
    assert "ada-" not in page.text


def test_runs_are_shown_to_those_alone_who_may_see_runs(
    asked: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoRuns(Teams):
        def is_authorized_dag(self, *, method, user, access_entity=None, details=None) -> bool:
            may = super().is_authorized_dag(method=method, user=user, details=details)
            return may and access_entity is not DagAccessEntity.RUN

    class Found(Exception):
        pass

    def found(*arguments: object) -> None:
        raise Found

    monkeypatch.setattr("kaos_plugin.jobs.job_info", found)
    with pytest.raises(Found):
        asked.get("/ui/runs/kaos.eve-1.train/some")
    monkeypatch.setattr("kaos_plugin.auth.get_auth_manager", NoRuns)
    assert asked.get("/ui/runs/kaos.eve-1.train/some").status_code == UnknownNameError.status
    assert asked.get("/ui/workspaces/eve-1").status_code == 403
