"""What the openlineage provider is told, through a real Airflow, and by the published schema."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow_example import Example
from hypothesis import given
from hypothesis import strategies as st
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.serde import Serde
from openlineage_schema import check_event

from kaos import openlineage
from kaos.endpoint import ModelPin, ServeDocument
from kaos.graph import Graph, Node
from kaos.job import BundlePin
from kaos.openlineage import Dataset, KaosRunFacet, Traced, TrialFacet
from kaos.provenance import Lineage, nodes
from kaos.render.lines import lines
from kaos.render.openlineage import events as render
from kaos.reproduction import Reproduction, Verdict

ROOT = Path(__file__).parent.parent


@pytest.fixture
def events(example: Example) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the events of the run that trained a model, by task and type."""
    ended = next(
        index for index, event in enumerate(example.events) if event["job"]["name"] == "kaos_example"
    )
    return {
        (event["job"]["name"].rpartition(".")[2], event["eventType"]): event
        for event in example.events[:ended]
    }


def versions(datasets: list[dict[str, Any]]) -> dict[str, str | None]:
    return {
        f"{each['namespace']}/{each['name']}": each["facets"].get("version", {}).get("datasetVersion")
        for each in datasets
    }


def test_every_event_is_as_the_schema_says(example: Example) -> None:
    assert len(example.events) >= 20
    for event in example.events:
        check_event(event)


def test_datasets_are_what_a_task_read_and_made(
    example: Example, events: dict[tuple[str, str], dict[str, Any]]
) -> None:
    workspace = example.catalog.workspace("digits")
    (record,) = workspace.model_records(workspace.model_ids()[0])
    code = {"kaos://digits/source/code": record.job.source.digest}
    data = {"kaos://digits/data/table": record.job.pinned_data.digest}
    environment = {"kaos://digits/environment/code": record.build.environment}
    model = {"kaos://digits/model": record.digest}
    seen = {
        task: (versions(event["inputs"]), versions(event["outputs"]))
        for (task, kind), event in events.items()
        if kind == "COMPLETE"
    }
    (directories, taken) = seen.pop("ingest")
    assert taken == code | data
    assert {name.rpartition("/")[2] for name in directories} == {"code", "table"}
    assert seen == {
        "plan": (code | data, {}),
        "build": (code, environment),
        "train": (code | data | environment, model),
        "register": (code | data | environment, model),
    }
    assert versions(events["train", "START"]["inputs"]) == code | data | environment
    (output,) = events["train", "COMPLETE"]["outputs"]
    statistics = output["outputFacets"]["outputStatistics"]
    assert (statistics["fileCount"], statistics["size"]) == (record.files, record.size)


def test_our_own_facet_tells_of_job_trials_and_models(
    example: Example, events: dict[tuple[str, str], dict[str, Any]]
) -> None:
    workspace = example.catalog.workspace("digits")
    (record,) = workspace.model_records(workspace.model_ids()[0])
    event = events["register", "COMPLETE"]
    known = event["run"]["facets"]["kaos"]
    assert (known["workspace"], known["job"], known["author"]) == ("digits", record.job.job_id, "ada")
    assert (known["document"], known["lock"]) == (record.job_digest, record.build.lock)
    assert known["models"] == [record.model_id]
    assert known["trials"] == [
        {"index": 0, "name": "train", "model": record.digest, "params": {}, "metrics": {"rows": 3.0}}
    ]
    location = event["job"]["facets"]["sourceCodeLocation"]
    tree = Path(location["url"].removeprefix("file://"))
    assert tree.read_bytes() == workspace.tree(record.job.source.digest).encoded
    assert location["version"] == record.job.source.digest


def test_a_task_that_failed_tells_what_it_read(example: Example) -> None:
    failed = {each["job"]["name"]: each for each in example.events if each["eventType"] == "FAIL"}
    event = failed["kaos_example.train"]
    assert set(versions(event["inputs"])) == {
        "kaos://broken/source/code",
        "kaos://broken/data/table",
        "kaos://broken/environment/code",
    }
    assert event["outputs"] == []
    assert event["run"]["facets"]["kaos"]["trials"][0]["index"] == 0
    assert "exit code 3" in event["run"]["facets"]["errorMessage"]["message"]


def test_the_schema_of_our_facet_is_the_one_that_is_published() -> None:
    published = json.loads((ROOT / "docs/openlineage/KaosRunFacet.json").read_text())
    assert published == KaosRunFacet.model_json_schema()


def through_the_provider(traced: Traced) -> dict[str, Any]:
    """Return the event that the client writes of what an operator tells."""
    from kaos_operators.openlineage import lineage

    found = lineage(traced)
    event = RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=datetime.now(UTC).isoformat(),
        run=Run(runId="01a1fdc4-4593-7077-9f50-985799d5a8de", facets=found.run_facets),
        job=Job(namespace="default", name="kaos.mnist.train", facets=found.job_facets),
        inputs=found.inputs,
        outputs=found.outputs,
        producer=openlineage.PRODUCER,
    )
    result: dict[str, Any] = json.loads(Serde.to_json(event))
    return result


TEXT = st.text(min_size=1, max_size=5)
DATASETS = st.builds(
    Dataset,
    workspace=st.sampled_from(["", "mnist"]),
    name=TEXT,
    kind=st.sampled_from(["FILE", "MODEL"]),
    version=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    files=st.none() | st.integers(0, 10**9),
    size=st.none() | st.integers(0, 10**15),
)
TRIALS = st.builds(
    TrialFacet,
    index=st.integers(0, 9999),
    name=TEXT,
    model=st.none() | TEXT,
    params=st.dictionaries(TEXT, st.integers() | TEXT | st.booleans(), max_size=2),
    metrics=st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
)
ABOUT = st.builds(
    KaosRunFacet,
    workspace=st.just("mnist"),
    job=st.just("0" * 32),
    author=st.none() | TEXT,
    trials=st.lists(TRIALS, max_size=2),
    models=st.lists(TEXT, max_size=2),
    endpoint=st.none() | TEXT,
    revision=st.none() | st.integers(1, 99),
)


@given(
    st.builds(
        Traced,
        inputs=st.lists(DATASETS, max_size=3),
        outputs=st.lists(DATASETS, max_size=3),
        about=st.none() | ABOUT,
    )
)
def test_whatever_is_told_is_as_the_schema_says(traced: Traced) -> None:
    event = through_the_provider(traced)
    check_event(event)
    # What the rendering of lineage writes without the client is the same.
    assert [each.plain(made=False) for each in traced.inputs] == [
        without_nulls(each) for each in event["inputs"]
    ]
    assert [each.plain(made=True) for each in traced.outputs] == [
        without_nulls(each) for each in event["outputs"]
    ]


def without_nulls(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return a dataset without the empty facets that the client writes."""
    return {name: value for name, value in dataset.items() if value != {}}


def revision() -> ServeDocument:
    """Return a revision of an endpoint that serves a model."""
    pin = BundlePin(name="mnist", digest="a" * 64, files=2, size=10, author="ada")
    return ServeDocument(
        job_id="0" * 32,
        workspace="mnist",
        dag_id="kaos.mnist.serve",
        run_id="0" * 32,
        endpoint="serve-mnist",
        revision=3,
        source=pin.model_copy(update={"digest": "b" * 64}),
        code=pin,
        model=ModelPin(model_id="a_b:c", digest="c" * 64, files=1, size=5, author="ada"),
        runtime="process",
        author="ada",
        submitted_at=datetime.now(UTC),
        kaos_version="0",
    )


def test_a_revision_is_made_of_its_code_and_its_model() -> None:
    traced = openlineage.served(revision(), "d" * 64)
    assert [(each.name, each.version) for each in traced.inputs] == [
        ("source/mnist", "a" * 64),
        ("model", "c" * 64),
    ]
    known = (traced.about or KaosRunFacet(workspace="", job="")).plain()
    assert (known["endpoint"], known["revision"], known["models"]) == ("serve-mnist", 3, ["a_b:c"])


def test_the_rendered_lineage_says_what_the_operators_said(
    example: Example, events: dict[tuple[str, str], dict[str, Any]]
) -> None:
    workspace = example.catalog.workspace("digits")
    (rendered,) = render(Lineage(workspace).read().graph)
    check_event(rendered)
    told = events["register", "COMPLETE"]
    assert versions(rendered["inputs"]) == versions(told["inputs"])
    assert [without_nulls(each) for each in told["outputs"]] == rendered["outputs"]
    assert rendered["job"]["name"] == "kaos_example"
    known, ours = rendered["run"]["facets"]["kaos"], told["run"]["facets"]["kaos"]
    assert uuid.UUID(rendered["run"]["runId"]).hex == ours["job"]
    for name in ("job", "author", "runtime", "environment", "python", "lock", "models", "workspace"):
        assert known[name] == ours[name]
    assert known["trials"][0]["metrics"] == {"rows": 3.0}


def test_a_rendered_revision_serves_code_and_model() -> None:
    document = revision()
    assert document.model is not None
    model = Node(
        "model:mnist/a_b:c", "model", "a_b:c", {"digest": document.model.digest, "files": 1, "size": 5}
    )
    part = nodes.revision(document, None, None, None)
    (event,) = render(Graph.of([model, *part.nodes], part.edges))
    check_event(event)
    assert versions(event["inputs"]) == {
        "kaos://mnist/source/mnist": document.code.digest,
        "kaos://mnist/model": document.model.digest,
    }
    assert versions(event["outputs"]) == {"kaos://mnist/endpoint/serve-mnist": "3"}
    assert event == render(Graph.of([model, *part.nodes], part.edges))[0]


def test_a_verdict_is_part_of_the_lineage(example: Example) -> None:
    workspace = example.catalog.workspace("digits")
    (record,) = workspace.model_records(workspace.model_ids()[0])
    verdict = Reproduction(
        model_id=record.model_id,
        digest=record.digest,
        original_job=record.job.job_id,
        trial=0,
        job_id="0" * 32,
        by="ada",
        submitted_at=datetime.now(UTC),
        ended_at=datetime.now(UTC),
        tolerance=0,
        rebuilt=False,
        verdict=Verdict.DIFFERENT,
    )
    graph = Lineage(workspace).read().graph
    part = nodes.reproduction("digits", verdict)
    (job, model) = part.nodes
    assert model.id in graph.by_id
    assert job.id.rpartition("/")[0] == f"job:{workspace.workspace.name}"
    told = lines(replace(model, attributes={**graph.by_id[model.id].attributes, **model.attributes}))
    assert told[-1] == "made again: 1 different"
    assert any(record.model_id in line for line in lines(job))


def test_the_schema_refuses_what_is_none() -> None:
    good = through_the_provider(Traced([Dataset("mnist", "model")], [], KaosRunFacet(workspace="m", job="0")))
    check_event(good)
    for damage in (
        lambda event: event["inputs"][0].pop("namespace"),
        lambda event: event["inputs"][0].update(name=3),
        lambda event: event["run"].update(runId="no uuid"),
        lambda event: event.update(eventTime="yesterday"),
        lambda event: event.update(eventType="DONE"),
        lambda event: event["run"]["facets"]["kaos"].pop("_producer"),
        lambda event: event["run"]["facets"]["kaos"].update(revision="third"),
        lambda event: event["run"]["facets"]["kaos"].update(unknown=1),
    ):
        event = json.loads(json.dumps(good))
        damage(event)
        with pytest.raises(jsonschema.ValidationError):
            check_event(event)


@pytest.mark.parametrize("hidden", [False, True])
def test_operators_need_nothing_of_the_provider(hidden: bool) -> None:
    script = f"""
import sys
if {hidden}:
    sys.modules["openlineage"] = sys.modules["airflow.providers.openlineage.extractors"] = None
import airflow.sdk
before = set(sys.modules)
import kaos_operators.warm
theirs = ("openlineage", "airflow.providers.openlineage", "kaos_operators.openlineage")
print(sorted(name for name in set(sys.modules) - before if name.startswith(theirs)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    # Airflow itself reads what the provider says of itself, no more.
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr
