"""Making a model again: what is compared, and what is recorded of it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos import __version__
from kaos.bundle import EmptyDirectory, File, Link, Tree
from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.digest import digest_bytes
from kaos.errors import InvalidInputError, UnknownNameError
from kaos.job import BundlePin, JobDocument, Reproduces, Trial, new_job_id
from kaos.lineage import AirflowRun, BuildRecord, ImageRecord, TrialRecord
from kaos.model import ModelRecord
from kaos.reproduction import (
    MOST,
    FileDifference,
    Reproduction,
    Verdict,
    compare_environments,
    compare_files,
    compare_metrics,
    judge,
)
from kaos.reproductions import Reproductions
from kaos.resources import Resources
from kaos.store.memory import memory_store

NUMBERS = st.floats() | st.integers(-(10**6), 10**6)
METRICS = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.recursive(
        NUMBERS | st.text(max_size=3) | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3)
    ),
    max_size=4,
)


def tree(**files: bytes) -> Tree:
    return Tree.of(File(path, len(content), digest_bytes(content)) for path, content in files.items())


@given(METRICS, st.floats(0, 10))
def test_metrics_are_the_same_as_themselves(metrics: dict[str, Any], tolerance: float) -> None:
    assert compare_metrics(metrics, json.loads(json.dumps(metrics)), tolerance) == []


@given(METRICS, METRICS, st.floats(0, 10), st.floats(0, 10))
def test_a_larger_tolerance_takes_no_equality_away(
    one: dict[str, Any], other: dict[str, Any], small: float, large: float
) -> None:
    small, large = sorted((small, large))
    strict, lenient = compare_metrics(one, other, small), compare_metrics(one, other, large)
    assert [each.name for each in strict] == [each.name for each in lenient]
    assert all(wide.within for narrow, wide in zip(strict, lenient, strict=True) if narrow.within)
    swapped = compare_metrics(other, one, small)
    assert {each.name: each.within for each in swapped} == {each.name: each.within for each in strict}


@pytest.mark.parametrize(
    ("original", "made", "within"),
    [
        ({"a": 0.5}, {"a": 0.51}, {"a": True}),
        ({"a": 0.5}, {"a": 0.7}, {"a": False}),
        ({"a": 1}, {"a": 1.0}, {}),
        ({"a": math.nan}, {"a": math.nan}, {}),
        ({"a": math.nan}, {"a": 1.0}, {"a": False}),
        ({"a": math.inf}, {"a": math.inf}, {}),
        ({"a": 0.5}, {}, {"a": False}),
        ({"a": None}, {}, {}),
        ({}, {"a": 0.5}, {"a": False}),
        ({"a": True}, {"a": 1}, {"a": False}),
        ({"a": "x"}, {"a": "y"}, {"a": False}),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2.01]}}, {"a.b.1": True}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": False}),
        ({"a": 10**400}, {"a": 0.5}, {"a": False}),
    ],
)
def test_metrics_by_kind(original: dict[str, Any], made: dict[str, Any], within: dict[str, bool]) -> None:
    found = compare_metrics(original, made, 0.1)
    assert {each.name: each.within for each in found} == within


def test_files_by_kind() -> None:
    original = Tree.of([*tree(same=b"1", changed=b"2", gone=b"3").entries, Link("link", "same")])
    made = Tree.of([*tree(same=b"1", changed=b"x").entries, Link("link", "changed"), EmptyDirectory("empty")])
    found = {each.path: each.what for each in compare_files(original, made)}
    assert found == {"changed": "changed", "empty": "new", "gone": "missing", "link": "changed"}
    executable = Tree.of([File("same", 1, digest_bytes(b"1"), executable=True)])
    (one,) = compare_files(tree(same=b"1"), executable)
    assert one.what == "changed"
    assert one.original != one.made


LOCK = "six==1.16.0 \\\n    --hash=sha256:aa\nnumpy==2.0.0 ; python_version >= '3' \\\n    --hash=sha256:bb\n"


def test_environments_by_package() -> None:
    record = BuildRecord(
        runtime="process",
        environment="e",
        python="3.11.7",
        lock="l",
        log="",
        reused=True,
        seconds=1,
    )
    assert compare_environments(record, record, LOCK, LOCK) == []
    other = record.model_copy(update={"environment": "f", "python": "3.11.8"})
    changed = LOCK.replace("1.16.0", "1.17.0").replace("numpy", "scipy")
    assert [
        (each.what, each.original, each.made) for each in compare_environments(record, other, LOCK, changed)
    ] == [
        ("python", "3.11.7", "3.11.8"),
        ("numpy", "2.0.0", None),
        ("scipy", None, "2.0.0"),
        ("six", "1.16.0", "1.17.0"),
    ]
    # The same packages by name, in an environment that is another one.
    elsewhere = record.model_copy(update={"environment": "f"})
    (only,) = compare_environments(record, elsewhere, LOCK, LOCK)
    assert only.what == "environment"
    images = [
        record.model_copy(
            update={"image": ImageRecord(engine="podman", name="n", id=number * 64), "environment": number}
        )
        for number in "12"
    ]
    (image,) = compare_environments(*images, "", "")
    assert (image.what, image.original) == ("image", f"sha256:{'1' * 64}")


def test_without_metrics_other_files_are_another_model() -> None:
    assert judge(True, 0, []) is Verdict.IDENTICAL
    assert judge(False, 0, []) is Verdict.DIFFERENT
    assert judge(False, 1, []) is Verdict.EQUAL


# -- in the store -------------------------------------------------------------------------------------------


@pytest.fixture
def workspace() -> WorkspaceCatalog:
    return Catalog(memory_store()).create_workspace("mnist", "ada")


def job(reproduces: Reproduces | None = None) -> JobDocument:
    job_id = new_job_id()
    pin = BundlePin(name="mnist", digest="e" * 64, files=1, size=1, author="ada")
    return JobDocument(
        job_id=job_id,
        workspace="mnist",
        definition="train",
        dag_id="kaos.mnist.train",
        run_id=job_id,
        source=pin,
        data=pin.model_copy(update={"name": "features"}),
        resources=Resources(),
        runtime="process",
        author="ada",
        submitted_at=datetime.now(UTC),
        kaos_version=__version__,
        reproduces=reproduces,
    )


def model(workspace: WorkspaceCatalog, document: JobDocument, metric: float, **files: bytes) -> ModelRecord:
    """Record a model of these files."""
    objects, content, now = workspace.store.objects, tree(**files), datetime.now(UTC)
    for each in files.values():
        objects.put(each)
    objects.put(content.encoded)
    (model_id,) = workspace.next_model_ids(document, [content.digest]).values()
    record = ModelRecord(
        model_id=model_id,
        digest=content.digest,
        files=len(files),
        size=content.size,
        job=document,
        job_digest=objects.put(document.encode()),
        trial=Trial(index=0, name="train"),
        build=BuildRecord(
            runtime="process",
            environment="e",
            python="3.11.7",
            lock=objects.put(LOCK.encode()),
            log="",
            reused=False,
            seconds=1,
        ),
        run=TrialRecord(
            index=0,
            name="train",
            succeeded=True,
            reason="",
            exit_code=0,
            model=content.digest,
            log="",
            limits="",
            started_at=now,
            ended_at=now,
        ),
        airflow=AirflowRun(
            dag_id=document.dag_id,
            run_id=document.run_id,
            task_id="register",
            map_index=-1,
            try_number=1,
            bundle_version=None,
            airflow_version="3",
        ),
        metrics={"accuracy": metric},
        created_at=now,
    )
    workspace.add_model(record)
    return record


def again(records: Reproductions, original: ModelRecord, **asked: Any) -> JobDocument:
    _, digest = records.original(original.model_id)
    return job(
        Reproduces(
            model_id=original.model_id,
            digest=original.digest,
            record=digest,
            job_id=original.job.job_id,
            trial=0,
            **asked,
        )
    )


@pytest.mark.parametrize(
    ("metric", "content", "tolerance", "verdict", "changed"),
    [
        (0.9, b"one", 0.0, Verdict.IDENTICAL, []),
        (0.9, b"two", 0.0, Verdict.EQUAL, ["model"]),
        (0.8, b"two", 0.2, Verdict.EQUAL, ["model"]),
        (0.8, b"two", 0.0, Verdict.DIFFERENT, ["model"]),
    ],
)
def test_the_verdict_is_recorded_once(
    workspace: WorkspaceCatalog,
    metric: float,
    content: bytes,
    tolerance: float,
    verdict: Verdict,
    changed: list[str],
) -> None:
    records = Reproductions(workspace)
    original = model(workspace, job(), 0.9, model=b"one")
    document = again(records, original, tolerance=tolerance)
    assert records.of_job(document) is None
    records.conclude(document, model(workspace, document, metric, model=content))
    records.conclude(document, None, "the task was run once more")
    found = records.of_job(document)
    assert found is not None
    assert (found.verdict, [each.path for each in found.changed]) == (verdict, changed)
    assert found.verdict.reproduced is (verdict is not Verdict.DIFFERENT)
    assert list(records.of_model(original.model_id)) == [found]
    assert Reproduction.parse(found.encode()) == found


def test_a_job_without_a_model_has_a_verdict_too(workspace: WorkspaceCatalog) -> None:
    records = Reproductions(workspace)
    document = again(records, model(workspace, job(), 0.9, model=b"one"))
    records.conclude(document, None, "exit code 1")
    found = records.of_job(document)
    assert found is not None
    assert (found.verdict, found.reason, found.made) == (Verdict.FAILED, "exit code 1", None)
    plain = job()
    records.conclude(plain, None, "exit code 1")
    assert records.of_job(plain) is None


def test_many_differences_are_counted(workspace: WorkspaceCatalog) -> None:
    records = Reproductions(workspace)
    original = model(workspace, job(), 0.9, **{f"f{index}": b"x" for index in range(MOST + 5)})
    document = again(records, original)
    records.conclude(document, model(workspace, document, 0.9, other=b"y"))
    found = records.of_job(document)
    assert found is not None
    assert (len(found.changed), found.left_out, found.files) == (MOST, 6, MOST + 5)
    assert found.changed[0] == FileDifference(path="f0", original=digest_bytes(b"x"), made=None)


def test_the_first_job_that_made_a_model_is_taken(workspace: WorkspaceCatalog) -> None:
    records = Reproductions(workspace)
    made = [model(workspace, job(), 0.9, model=b"one") for _ in range(3)]
    (key,) = {each.model_id for each in made}
    assert records.original(key)[0] == made[0]
    assert records.original(key, made[2].job.job_id)[0] == made[2]
    with pytest.raises(InvalidInputError, match=f"may mean {made[0].job.job_id}, {made[1].job.job_id}"):
        records.original(key, made[0].job.job_id[:5])
    with pytest.raises(UnknownNameError, match="It was made by"):
        records.original(key, "ffff")
    with pytest.raises(UnknownNameError, match="no model"):
        records.original("e23a2_9fd9d:b82151")
