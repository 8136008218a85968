from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html import unescape
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from histories import LOCK, History
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaos.collect import Order, collect
from kaos.digest import digest_bytes
from kaos.errors import InvalidInputError, RemovedError, UnknownNameError
from kaos.graph import Graph
from kaos.lock import packages
from kaos.model import ModelRecord
from kaos.models import Models
from kaos.provenance import Lineage, nodes
from kaos.provenance.answers import Asked, answer
from kaos.provenance.cache import Cache
from kaos.provenance.difference import difference
from kaos.provenance.lineage import Memory, of_endpoint
from kaos.provenance.refs import Finder, Found
from kaos.provenance.sketch import sketch
from kaos.render import dot
from kaos.retention import RetentionPolicy
from kaos.schema.lineage import LineageAnswer
from kaos.serving.records import Endpoints
from kaos.store import open_file_store

CODE = {"model/train": b"#!/bin/sh\n", "Dockerfile": b"FROM python:3.11\n"}
DATA = {"training/a.csv": b"1,2\n", "test/b.csv": b"3,4\n"}


def read(history: History, memory: Memory | None = None) -> Graph:
    found = Lineage(history.workspace, memory).read()
    assert not found.damaged
    return found.graph


def find(history: History, ref: str) -> Found:
    found = Finder(history.workspace, read(history), {}).find(ref)
    assert found is not None
    return found


def ask(ref: str, *histories: History, upstream: bool = False, limit: int | None = None) -> LineageAnswer:
    memory = Memory()
    asked = [Asked(each.workspace, Lineage(each.workspace, memory).read(), memory) for each in histories]
    return answer(asked, ref, upstream=upstream, limit=limit)


def kinds(graph: Graph) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        found.setdefault(node.kind, []).append(node.label)
    return found


def model_node(model_id: str) -> str:
    return f"model:mnist/{model_id}"


@pytest.fixture
def history() -> History:
    return History()


def test_everything_that_made_a_model_is_upstream_of_it(history: History) -> None:
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    job_id, (model_id,) = history.train(source, data, trials=[{"degree": 3}])
    graph = read(history).upstream([model_node(model_id)])
    assert kinds(graph) == {
        "source": [f"/mnist:{source.digest[:5]}"],
        "data": [f"/features:{data.digest[:5]}"],
        "hyperparams": ["params.json"],
        "job": [job_id[:12]],
        "image": [f"environment {digest_bytes(LOCK.encode())[:12]}"],
        "model": [model_id],
    }
    [job] = graph.where(lambda node: node.kind == "job")
    assert job.attributes == {
        "job_id": job_id,
        "by": "ada",
        "submitted": "2026-11-21 10:24:50 UTC",
        "state": "JOB_SUCCESS",
        "seconds": 20.0,
        "runtime": "process",
        "resources": "1 CPU, 512Mi",
        "definition": "train",
        "dag": "kaos.mnist.train",
        "run": job_id,
        "kaos": "0.1.0",
        "dag_version": digest_bytes(b"dags"),
        "airflow": "3.3.2",
    }
    [image] = graph.where(lambda node: node.kind == "image")
    assert image.attributes["packages"] == 2
    assert image.attributes["lock"] == digest_bytes(LOCK.encode())
    model = graph.by_id[model_node(model_id)]
    assert model.attributes["params"] == {"degree": 3}
    assert model.attributes["metrics"] == {"accuracy": 0.5}


def test_a_manifest_is_drawn_with_what_it_gave_and_only_where_it_gave_it(history: History) -> None:
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    manifest = history.manifest({"https://example.org/a.csv": "training/a.csv"})
    _, (downloaded,) = history.train(source, data, manifest=manifest)
    _, (given_,) = history.train(source, data, outputs=[b"of the same data, from a directory"])
    graph = read(history)
    assert kinds(graph.upstream([model_node(downloaded)]))["manifest"] == [f"/features:{manifest.digest[:5]}"]
    assert "manifest" not in kinds(graph.upstream([model_node(given_)]))
    roles = {edge.role for edge in graph.upstream([model_node(downloaded)]).edges}
    assert {"downloaded", "data", "code", "built", "environment", "trained"} == roles


def test_who_shares_an_environment_shares_nothing_else(history: History) -> None:
    data = history.bundle("data", DATA, "features")
    one, two = history.bundle("source", CODE), history.bundle("source", {**CODE, "model/x": b"x"})
    _, (first,) = history.train(one, data, outputs=[b"1"])
    _, (second,) = history.train(two, data, outputs=[b"2"])
    came = read(history).downstream([f"source:mnist/{one.digest}"])
    assert kinds(came)["model"] == [first]
    assert second not in kinds(came)["model"]


def test_a_model_that_was_taken_over_comes_from_the_job_that_made_it(history: History) -> None:
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    maker, _ = history.train(source, data, outputs=[b"m"])
    _, (model_id,) = history.train(source, data, outputs=[b"m"], trials=[{"a": 1}], reused_from=maker)
    into = [edge for edge in read(history).edges if edge.target == model_node(model_id)]
    assert sorted((edge.role, edge.detail) for edge in into) == [
        ("took over", "trial 0"),
        ("trained", "trial 0"),
    ]


def test_an_endpoint_is_drawn_with_the_revisions_that_have_its_traffic(history: History) -> None:
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    code = history.bundle("source", {"model/serve": b"#!/bin/sh\n"}, "server")
    _, (old,) = history.train(source, data, outputs=[b"old"])
    _, (new,) = history.train(source, data, outputs=[b"new"])
    history.serve("digits", code, old)
    history.serve("digits", code, new)
    history.serve("digits", code, old, live=False)
    graph = read(history)
    assert kinds(of_endpoint(graph, "digits"))["model"] == [new]
    assert kinds(of_endpoint(graph, "digits"))["revision"] == ["digits@2"]
    whole = kinds(of_endpoint(graph, "digits", everything=True))
    assert sorted(whole["model"]) == sorted([old, new])
    assert whole["revision"] == ["digits@1", "digits@2", "digits@3"]
    assert {edge.role for edge in graph.edges if edge.target == "endpoint:mnist/digits"} == {
        "served",
        "serves",
    }
    Endpoints(history.workspace).kill("digits", "ada")
    assert kinds(of_endpoint(read(history), "digits"))["revision"] == ["digits@3"]


def test_a_decision_leads_from_the_model_to_the_revision_that_came_of_it(history: History) -> None:
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    code = history.bundle("source", {"model/serve": b"#!/bin/sh\n"}, "server")
    _, (old,) = history.train(source, data, outputs=[b"old"])
    history.serve("digits", code, old)
    job_id, (new,) = history.train(source, data, outputs=[b"new"])
    digest = history.decide(job_id, new, "digits", serving=old)
    history.serve("digits", code, new, decision=digest)
    graph = read(history)
    upstream = kinds(of_endpoint(graph, "digits"))
    assert (upstream["decision"], upstream["model"]) == (["promoted"], [new])
    assert "decision" not in kinds(graph.downstream([model_node(old)]))
    [node] = graph.where(lambda each: each.kind == "decision")
    assert node.attributes["condition"] == "accuracy > current"
    assert node.attributes["serving"] == old
    assert "accuracy &gt; current" in dot.source(graph)


def test_everything_can_be_asked_about(history: History) -> None:
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    manifest = history.manifest({"https://example.org/a.csv": "training/a.csv"})
    job_id, (model_id,) = history.train(source, data, manifest=manifest, trials=[{"a": 1}])
    Models(history.workspace).move_tag("production", model_id, "ada")
    code = history.bundle("source", {"model/serve": b"#!/bin/sh\n"}, "server")
    history.serve("digits", code, model_id)
    downloaded = f"data:mnist/{data.digest}@{manifest.digest}"
    file = digest_bytes(DATA["training/a.csv"])
    asked = {
        model_id: model_node(model_id),
        "production": "tag:mnist/production",
        "digits": "endpoint:mnist/digits",
        "digits@1": "revision:mnist/digits/000001",
        job_id: f"job:mnist/{job_id}",
        job_id[:20]: f"job:mnist/{job_id}",
        f"/features:{data.digest[:5]}": downloaded,
        data.digest: downloaded,
        data.digest[:7]: downloaded,
        f"/features:{data.digest[:9]}/training/a.csv": downloaded,
        file: downloaded,
        file[:10]: downloaded,
        "https://example.org/a.csv": f"manifest:mnist/{manifest.digest}",
        manifest.digest: f"manifest:mnist/{manifest.digest}",
        f"/features:{manifest.digest[:6]}": f"manifest:mnist/{manifest.digest}",
    }
    for ref, node in asked.items():
        assert find(history, ref).nodes == (node,), ref
    lock = digest_bytes(LOCK.encode())
    assert len(find(history, lock).nodes) == 2  # the environments of the job and of the endpoint
    # A file of the model is in the model, and in the bundle that is served.
    tree = history.workspace.tree(Models(history.workspace).pin(model_id).digest)
    places = find(history, next(tree.files).digest).files
    assert {(place.node.partition(":")[0], place.path) for place in places} == {
        ("model", "model/model.pkl"),
        ("source", "model/model.pkl"),
    }


@pytest.mark.parametrize(
    "ref", ["nothing", "ffffffffff", "/mnist:fffff", "https://example.org/no", "..", "/", "sha256:", "🙂"]
)
def test_what_is_not_there_is_named_with_what_can_be_asked(history: History, ref: str) -> None:
    history.train(history.bundle("source", CODE), history.bundle("data", DATA, "features"))
    with pytest.raises(
        UnknownNameError, match=r"Ask about a file .*, bundle, manifest, URL, image, job"
    ) as error:
        ask(ref, history)
    assert repr(ref) in error.value.message


def test_a_name_that_a_tag_and_an_endpoint_have_means_both(history: History) -> None:
    source = history.bundle("source", {**CODE, "model/serve": b"#!/bin/sh\n"})
    _, (one, other) = history.train(
        source, history.bundle("data", DATA, "features"), trials=[{"a": 1}, {"a": 2}]
    )
    history.serve("production", source, one)
    Models(history.workspace).move_tag("production", other, "ada")
    answer = ask("production", history, upstream=True)
    assert answer.what == "tag production and endpoint production"
    assert {row.name for row in answer.rows if row.kind == "model"} == {one, other}


def test_the_lineage_of_what_was_removed_answers(history: History) -> None:
    url = "https://example.org/a.csv"
    source, manifest = history.bundle("source", CODE), history.manifest({url: "training/a.csv"})
    data, other = history.bundle("data", DATA, "features"), history.bundle("data", {"x": b"1"}, "features")
    other_manifest = history.manifest({"https://example.org/x": "x"})
    _, (old,) = history.train(source, data, manifest=manifest, lock="numpy==1.0\n")
    _, (new,) = history.train(source, other, manifest=other_manifest)
    before = difference(history.workspace, old, new)
    order = Order({"mnist": RetentionPolicy(keep_last=1)}, "ada", lambda *_: False, timedelta(0), 5.0)
    assert [each.model_id for each in collect(history.store, order).workspaces[0].models] == [old]
    # Of the removed model all but what its files, data and packages were.
    assert Models(history.workspace).named(old) == old
    answer = ask(old, history, upstream=True)
    assert set(answer.counts) == {"manifest", "source", "data", "image", "job"}
    found = difference(history.workspace, old, new)
    assert found.same == before.same
    rows = {(each.of, each.what): (each.one, each.other) for each in found.differences}
    assert rows["data", "digest"] == (data.digest[:12], other.digest[:12])
    assert {part for part, what in rows if what == "digest"} == {"data", "packages", "model"}
    # What nobody knows any more is said, and in the way of nothing else.
    assert ask("https://example.org/x", history).counts["model"] == 1
    with pytest.raises(RemovedError, match=r"list of files of /features:\w+ was removed by retention on"):
        ask(f"/features:{data.digest[:9]}/training/a.csv", history)
    for ref in (url, digest_bytes(DATA["training/a.csv"])):
        with pytest.raises(UnknownNameError) as error:
            ask(ref, history)
        assert "retention has removed nobody knows" in error.value.next_step


def test_a_file_that_is_not_in_the_bundle_is_named(history: History) -> None:
    data = history.bundle("data", DATA, "features")
    with pytest.raises(UnknownNameError, match=r"no file in /features:\w+ 'training/A.csv'") as error:
        find(history, f"/features:{data.digest[:5]}/training/A.csv")
    assert "training/a.csv" in error.value.next_step
    manifest = history.manifest({"https://example.org/a.csv": "training/a.csv"})
    history.train(history.bundle("source", CODE), data, manifest=manifest)
    with pytest.raises(UnknownNameError, match=r"no file in /features:\w+ 'training/a.csv'") as error:
        find(history, f"/features:{manifest.digest[:9]}/training/a.csv")
    assert "ask about a URL" in error.value.next_step


def test_a_beginning_of_several_is_refused(history: History) -> None:
    pins = [history.bundle("data", {"f": str(number).encode()}, "d") for number in range(600)]
    beginnings = [pin.digest[:5] for pin in pins]
    # Bundles whose first five characters are the same are told apart by more of them.
    labels = [node.label for node in read(history).nodes]
    assert len(set(labels)) == len(labels) == 600
    twins = [one for one in beginnings if beginnings.count(one) > 1]
    job = history.job(history.bundle("source", CODE), pins[0])
    other = history.job(history.bundle("source", CODE), pins[0])
    same = [one == two for one, two in zip(job.job_id, other.job_id, strict=True)]
    shared = job.job_id[: same.index(False)]
    with pytest.raises(InvalidInputError, match="may mean job"):
        find(history, shared)
    for twin in twins[:1]:
        with pytest.raises(InvalidInputError, match="may mean data"):
            find(history, twin)


def test_a_damaged_record_is_named_and_the_others_are_drawn(history: History, tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "store")
    kept = History(store)
    source, data = kept.bundle("source", CODE), kept.bundle("data", DATA, "features")
    _, (good,) = kept.train(source, data, outputs=[b"good"])
    _, (bad,) = kept.train(source, data, outputs=[b"bad"])
    [name] = store.refs.names(f"workspaces/mnist/models/{bad}")
    ref = store.refs.get(name)
    assert ref is not None
    record = next((tmp_path / "store" / "objects").glob(f"*/{ref.value.decode()}"))
    record.chmod(0o644)
    record.write_bytes(b"{}")
    found = Lineage(kept.workspace).read()
    assert [line.partition(":")[0] for line in found.damaged] == [name.partition(":")[0]]
    assert good in kinds(found.graph)["model"]
    assert bad not in kinds(found.graph)["model"]


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["train", "grid", "serve", "tag", "kill", "read"]), max_size=12))
def test_what_is_remembered_says_what_the_records_say(steps: list[str]) -> None:
    history, memory = History(), Memory()
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    code = history.bundle("source", {"model/serve": b"#!/bin/sh\n"}, "server")
    models: list[str] = []
    for step in steps:
        if step == "train":
            models += history.train(source, data, outputs=[str(len(models) % 3).encode()])[1]
        elif step == "grid":
            models += history.train(source, data, trials=[{"a": 1}, {"a": 2}])[1]
        elif step == "serve" and models:
            history.serve("digits", code, models[-1])
        elif step == "tag" and models:
            Models(history.workspace).move_tag("production", models[len(models) // 2], "ada")
        elif step == "kill" and Endpoints(history.workspace).find("digits") is not None:
            Endpoints(history.workspace).kill("digits", "ada")
        assert read(history, memory) == read(history)
    assert {edge.source for edge in read(history).edges} <= read(history).by_id.keys()


def test_a_bundle_that_is_deployed_by_another_name_has_that_name(history: History) -> None:
    memory = Memory()
    pin = history.bundle("data", DATA, "features")
    assert kinds(read(history, memory))["data"] == [f"/features:{pin.digest[:5]}"]
    history.bundle("data", DATA, "digits")
    assert kinds(read(history, memory))["data"] == [f"/digits:{pin.digest[:5]}"]


_FLOATS = st.floats() | st.sampled_from([1e400, -0.0, 5e-324])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100)
@given(
    params=st.dictionaries(st.text(), _JSON, max_size=4),
    metrics=st.dictionaries(st.text(), _JSON, max_size=4),
    moment=st.datetimes(max_value=datetime(9000, 1, 1), timezones=st.just(UTC)),
    seconds=st.floats(0, 1e6),
    reused_from=st.none() | st.just("0" * 32),
)
def test_a_sketch_says_what_the_record_says(
    params: dict[str, Any], metrics: dict[str, Any], moment: datetime, seconds: float, reused_from: str | None
) -> None:
    history = History()
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    _, (model_id,) = history.train(source, data, trials=[{}])
    base = history.workspace.model_record(model_id)
    run = base.run.model_copy(
        update={
            "started_at": moment,
            "ended_at": moment + timedelta(seconds=seconds),
            "reused_from": reused_from,
        }
    )
    trial = base.trial.model_copy(update={"params": params})
    copied = base.model_copy(
        update={"trial": trial, "run": run, "metrics": metrics, "created_at": moment, "size": 1 << 40}
    )
    content = copied.encode()
    record, known = ModelRecord.parse(content), sketch(content)
    maker = nodes.maker(record.job, record.build, record.airflow, 2)
    # JSON has neither NaN nor infinities: only the whole record understands such a one.
    strict = "NaN" not in content.decode() and "Infinity" not in content.decode()
    assert (known is not None) or not strict
    if known is not None:
        assert repr(nodes.model(known, record.job, maker)) == repr(nodes.model(record, record.job, maker))
        assert known.made_by == tuple(each.encode() for each in (record.job, record.build, record.airflow))


def test_a_metric_that_is_no_number_is_in_the_graph(history: History) -> None:
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    _, (model_id,) = history.train(source, data, metrics={"loss": float("nan"), "best": float("inf"), "a": 1})
    model = read(history).by_id[model_node(model_id)]
    assert model.attributes["metrics"] == {"loss": "nan", "best": "inf", "a": 1.0}


# -- kept over restarts --------------------------------------------------------------------------------------


@pytest.fixture
def kept(history: History, tmp_path: Path) -> Cache:
    """Return the cache of a workspace with models and an endpoint, once it was asked about."""
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    _, models = history.train(source, data, trials=[{"a": 1.5, "b": "ä\n"}, {"a": None, "b": [1, {}]}])
    history.serve("digits", history.bundle("source", {"model/serve": b"#!/bin/sh\n"}, "server"), models[0])
    cache = Cache(tmp_path / "lineage", "a store and its workspace")
    memory = Memory(cache)
    read(history, memory)
    memory.keep()
    assert cache.parts() == memory.parts != {}
    return cache


def test_a_restart_reads_only_the_names_of_what_never_changes(
    history: History, kept: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read(history)

    def refused(digest: str) -> bytes:
        raise AssertionError(f"{digest} was read again")

    monkeypatch.setattr(history.store.objects, "get", refused)
    # Of an endpoint everything is read each time, but not the objects that it names.
    assert read(history, Memory(kept)) == expected


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_never_changes_an_answer(history: History, kept: Cache, data: st.DataObject) -> None:
    whole = kept.path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                whole[:place],
                whole[place:],
                whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
                whole + b"\n",
                whole * 2,
            ]
        )
    )
    try:
        kept.path.write_bytes(damaged)
        assert kept.parts() == ({} if damaged != whole else kept.parts())
        assert read(history, Memory(kept)) == read(history)
    finally:
        kept.path.write_bytes(whole)


def test_a_file_of_another_store_or_another_version_is_not_believed(
    kept: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Cache(tmp_path / "lineage", "another store and its workspace")
    assert other.path != kept.path
    kept.path.rename(other.path)
    assert other.parts() == {}
    other.path.rename(kept.path)
    assert kept.parts() != {}
    monkeypatch.setattr("kaos.provenance.cache.__version__", "0.0.0")
    assert Cache(tmp_path / "lineage", "a store and its workspace").parts() == {}


def test_what_cannot_be_written_is_read_again(history: History, kept: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = Memory(Cache(tmp_path / "file", "a store and its workspace"))
    assert read(history, memory) == read(history)
    memory.keep()
    assert [each.name for each in kept.path.parent.iterdir()] == [kept.path.name]  # nothing half written


def test_a_little_that_is_new_is_not_worth_a_file(history: History, kept: Cache) -> None:
    memory = Memory(kept)

    def deploy(numbers: range) -> bytes:
        for number in numbers:
            history.bundle("data", {"f": str(number).encode()}, "new")
        assert kinds(read(history, memory)) == kinds(read(history))
        memory.keep()
        return kept.path.read_bytes()

    before = deploy(range(20))
    assert kept.parts() == memory.parts
    assert deploy(range(20, 21)) == before
    assert deploy(range(21, 30)) != before
    assert kept.parts() == memory.parts


# -- several workspaces at once ------------------------------------------------------------------------------


@pytest.fixture
def teams(history: History) -> tuple[History, History]:
    """Return two workspaces that trained on the same data; the second serves what came of it."""
    other = History(history.store, "faces")
    for each in (history, other):
        data = each.bundle("data", DATA, "features")
        _, (model_id,) = each.train(each.bundle("source", CODE), data, outputs=[each.name.encode()])
        Models(each.workspace).move_tag("production", model_id, "ada")
    code = other.bundle("source", {"model/serve": b"#!/bin/sh\n"}, "server")
    other.serve("smiles", code, "production")
    return history, other


def test_a_file_is_found_in_all_workspaces(teams: tuple[History, History]) -> None:
    file = digest_bytes(DATA["training/a.csv"])
    found = ask(file, *teams)
    assert [(row.workspace, row.name) for row in found.rows if row.live] == [("faces", "smiles")]
    assert found.rows[0].kind == "endpoint"
    assert found.counts["model"] == found.counts["tag"] == 2
    assert [row.workspace for row in found.rows if row.kind == "model"] == ["mnist", "faces"]
    assert [(each.workspace, each.path) for each in found.files] == [
        ("mnist", "training/a.csv"),
        ("faces", "training/a.csv"),
    ]
    for each in teams:
        alone = ask(file, each)
        assert alone.rows == [row for row in found.rows if row.workspace == each.name]
        assert alone.what == found.what
    few = ask(file, *teams, limit=1)
    assert (len(few.rows), len(few.files), few.counts) == (1, 1, found.counts)


def test_a_name_means_in_each_workspace_what_has_it_there(teams: tuple[History, History]) -> None:
    found = ask("production", *teams, upstream=True)
    assert found.what == "tag production"
    assert [(row.workspace, row.kind) for row in found.found] == [("mnist", "tag"), ("faces", "tag")]
    only = ask("smiles", *teams, upstream=True)
    assert only.rows == ask("smiles", teams[1], upstream=True).rows
    assert {row.workspace for row in only.rows} == {"faces"}


def test_what_no_workspace_knows_is_unknown(teams: tuple[History, History]) -> None:
    with pytest.raises(UnknownNameError, match="smiles or") as error:
        ask("smile", *teams)
    assert "There is no lineage of 'smile'" in error.value.message
    with pytest.raises(UnknownNameError, match="no file in /features"):
        ask(f"/features:{teams[0].bundle('data', DATA, 'features').digest[:5]}/no.csv", *teams)
    with pytest.raises(UnknownNameError, match="lineage of"):
        ask("smiles")


def test_a_beginning_means_one_thing_in_all_workspaces(history: History) -> None:
    other = History(history.store, "faces")
    seen: dict[str, dict[str, bytes]] = {}
    for number in count():
        files = {"f": str(number).encode()}
        beginning = history.tree(files).digest[:5]
        if beginning in seen:
            break
        seen[beginning] = files
    mine = history.bundle("data", seen[beginning], "d")
    theirs = other.bundle("data", files, "d")
    with pytest.raises(InvalidInputError, match=rf"may mean data /d:{beginning} \({mine.digest[:12]}"):
        ask(beginning, history, other)
    assert [row.workspace for row in ask(theirs.digest[:20], history, other).found] == ["faces"]
    history.bundle("data", files, "d")
    assert [row.workspace for row in ask(theirs.digest[:20], history, other).found] == ["mnist", "faces"]


def test_two_models_differ_down_to_files_parameters_and_packages(history: History) -> None:
    one, two = (
        history.bundle("source", CODE),
        history.bundle("source", {**CODE, "model/train": b"#!/bin/bash\n"}),
    )
    data = history.bundle("data", DATA, "features")
    less = history.bundle("data", {"training/a.csv": b"1,2\n", "new.csv": b""}, "features")
    _, (first,) = history.train(one, data, trials=[{"degree": 3, "kernel": "rbf"}])
    lock = "Numpy==2.2.0\nscikit_learn==1.5.2\npandas==2.0\n"
    measured = {"accuracy": 0.75, "report": {"0": {"recall": float("nan")}}}
    _, (second,) = history.train(
        two, less, trials=[{"degree": 4, "kernel": "rbf"}], lock=lock, metrics=measured
    )
    Models(history.workspace).move_tag("best", second, "ada")
    found = difference(history.workspace, first, "best")
    assert (found.one, found.other) == (first, second)
    rows = {(each.of, each.what): (each.one, each.other) for each in found.differences}
    assert rows.pop(("source", "model/train")) == (
        f"{digest_bytes(b'#!/bin/sh' + chr(10).encode())[:12]} 10 bytes",
        f"{digest_bytes(b'#!/bin/bash' + chr(10).encode())[:12]} 12 bytes",
    )
    assert rows.pop(("data", "new.csv"))[0] is None
    assert rows.pop(("data", "test/b.csv"))[1] is None
    assert rows.pop(("hyperparams", "degree")) == ("3", "4")
    assert rows.pop(("packages", "numpy")) == ("2.1.0", "2.2.0")
    assert rows.pop(("packages", "pandas")) == (None, "2.0")
    assert rows.pop(("metrics", "accuracy")) == ("0.5", "0.75")
    assert rows.pop(("metrics", "report.0.recall")) == (None, "NaN")
    assert [key[0] for key in rows] == ["model"]
    assert found.same == ["run"]
    assert difference(history.workspace, first, first).differences == []


def test_an_imported_model_has_nothing_to_compare(history: History) -> None:
    tree = history.tree({"weights": b"w"})
    history.workspace.commit_bundle("data", "resnet", tree, "ada")
    imported = Models(history.workspace).add_import("resnet", tree, "ada").model_id
    _, (model_id,) = history.train(history.bundle("source", CODE), history.bundle("data", DATA, "features"))
    assert read(history).by_id[model_node(imported)].attributes["imported_by"] == "ada"
    with pytest.raises(InvalidInputError, match=f"{imported} was imported"):
        difference(history.workspace, model_id, imported)


def test_packages_of_a_lock() -> None:
    lock = "# by uv\n--index-url x\nZope.Interface[test]==5.0 ; python_version < '4' \\\n  --hash=x\nb @ https://x/b.whl\n"
    assert packages(lock) == {"zope-interface": "5.0", "b": "https://x/b.whl"}


# -- pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "begins"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_picture_has_its_letters_on_a_machine_without_fonts(
    history: History, wanted: str, begins: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Where fontconfig looks there is nothing: the picture brings its font.
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("FONTCONFIG_PATH", str(tmp_path))
    _, (model_id,) = history.train(history.bundle("source", CODE), history.bundle("data", DATA, "features"))
    drawn = dot.draw(read(history), wanted, [model_node(model_id)])
    assert drawn.startswith(begins)
    if wanted == "pdf":
        assert b"SourceSansPro" in drawn
    if wanted == "svg":
        assert model_id.encode() in drawn


def test_names_of_any_kind_can_be_drawn(history: History) -> None:
    hostile = '<B>&"\\N\\l}{|ä\u202e'
    source = history.bundle("source", CODE, hostile.replace("\\", ""))
    _, (model_id,) = history.train(
        source, history.bundle("data", DATA, "&amp;"), trials=[{hostile: hostile}], metrics={hostile: 1.0}
    )
    drawn = dot.draw(read(history), "svg").decode()
    assert '<B>&"\\N\\l}{|ä� = <B>' in unescape(drawn)
    assert model_id in drawn


def test_a_long_reason_is_folded(history: History) -> None:
    _, (model_id,) = history.train(history.bundle("source", CODE), history.bundle("data", DATA, "features"))
    why = " ".join(f"reason{number}" for number in range(20))
    Models(history.workspace).move_tag("best", model_id, "ada", f"{why}\n{'x' * 100} {'and so on ' * 50}")
    drawn = dot.source(read(history))
    assert all(f"reason{number}" in drawn for number in range(20))
    rows = re.findall(r'POINT-SIZE="10"[^>]*>([^<]*)<', drawn)
    assert max(map(len, rows)) <= 60
    assert sum("and so on" in row for row in rows) == 1


@pytest.mark.parametrize("count", [1, 2, 200])
def test_a_grid_stays_readable(history: History, count: int) -> None:
    source, data = history.bundle("source", CODE), history.bundle("data", DATA, "features")
    _, models = history.train(source, data, trials=[{"degree": number} for number in range(count)])
    text = dot.source(read(history))
    assert all(model_id in text for model_id in models)
    boxes = len(re.findall(r"^\tn\d+ \[", text, re.MULTILINE))
    assert boxes == (5 + count if count <= 8 else 6)  # source, data, hyperparameters, job, environment
    width, height = _size(dot.draw(read(history), "svg"))
    assert width < 2400
    assert height < 1800


def test_a_picture_too_large_to_be_read_is_refused(history: History) -> None:
    for number in range(3001):
        history.bundle("data", {"f": str(number).encode()})
    with pytest.raises(InvalidInputError, match="3001 boxes"):
        dot.draw(read(history), "svg")


def test_the_same_graph_gives_the_same_bytes(history: History) -> None:
    history.train(history.bundle("source", CODE), history.bundle("data", DATA, "features"))
    for wanted in ("svg", "png", "dot"):
        assert dot.draw(read(history), wanted) == dot.draw(read(history), wanted)


def test_lines_of_the_core_need_no_graphviz() -> None:
    names = "kaos.provenance, kaos_cli.commands.lineage, kaos_cli.commands.provenance"
    code = f"import sys; import {names}; sys.exit('graphviz' in sys.modules or 'pygraphviz' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def _size(svg: bytes) -> tuple[float, float]:
    match = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert match is not None
    return float(match[1]), float(match[2])
