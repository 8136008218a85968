from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.bundle import File, Tree
from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.digest import digest_bytes
from kaos.errors import AlreadyExistsError, InvalidInputError, InvalidNameError, UnknownNameError
from kaos.job import (
    MAPPED,
    BundlePin,
    Definition,
    Inputs,
    JobDocument,
    JobOutcome,
    JobState,
    ParametersPin,
    Trial,
    batches,
    new_job_id,
    trials,
)
from kaos.lineage import AirflowRun, BuildRecord, TrialRecord
from kaos.model import ModelRecord, model_id, read_metrics, score, sort_key
from kaos.parameters import parse
from kaos.resources import Resources
from kaos.schema.bundle import BundleKind
from kaos.store import memory_store

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def workspace() -> WorkspaceCatalog:
    return Catalog(memory_store()).create_workspace("mnist", "ada")


def commit(workspace: WorkspaceCatalog, kind: BundleKind, content: bytes, name: str = "b") -> BundlePin:
    tree = Tree.of([File("file", len(content), workspace.store.objects.put(content))])
    return workspace.commit_bundle(kind, name, tree, "ada").pin


def document(workspace: WorkspaceCatalog, job_id: str | None = None) -> JobDocument:
    job_id = job_id or new_job_id()
    return JobDocument(
        job_id=job_id,
        workspace="mnist",
        definition="train",
        dag_id="kaos.mnist.train",
        run_id=job_id,
        source=commit(workspace, "source", b"code"),
        data=commit(workspace, "data", b"data"),
        resources=Resources(),
        runtime="process",
        author="ada",
        submitted_at=NOW,
        kaos_version="0",
    )


def model(workspace: WorkspaceCatalog, job: JobDocument, content: bytes) -> ModelRecord:
    tree = Tree.of([File("m", len(content), workspace.store.objects.put(content))])
    workspace.store.objects.put(tree.encoded)
    return ModelRecord(
        model_id=workspace.next_model_ids(job, [tree.digest])[tree.digest],
        digest=tree.digest,
        files=1,
        size=len(content),
        job=job,
        job_digest="0" * 64,
        trial=Trial(index=0, name="train"),
        build=BuildRecord(
            runtime="process",
            environment="e",
            python="3.11",
            lock="l",
            log="g",
            reused=False,
            seconds=0,
            variables={},
        ),
        run=TrialRecord(
            index=0,
            name="train",
            succeeded=True,
            reason="",
            exit_code=0,
            model=tree.digest,
            log="g",
            limits="",
            started_at=NOW,
            ended_at=NOW,
        ),
        airflow=AirflowRun(
            dag_id="d",
            run_id="r",
            task_id="t",
            map_index=0,
            try_number=1,
            bundle_version=None,
            airflow_version="3",
        ),
        metrics={"accuracy": 0.5},
        created_at=NOW,
    )


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "../a", "a/b", "-a", "a-", "a" * 51, "a\n", "ä", "{{a}}", "a'"]
)
def test_hostile_workspace_names_are_refused(name: str) -> None:
    catalog = Catalog(memory_store())
    with pytest.raises(InvalidNameError):
        catalog.create_workspace(name, "ada")
    with pytest.raises(InvalidNameError):
        catalog.workspace(name)
    assert catalog.workspaces() == []


def test_unknown_workspace_is_suggested() -> None:
    catalog = Catalog(memory_store())
    catalog.create_workspace("mnist", "ada")
    with pytest.raises(UnknownNameError, match="Did you mean mnist"):
        catalog.workspace("mnits")
    with pytest.raises(AlreadyExistsError):
        catalog.create_workspace("mnist", "bob")


def test_bundle_keeps_its_first_author_and_takes_the_newest_name(workspace: WorkspaceCatalog) -> None:
    first = commit(workspace, "data", b"x", "features")
    tree = workspace.tree(first.digest)
    again = workspace.commit_bundle("data", "other", tree, "bob").pin
    assert (again.digest, again.author, again.name) == (first.digest, "ada", "other")
    assert workspace.shown(again) == f"/other:{first.digest[:5]}"


def test_bundle_with_missing_objects_is_not_committed(workspace: WorkspaceCatalog) -> None:
    tree = Tree.of([File("a", 1, digest_bytes(b"?"))])
    with pytest.raises(InvalidInputError, match="have not arrived"):
        workspace.commit_bundle("data", "b", tree, "ada")
    assert workspace.bundle("data", tree.digest) is None
    with pytest.raises(UnknownNameError):
        workspace.tree(tree.digest)


def test_another_workspace_does_not_see_the_tree(workspace: WorkspaceCatalog) -> None:
    digest = commit(workspace, "data", b"secret").digest
    other = Catalog(workspace.store).create_workspace("other", "eve")
    with pytest.raises(UnknownNameError):
        other.tree(digest)


def test_deploys_at_the_same_time_never_mix(workspace: WorkspaceCatalog) -> None:
    def deploy(number: int) -> tuple[int, Inputs]:
        source = commit(workspace, "source", f"code {number}".encode())
        data = commit(workspace, "data", f"data {number}".encode())
        return number, workspace.merge_inputs(Inputs(source=source, data=data))

    with ThreadPoolExecutor(8) as pool:
        for number, inputs in pool.map(deploy, range(40)):
            assert inputs.source is not None
            assert inputs.data is not None
            assert workspace.store.objects.get(workspace.tree(inputs.source.digest).file("file").digest) == (
                f"code {number}".encode()
            )
            assert workspace.store.objects.get(workspace.tree(inputs.data.digest).file("file").digest) == (
                f"data {number}".encode()
            )


def test_inputs_that_are_left_out_stay(workspace: WorkspaceCatalog) -> None:
    source, data = commit(workspace, "source", b"1"), commit(workspace, "data", b"2")
    assert workspace.merge_inputs(Inputs(source=source)).lacking == ["data"]
    assert workspace.merge_inputs(Inputs(data=data)) == Inputs(source=source, data=data)
    newer = commit(workspace, "data", b"3")
    assert workspace.merge_inputs(Inputs(data=newer)) == Inputs(source=source, data=newer)


def test_job_is_found_by_the_beginning_of_its_id(workspace: WorkspaceCatalog) -> None:
    job = document(workspace)
    digest = workspace.add_job(job)
    assert workspace.job(job.job_id) == (job, digest)
    assert workspace.job(job.job_id[:12]) == (job, digest)
    for wrong in ("f" * 32, "ffff", "", "../../x"):
        with pytest.raises((UnknownNameError, InvalidInputError)):
            workspace.job(wrong)
    workspace.add_job(document(workspace, job.job_id[:12] + "0" * 20))
    with pytest.raises(UnknownNameError):
        workspace.job(job.job_id[:12])


def test_job_ids_sort_by_time() -> None:
    ids = [new_job_id() for _ in range(2)]
    assert all(len(job_id) == 32 and job_id[12] == "7" for job_id in ids)
    assert ids[0][:12] <= ids[1][:12]
    assert len({new_job_id() for _ in range(10_000)}) == 10_000


def test_first_outcome_stays(workspace: WorkspaceCatalog) -> None:
    killed = JobOutcome(job_id="a", state=JobState.KILLED, ended_at=NOW)
    assert workspace.set_outcome(killed) == killed
    assert workspace.set_outcome(killed.model_copy(update={"state": JobState.SUCCESS})) == killed


def test_same_model_from_two_jobs_is_one_model(workspace: WorkspaceCatalog) -> None:
    first, second = document(workspace), document(workspace)
    one, two = model(workspace, first, b"m"), model(workspace, second, b"m")
    workspace.add_model(one)
    workspace.add_model(two)
    assert one.model_id == two.model_id
    assert workspace.model_ids() == [one.model_id]
    assert workspace.model_records(one.model_id) == [one, two]
    assert workspace.job_models(second.job_id, [one.model_id]) == [two]
    with pytest.raises(UnknownNameError, match="Did you mean"):
        workspace.model_records(one.model_id[:-1])


def test_model_id_is_lengthened_when_it_is_taken(workspace: WorkspaceCatalog) -> None:
    pin = BundlePin(name="b", digest="a" * 64, files=1, size=1, author="ada")
    job = document(workspace).model_copy(update={"source": pin, "data": pin})
    digest = "b" * 64
    assert model_id(job, digest, lambda _: None) == "aaaaa_aaaaa:bbbbbb"
    taken = {"aaaaa_aaaaa:bbbbbb": "another", "aaaaaa_aaaaaa:bbbbbbb": f"{pin.digest}_{pin.digest}:{digest}"}
    assert model_id(job, digest, taken.get) == "aaaaaa_aaaaaa:bbbbbbb"
    params = ParametersPin(name="p", digest="c" * 64, trials=2, author="ada")
    grid = job.model_copy(update={"params": params})
    assert model_id(grid, digest, lambda _: None) == "aaaaa_aaaaa_ccccc:bbbbbb"


def test_killed_workspace_keeps_its_models_if_asked(workspace: WorkspaceCatalog) -> None:
    job = document(workspace)
    workspace.add_job(job)
    record = model(workspace, job, b"m")
    workspace.add_model(record)
    workspace.merge_inputs(Inputs(source=job.source))
    workspace.kill(keep_models=True)
    catalog = Catalog(workspace.store)
    assert catalog.workspace("mnist").workspace.killed_at is not None
    assert catalog.workspace("mnist").tree(record.digest).file("m") is not None
    assert catalog.workspace("mnist").inputs() == Inputs()
    back = catalog.create_workspace("mnist", "bob")
    assert back.model_ids() == [record.model_id]
    back.kill(keep_models=False)
    assert catalog.workspaces() == []
    assert list(workspace.store.refs.names("workspaces")) == []


def test_trials_are_recorded_by_index(workspace: WorkspaceCatalog) -> None:
    job = document(workspace)
    record = model(workspace, job, b"m").run
    workspace.set_trial(job.job_id, record.model_copy(update={"succeeded": False}))
    workspace.set_trial(job.job_id, record)
    assert workspace.trials(job.job_id) == [record]
    assert workspace.trial(job.job_id, 0) == record
    assert workspace.trial(job.job_id, 1) is None
    assert [workspace.add_failure(job.job_id, index) for index in (3, 3, 4)] == [1, 1, 2]


@given(st.integers(1, 12_000), st.integers(1, 100))
def test_batches_cover_every_trial_once_and_are_few(count: int, parallelism: int) -> None:
    planned = [Trial(index=index, name=str(index)) for index in range(count)]
    found = batches(planned, parallelism)
    assert [index for batch in found for index in range(batch.start, batch.start + batch.count)] == list(
        range(count)
    )
    assert len(found) <= MAPPED
    assert len(found) == count or count > MAPPED
    assert max(batch.count for batch in found) - min(batch.count for batch in found) <= 1


def test_trials_are_the_points_of_the_space() -> None:
    assert trials(None) == [Trial(index=0, name="train", params={})]
    space = parse(b'{"b": [1, 2], "a": "x"}', samples=None, seed=0, most=10)
    assert trials(space) == [
        Trial(index=0, name="a=x b=1", params={"a": "x", "b": 1}),
        Trial(index=1, name="a=x b=2", params={"a": "x", "b": 2}),
    ]


def test_params_of_a_job_come_back_and_can_be_dropped(workspace: WorkspaceCatalog) -> None:
    space = parse(b'{"a": [1, 2]}', samples=None, seed=0, most=10)
    pin = ParametersPin(name="p.json", digest=workspace.add_space(space), trials=2, author="ada")
    assert pin.digest == space.digest
    assert workspace.space(pin) == space
    assert workspace.merge_inputs(Inputs(params=pin)).params == pin
    assert workspace.merge_inputs(Inputs()).params == pin
    assert workspace.merge_inputs(Inputs(), drop_params=True).params is None


def test_definition_names_are_checked() -> None:
    assert Definition(workspace="mnist").dag_id == "kaos.mnist.train"
    for broken in (
        {"workspace": "a'b"},
        {"workspace": "a", "name": "x y"},
        {"workspace": "a", "parallelism": 0},
    ):
        with pytest.raises((InvalidNameError, ValueError)):
            Definition(**broken)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff", b"[" * 100_000])
def test_metrics_that_are_no_object_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"metrics\.json"):
        read_metrics(content)


@given(st.lists(st.one_of(st.none(), st.floats(allow_infinity=True), st.booleans(), st.text())))
def test_any_metrics_can_be_sorted(values: list[object]) -> None:
    for ascending in (True, False):
        found = sorted(
            (score({"m": value}, "m") for value in values), key=lambda s: sort_key(s, ascending=ascending)
        )
        numbers = [value for value in found if value is not None and value == value]
        assert found[: len(numbers)] == sorted(numbers, reverse=not ascending)


@given(st.lists(st.text("01", min_size=1, max_size=7), max_size=12))
def test_ids_of_models_that_begin_alike_differ(beginnings: list[str]) -> None:
    workspace = Catalog(memory_store()).create_workspace("mnist", "ada")
    digests = [f"{beginning:0<64}" for beginning in beginnings]
    ids = workspace.next_model_ids(document(workspace), digests)
    assert len(set(ids.values())) == len(set(digests))
