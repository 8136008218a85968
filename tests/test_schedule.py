"""Schedules: their times, and that a run becomes one job, whoever asks and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.errors import InvalidConditionError, InvalidNameError, InvalidScheduleError
from kaos.job import BundlePin, JobDocument, JobOutcome, JobState, new_job_id
from kaos.resources import Resources
from kaos.schedule import Promotion, Schedule, parse_interval, show_interval
from kaos.schedules import Schedules, Told, Unless
from kaos.store import Store, memory_store, open_file_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def made(**fields: Any) -> Schedule:
    return Schedule(author="ada", created_at=NOW, **fields)


def document(run_id: str, data: str) -> JobDocument:
    pin = BundlePin(name="b", digest="a" * 64, files=1, size=1, author="ada")
    return JobDocument(
        job_id=new_job_id(),
        workspace="w",
        definition="nightly",
        dag_id="kaos.w.nightly",
        run_id=run_id,
        source=pin,
        data=pin.model_copy(update={"digest": data * 64}),
        resources=Resources(),
        runtime="process",
        author="ada",
        submitted_at=NOW,
        kaos_version="0",
        schedule="nightly",
    )


def workspace(store: Store) -> WorkspaceCatalog:
    return Catalog(store).create_workspace("w", "ada")


def ended(found: WorkspaceCatalog, job_id: str, state: JobState) -> None:
    found.set_outcome(JobOutcome(job_id=job_id, state=state, ended_at=NOW))


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("90s", 90), ("15m", 900), ("6h", 21600), ("1d", 86400), ("2w", 1209600)]
)
def test_intervals(text: str, seconds: float) -> None:
    assert parse_interval(text) == seconds
    assert parse_interval(show_interval(seconds)) == seconds


@pytest.mark.parametrize(
    "text", ["", "6", "h", "6 hours", "-6h", "1.5h", "4s", "367d", "9" * 30 + "s", "６h6"]
)
def test_other_intervals_are_refused(text: str) -> None:
    with pytest.raises(InvalidScheduleError):
        parse_interval(text)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cron": "@daily", "every": 60},
        {"every": 60, "on_data": True},
        {"on_data": True, "always": True},
    ],
)
def test_a_schedule_has_one_kind_of_time(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidScheduleError):
        made(**fields)


def test_a_promotion_is_checked() -> None:
    assert Promotion(endpoint="digits", condition="a > 0 and loss < current").decisive == ("a", False)
    assert Promotion(endpoint="digits", condition="a > 0 and loss < 1", metric="loss").decisive == (
        "loss",
        True,
    )
    with pytest.raises(InvalidScheduleError, match="does not ask for the metric 'b'"):
        Promotion(endpoint="digits", condition="a > 0", metric="b")
    with pytest.raises(InvalidConditionError):
        Promotion(endpoint="digits", condition="a >")
    with pytest.raises(InvalidNameError):
        Promotion(endpoint="Not A Name", condition="a > 0")


EVENT = st.tuples(
    st.integers(0, 5), st.sampled_from("bc"), st.sampled_from([JobState.SUCCESS, JobState.FAILURE])
)


@given(st.lists(EVENT, max_size=25), st.sampled_from(list(Unless)))
def test_a_run_is_one_job_and_nothing_new_is_none(
    events: list[tuple[int, str, JobState]], unless: Unless
) -> None:
    """Runs come again and again, their jobs end one way or the other: compared with the rule in words."""
    found = workspace(memory_store())
    schedules = Schedules(found)
    jobs: dict[str, str] = {}
    history: list[tuple[str, JobState]] = []  # the data of each job, and how it ended
    for number, data, state in events:
        run_id = f"run{number}"
        tick = schedules.pin("nightly", document(run_id, data), unless, NOW)
        if run_id in jobs:
            assert tick.job_id == jobs[run_id]
            continue
        counted = [each for each, how in history if unless is Unless.PINNED or how is JobState.SUCCESS]
        skipped = unless is not Unless.NEVER and counted[-1:] == [data]
        assert (tick.job_id is None) is skipped
        assert bool(tick.reason) is skipped
        if tick.job_id is not None:
            jobs[run_id] = tick.job_id
            history.append((data, state))
            ended(found, tick.job_id, state)
        assert schedules.state("nightly").last == tick
    assert found.job_ids() == sorted(jobs.values())
    for run_id, job_id in jobs.items():
        pinned = schedules.pinned("nightly", run_id)
        assert pinned is not None
        assert found.job(job_id) == (JobDocument.parse(found.store.objects.get(pinned.job)), pinned.job)
        assert found.job(job_id)[0].run_id == run_id


@pytest.mark.parametrize("same_run", [True, False])
def test_many_at_once_make_one_job(tmp_path: Path, same_run: bool) -> None:
    found = workspace(open_file_store(tmp_path))

    def pin(number: int) -> str | None:
        run_id = (
            "run" if same_run else f"run{number}"
        )  # the same tick by many schedulers, or an event many times
        return Schedules(found).pin("nightly", document(run_id, "b"), Unless.PINNED, NOW).job_id

    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(pin, range(24)))
    assert len(found.job_ids()) == 1
    assert set(jobs) - {None} == set(found.job_ids())
    assert (None in jobs) is not same_run


def test_a_pin_that_was_killed_in_between_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    found = workspace(memory_store())
    with monkeypatch.context() as patched:
        patched.setattr(Schedules, "_complete", _killed)
        with pytest.raises(KeyboardInterrupt):
            Schedules(found).pin("nightly", document("run", "b"), Unless.SUCCEEDED, NOW)
    assert found.job_ids() == []
    last = Schedules(found).state("nightly").last
    pinned = Schedules(found).pinned("nightly", "run")  # whoever looks at the run finishes it
    assert last is not None
    assert pinned is not None
    assert found.job_ids() == [last.job_id] == [pinned.job_id]
    again = Schedules(found).pin("nightly", document("run", "c"), Unless.SUCCEEDED, NOW)
    assert found.job_ids() == [again.job_id]
    assert found.job(str(again.job_id))[0].pinned_data.digest == "b" * 64  # what was pinned first


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_success_long_ago_is_remembered() -> None:
    found = workspace(memory_store())
    schedules = Schedules(found)
    first = str(schedules.pin("nightly", document("first", "b"), Unless.SUCCEEDED, NOW).job_id)
    ended(found, first, JobState.SUCCESS)
    for number in range(120):
        job_id = str(schedules.pin("nightly", document(f"r{number}", "c"), Unless.SUCCEEDED, NOW).job_id)
        ended(found, job_id, JobState.FAILURE)
    skipped = schedules.pin("nightly", document("last", "b"), Unless.SUCCEEDED, NOW)
    assert skipped.job_id is None
    assert first in skipped.reason
    assert len(schedules.state("nightly").pinned) <= 50
    assert schedules.pinned("nightly", "r0") is not None  # though the state knows it no more


def test_data_of_which_nothing_is_known_is_new() -> None:
    assert Told(data="a").same(Told(data="a", by="run"))
    assert not Told(manifest="m").same(Told(manifest="m"))
    assert not Told(manifest="m", data="a").same(Told(data="a"))
