"""The keeper over a store, with real services: what it starts, what it ends, and what it says of failures."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import write_tree

from kaos.catalog import Catalog
from kaos.endpoint import Limits, ServeDocument
from kaos.job import BundlePin
from kaos.runtime.base import Environment, RunState
from kaos.serving import keeper, prepare
from kaos.serving.gateway import Gateway
from kaos.serving.keeper import Keeper, life
from kaos.serving.process import ProcessServices
from kaos.serving.records import Endpoints
from kaos.serving.service import ServiceSpec
from kaos.store import memory_store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ENVIRONMENT = Environment(
    digest="0" * 64,
    python=Path(sys.executable),
    python_version="3.11",
    lock="",
    lock_digest="0" * 64,
    seconds=0,
    reused=True,
)
SLEEP = "#!/usr/bin/env python3\nimport time\ntime.sleep(600)\n"


class House:
    """A keeper with one endpoint, `echo`."""

    def __init__(self, root: Path) -> None:
        store = memory_store()
        self.work = root
        self.services = ProcessServices()
        self.records = Endpoints(Catalog(store).create_workspace("mnist", "ada"))
        self.keeper = Keeper(store, root, Gateway(root / "gateway", root))

    def revision(self, number: int) -> ServeDocument:
        """Record a revision."""
        self.records.reserve("echo", "a" * 32, "ada")
        code = BundlePin(name="echo", digest="0" * 64, author="ada", files=0, size=0)
        document = ServeDocument(
            job_id="a" * 32,
            workspace="mnist",
            dag_id="kaos.mnist.serve",
            run_id="a" * 32,
            endpoint="echo",
            revision=number,
            source=code,
            code=code,
            runtime="process",
            limits=Limits(timeout=0.1, start_timeout=1),
            author="ada",
            submitted_at=NOW,
            kaos_version="0",
        )
        self.records.add_revision(document)
        return document

    def directory(self, number: int) -> Path:
        return prepare.directory_of(self.work, "echo", number)

    def launch(self, number: int, script: str = SLEEP) -> None:
        """Start the service of a revision."""
        directory = self.directory(number)
        self.services.launch(
            ServiceSpec(
                name="echo",
                revision=number,
                job_id="a" * 32,
                program=write_tree(directory / "program", {"serve": script}),
                model=None,
                directory=directory,
                environment=ENVIRONMENT,
            )
        )

    def runs(self, number: int) -> bool:
        status = self.services.observe(self.directory(number))
        return status is not None and status.state is RunState.RUNNING

    def turn_until(self, condition: object, seconds: float = 20) -> None:
        assert callable(condition)
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            self.keeper.turn()
            time.sleep(0.05)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    for directory in (tmp_path / "endpoints").glob("*/0*"):
        made.services.terminate(directory, 0)


def test_a_deploy_that_nobody_goes_on_with_is_given_up(house: House) -> None:
    document = house.revision(1)
    house.launch(1)
    house.keeper.turn()
    assert house.runs(1)
    assert house.records.outcome("echo", 1) is None
    long_ago = time.time() - 3600
    os.utime(house.directory(1) / "service.json", (long_ago, long_ago))
    house.turn_until(lambda: not house.runs(1))
    outcome = house.records.outcome("echo", 1)
    assert outcome is not None
    assert "Its deploy did not go on within" in outcome.reason
    assert document.job_id == outcome.job_id


def test_a_service_that_cannot_start_is_tried_with_pauses_and_says_why(house: House) -> None:
    document = house.revision(1)
    house.launch(1)
    house.records.change("echo", lambda found: found.take(document, NOW))
    house.services.terminate(house.directory(1), 0)
    (house.directory(1) / "program" / "serve").unlink()
    house.turn_until(lambda: life(house.directory(1)).failures >= 2)
    assert "serve" in life(house.directory(1)).reason
    write_tree(house.directory(1) / "program", {"serve": SLEEP})
    house.turn_until(lambda: house.runs(1))


def test_a_service_that_never_listens_cannot_start_however_long_it_takes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_STEADY_SECONDS", 0.1)
    document = house.revision(1)
    house.launch(1, "#!/usr/bin/env python3\nimport time\ntime.sleep(0.3)\nraise SystemExit('no model')\n")
    house.records.change("echo", lambda found: found.take(document, NOW))
    house.turn_until(lambda: life(house.directory(1)).failures >= 2)


def test_what_lost_its_records_with_the_machines_power_takes_no_other_endpoint_along(house: House) -> None:
    documents = [house.revision(1), house.revision(2)]
    for document in documents:
        house.launch(document.revision)
        house.records.change("echo", lambda found, each=document: found.take(each, NOW))
        house.services.terminate(house.directory(document.revision), 0)
    lost, other = house.directory(1), house.directory(2)
    for path in (lost / "service.json", lost / "life.json", lost / "run" / "launch.json"):
        path.write_text("")
    (lost.parent / "notes.txt").touch()
    house.records.change("echo", lambda found: found.model_copy(update={"changed_at": datetime.now(UTC)}))
    house.turn_until(lambda: house.runs(2))
    assert "not on this machine" in life(lost).reason
    assert other.exists()


def test_of_revisions_to_which_no_rollback_leads_only_logs_stay(house: House) -> None:
    for number in (1, 2, 3):
        document = house.revision(number)
        house.launch(
            number, f"#!/usr/bin/env python3\nimport time\nprint({number}, flush=True)\ntime.sleep(600)\n"
        )
        printed = lambda each=number: house.services.logs(house.directory(each))[0]  # noqa: E731
        house.turn_until(printed)
        house.records.change("echo", lambda found, each=document: found.take(each, NOW))
        house.records.end(document, reason="")
    programs = {number: house.directory(number) / "program" for number in (1, 2, 3)}
    house.turn_until(lambda: not programs[1].exists())
    house.turn_until(lambda: not house.runs(2))
    house.keeper.turn()
    assert house.services.logs(house.directory(1))[0] == b"1\n"
    assert programs[2].exists()  # a rollback starts it
    assert house.runs(3)
    with pytest.raises(FileNotFoundError):
        house.services.relaunch(house.directory(1))


def test_a_killed_endpoint_leaves_no_directory(house: House) -> None:
    document = house.revision(1)
    house.launch(1)
    house.records.change("echo", lambda found: found.take(document, NOW))
    house.records.kill("echo", "ada")
    house.turn_until(lambda: not house.directory(1).exists())
    assert not house.runs(1)
