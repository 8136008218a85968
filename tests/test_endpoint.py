"""Endpoints as values and as records: what a deploy, a rollback and a canary make of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.bundle import EmptyDirectory, File, Tree
from kaos.catalog import Catalog
from kaos.digest import digest_bytes
from kaos.endpoint import Endpoint, Limits, ServeDocument, beside, endpoint_name, sample_of
from kaos.errors import AlreadyExistsError, ConflictError, InvalidNameError, UnknownNameError
from kaos.job import BundlePin
from kaos.names import check_endpoint
from kaos.serving.records import Endpoints, Names
from kaos.serving.traffic import Count, Entry, Snapshot, Traffic, prometheus, read
from kaos.store import memory_store

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def tree(**files: str) -> Tree:
    return Tree.of(
        [file(path.replace("__", "/").replace("_dot_", "."), text) for path, text in files.items()]
    )


def file(path: str, text: str) -> File:
    return File(path, len(text), digest_bytes(text.encode()), False)


def document(revision: int, canary: int | None = None) -> ServeDocument:
    pin = BundlePin(name="mnist", digest="a" * 64, files=1, size=1, author="ada")
    return ServeDocument(
        job_id=f"{revision:032x}",
        workspace="mnist",
        dag_id="kaos.mnist.serve",
        run_id=f"{revision:032x}",
        endpoint="e",
        revision=revision,
        source=pin,
        code=pin,
        runtime="process",
        canary=canary,
        author="ada",
        submitted_at=NOW,
        kaos_version="0",
    )


def endpoint(**fields: object) -> Endpoint:
    first = Endpoint(name="e", workspace="mnist", created_at=NOW, created_by="ada")
    return first.model_copy(update=fields)


def test_the_first_revision_has_all_of_the_traffic_even_as_a_canary() -> None:
    taken = endpoint().take(document(1, canary=10), NOW)
    assert (taken.current, taken.canary, taken.previous) == (1, None, None)


def test_a_swap_a_rollback_and_another_one() -> None:
    swapped = endpoint(current=1, routed=1).take(document(2), NOW)
    assert (swapped.current, swapped.previous) == (2, 1)
    back = swapped.roll_back(NOW)
    assert (back.current, back.previous) == (1, 2)
    assert (back.roll_back(NOW).current, back.roll_back(NOW).previous) == (2, 1)


def test_a_canary_is_promoted_or_taken_back() -> None:
    canary = endpoint(current=1, routed=1).take(document(2, canary=10), NOW)
    assert (canary.current, canary.canary, canary.percent) == (1, 2, 10)
    promoted = canary.promote(NOW)
    assert (promoted.current, promoted.previous, promoted.canary, promoted.percent) == (2, 1, None, 0)
    back = canary.roll_back(NOW)
    assert (back.current, back.canary, back.percent) == (1, None, 0)
    with pytest.raises(ConflictError, match="no canary"):
        back.promote(NOW)


def test_an_earlier_deploy_that_comes_late_does_not_take_the_traffic_back() -> None:
    with pytest.raises(ConflictError, match="revision 3, has taken e already"):
        endpoint(current=3, routed=3).take(document(2), NOW)
    rolled_back = endpoint(current=3, routed=3, previous=1).roll_back(NOW)
    with pytest.raises(ConflictError):
        rolled_back.take(document(2), NOW)


def test_taking_twice_is_taking_once() -> None:
    taken = endpoint(current=1, routed=1).take(document(2), NOW)
    assert taken.take(document(2), NOW + timedelta(seconds=9)) == taken


def test_a_killed_endpoint_takes_nothing() -> None:
    with pytest.raises(ConflictError, match="was killed"):
        endpoint(killed_at=NOW).take(document(1), NOW)


def test_nothing_to_go_back_to() -> None:
    with pytest.raises(ConflictError, match="no revision to go back to"):
        endpoint(current=1).roll_back(NOW)


Deploys = st.lists(
    st.tuples(st.sampled_from(["deploy", "canary", "rollback", "promote"]), st.integers(1, 9)), max_size=12
)


@given(Deploys)
def test_whatever_is_done_one_revision_has_the_traffic(steps: list[tuple[str, int]]) -> None:
    found = endpoint().take(document(1), NOW)
    newest = 1
    for what, ahead in steps:
        try:
            if what in ("deploy", "canary"):
                newest += ahead
                found = found.take(document(newest, 10 if what == "canary" else None), NOW)
            else:
                found = found.roll_back(NOW) if what == "rollback" else found.promote(NOW)
        except ConflictError:
            continue
        assert found.current is not None
        assert found.current <= found.routed == newest
        assert found.canary != found.current
        assert (found.canary is None) == (found.percent == 0)
        assert {found.current, found.canary} - {None} <= found.running(0, NOW + timedelta(days=1))


def test_the_previous_one_runs_for_as_long_as_it_is_kept_warm() -> None:
    swapped = endpoint(current=1).take(document(2), NOW)
    assert swapped.running(60, NOW + timedelta(seconds=59)) == {1, 2}
    assert swapped.running(60, NOW + timedelta(seconds=61)) == {2}
    assert swapped.model_copy(update={"wanted": 1}).running(60, NOW + timedelta(days=1)) == {1, 2}
    assert swapped.model_copy(update={"killed_at": NOW}).running(60, NOW) == set()


def test_names() -> None:
    name = endpoint_name("mnist", "0" * 32, [])
    assert name.startswith("serve-mnist-")
    assert len(name) == len("serve-mnist-ae6466")
    assert endpoint_name("mnist", "0" * 32, [name]) != name
    assert check_endpoint(endpoint_name("w" * 50, "0" * 32, [])) == endpoint_name("w" * 50, "0" * 32, [])
    for bad in ("", "A", "a b", "a/b", "-a", "a.b", "metrics", "a" * 64, "ä", "a\n"):
        with pytest.raises(InvalidNameError):
            check_endpoint(bad)


def test_a_models_files_come_beside_the_code_and_take_the_place_of_older_ones() -> None:
    code = tree(Dockerfile="FROM", model__serve="serve", model__model_dot_pkl="old")
    model = tree(model__model_dot_pkl="new", metrics__metrics_dot_json="{}")
    whole = beside(code, model)
    assert {entry.path for entry in whole.files} == {"Dockerfile", "model/serve", "model/model.pkl"}
    assert whole.file("model/model.pkl") == file("model/model.pkl", "new")
    assert beside(whole, model) == whole


def test_a_model_without_a_directory_of_that_name_comes_but_for_its_metrics() -> None:
    model = tree(weights__a="a", b="b", metrics__metrics_dot_json="{}")
    code = Tree.of([file("model/serve", "s"), EmptyDirectory("model/weights"), EmptyDirectory("model/x")])
    paths = [entry.path for entry in beside(code, model).entries]
    assert paths == ["model/b", "model/serve", "model/weights/a", "model/x"]


def test_sample_of() -> None:
    assert sample_of(tree(model__serve="s")) is None
    assert sample_of(tree(elsewhere__test_payload_dot_json="x")) is None
    for path in ("test_payload.json", "model/test_payload.jpg"):
        found = sample_of(Tree.of([file(path, "x")]))
        assert found is not None
        assert found.path == path


@pytest.fixture
def records() -> Endpoints:
    return Endpoints(Catalog(memory_store()).create_workspace("mnist", "ada"))


def test_deploys_at_once_get_numbers_of_their_own(records: Endpoints) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: records.reserve("e", f"{number:032x}", "ada"), range(40)))
    assert sorted(found.revisions for found in made) == list(range(1, 41))


def test_a_name_is_of_one_workspace_until_its_endpoint_is_killed(records: Endpoints) -> None:
    other = Endpoints(Catalog(records.store).create_workspace("other", "eve"))
    records.reserve("e", "0" * 32, "ada")
    with pytest.raises(AlreadyExistsError, match="of another workspace"):
        other.reserve("e", "1" * 32, "eve")
    assert [found.name for _, found in Names(records.store).endpoints()] == ["e"]
    records.kill("e", "ada")
    assert list(Names(records.store).endpoints()) == []
    assert other.reserve("e", "1" * 32, "eve").workspace == "other"
    with pytest.raises(UnknownNameError, match="It was killed"):
        records.alive("e")


def test_an_endpoint_that_is_deployed_again_goes_on_counting(records: Endpoints) -> None:
    records.add_revision(document(records.reserve("e", "0" * 32, "ada").revisions))
    records.change("e", lambda found: found.take(document(1), NOW))
    records.kill("e", "ada")
    again = records.reserve("e", "1" * 32, "ada")
    assert (again.revisions, again.current, again.killed_at) == (2, None, None)
    assert [change.what for change in records.changes("e")] == ["deploy", "kill"]


def test_an_endpoint_that_is_killed_while_it_is_deployed_anew_keeps_its_name(
    records: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.reserve("e", "0" * 32, "ada")
    delete = records.store.refs.delete

    def late(name: str) -> None:
        records.reserve("e", "1" * 32, "eve")
        delete(name)

    monkeypatch.setattr(records.store.refs, "delete", late)
    records.kill("e", "ada")
    assert [found.created_by for _, found in Names(records.store).endpoints()] == ["eve"]


def test_an_update_does_not_bring_a_killed_endpoint_back(records: Endpoints) -> None:
    records.reserve("e", "0" * 32, "ada")
    assert records.reserve("e", "1" * 32, "ada", update=True).revisions == 2
    records.kill("e", "ada")
    with pytest.raises(ConflictError, match="was killed meanwhile"):
        records.reserve("e", "2" * 32, "ada", update=True)
    assert Names(records.store).all() == []


def test_the_first_end_of_a_deploy_stays(records: Endpoints) -> None:
    assert records.end(document(1), reason="no model").reason == "no model"
    assert not records.end(document(1)).succeeded


def test_limits_are_checked() -> None:
    for wrong in (
        {"max_body": 0},
        {"timeout": 0},
        {"start_timeout": 4000},
        {"keep_warm": -1},
        {"keep_warm": 1e12},
    ):
        with pytest.raises(ValueError, match=r"greater|less"):
            Limits.model_validate(wrong)
    longest = Limits(keep_warm=1e9).keep_warm
    assert endpoint(current=2, previous=1, changed_at=NOW).running(longest, NOW) == {1, 2}


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_at_most_nine_percent_too_long(seconds: list[float], share: float) -> None:
    count = Count()
    for each in seconds:
        count.add(200, each)
    exact = sorted(seconds)[max(0, -(-len(seconds) * round(share * 100) // 100) - 1)]
    found = count.quantile(share)
    assert found is not None
    assert exact * 0.999 <= found <= exact * 1.0906


def test_counts_outlive_the_keeper_and_strange_lines_harm_nobody(tmp_path: Path) -> None:
    path = tmp_path / "traffic.json"
    traffic = Traffic(path)
    for line in ("e 1 200 12", "e 1 504 1000", "e - 401 0", "- - 404 0", "e 1", "e 1 200 x", ""):
        traffic.take(line)
    traffic.save()
    counts = Traffic(path).counts
    assert counts["e", "1"].statuses == {200: 1, 504: 1}
    assert counts["e", "1"].errors == 1
    assert counts["e", "-"].requests == 1
    assert len(counts) == 2
    path.write_text("{")
    assert read(path) == Snapshot()


@pytest.fixture
def hectic() -> Iterator[None]:
    """Let threads change all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hectic")
def test_counts_are_taken_shown_and_forgotten_at_once(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path / "traffic.json")
    end = time.monotonic() + 1

    def count() -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            traffic.take(f"e{number % 50} {number % 7} 200 {number % 100_000}")
            if number % 100 == 0:
                traffic.save()

    def forget() -> None:
        while time.monotonic() < end:
            traffic.forget({f"e{number}" for number in range(0, 50, 2)})

    def show() -> None:
        while time.monotonic() < end:
            traffic.prometheus()

    with ThreadPoolExecutor(3) as pool:
        for job in [pool.submit(count), pool.submit(forget), pool.submit(show)]:
            job.result()


def test_counts_that_could_not_be_kept_are_kept_later(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path / "gone" / "traffic.json")
    traffic.take("e 1 200 12")
    with pytest.raises(FileNotFoundError):
        traffic.save()
    (tmp_path / "gone").mkdir()
    traffic.save()
    assert Traffic(traffic.file).counts["e", "1"].requests == 1


def test_prometheus_text() -> None:
    traffic = Count()
    for seconds in (0.002, 0.02, 2.0):
        traffic.add(200, seconds)
    text = prometheus(Snapshot(entries=[Entry(endpoint="e", revision="1", count=traffic)]))
    assert 'kaos_requests_total{endpoint="e",revision="1",status="200"} 3' in text
    assert 'kaos_request_seconds_bucket{endpoint="e",revision="1",le="0.05"} 2' in text
    assert 'kaos_request_seconds_bucket{endpoint="e",revision="1",le="+Inf"} 3' in text
    assert 'kaos_request_seconds_sum{endpoint="e",revision="1"} 2.022000' in text
