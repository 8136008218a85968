"""Questions to the lineage of a workspace with 10,000 nodes, most of them models of one data bundle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from bench.home import Home
from bench.measure import Figure, Sizes, Timed, alternate, median, say, spread
from kaos.bundle import File, Tree
from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.digest import digest_bytes
from kaos.job import BundlePin, JobDocument, JobOutcome, JobState, ParametersPin, Trial, new_job_id
from kaos.lineage import AirflowRun, BuildRecord, TrialRecord
from kaos.model import ModelRecord
from kaos.resources import Resources
from kaos.store import open_file_store

_WORKSPACE = "lineage"
_TRIALS = 110
_GOAL = 1.0
_NOW = datetime.now(UTC)
_LOCK = "".join(f"package-{number}==1.{number}\n" for number in range(60))


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figures of the lineage."""
    say(f"lineage: {sizes.nodes:,} nodes")
    home.new_workspace(_WORKSPACE)
    workspace = Catalog(open_file_store(home.state / "store")).workspace(_WORKSPACE)
    began = time.monotonic()
    data, models = _seed(workspace, sizes.nodes // (_TRIALS + 3))
    say(f"  made in {time.monotonic() - began:.0f} s")
    first = home.kaos("lineage", "downstream", data.digest).seconds
    again = _after_a_restart(home, data)
    file = digest_bytes(b"7")
    asked = {
        "downstream of the data bundle of all": ["downstream", data.digest],
        "the same, all rows as JSON": ["downstream", data.digest, "-o", "json"],
        "downstream of a file, by its SHA-256": ["downstream", file],
        "upstream of a model": ["upstream", models[0]],
        "difference of two models": ["diff", models[0], models[-1]],
    }
    times = alternate({what: _timed(home, words) for what, words in asked.items()}, max(sizes.runs, 5))
    size = f"{sizes.nodes:,} nodes"
    return [
        _figure(f"The first question to {size}, which reads every record", [first]),
        _figure(f"The first question to {size} after a restart of the API server", [again]),
        *(_figure(f"`kaos lineage`, {size}: {what}", seconds) for what, seconds in times.items()),
    ]


def _figure(what: str, seconds: list[float]) -> Figure:
    return Figure(
        what,
        f"{_GOAL:.0f} s",
        f"{median(seconds):.2f} s",
        reached=median(seconds) <= _GOAL,
        runs=spread(seconds) if len(seconds) > 1 else "",
        why="See docs/decisions/provenance.md.",
    )


def _timed(home: Home, words: Sequence[str]) -> Timed:
    return lambda _: home.kaos("lineage", *words).seconds


def _after_a_restart(home: Home, data: BundlePin) -> float:
    """Return the seconds of the first question that another API server answers."""
    before = {process.pid for process in home.processes("api-server")}
    for process in home.processes("api-server"):
        process.kill()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(1)
        if any(process.pid not in before for process in home.processes("api-server")):
            break
    home.kaos("up")  # waits until it is ready
    return home.kaos("lineage", "downstream", data.digest).seconds


def _seed(workspace: WorkspaceCatalog, jobs: int) -> tuple[BundlePin, list[str]]:
    """Write the records of so many jobs, each with an environment and many models; return their data."""
    objects = workspace.store.objects
    lock = objects.put(_LOCK.encode())
    files = {f"part-{number}.csv": str(number).encode() for number in range(100)}
    data = _bundle(workspace, "data", files)
    models: list[str] = []
    with ThreadPoolExecutor(max_workers=16) as pool:
        for number in range(jobs):
            source = _bundle(workspace, "source", {"model/train": f"#!/bin/sh\n# {number}\n".encode()})
            document = _document(source, data)
            workspace.add_job(document)
            trees = [_tree(workspace, {"model/m": f"{number} {trial}".encode()}) for trial in range(_TRIALS)]
            ids = workspace.next_model_ids(document, [tree.digest for tree in trees])
            build = BuildRecord(
                runtime="process",
                environment=digest_bytes(f"environment {number // 10}".encode()),
                python="3.11.7",
                lock=lock,
                log="",
                reused=True,
                seconds=0.1,
            )
            records = [
                _record(document, build, trial, tree, ids[tree.digest]) for trial, tree in enumerate(trees)
            ]
            list(pool.map(workspace.add_model, records))
            models += [record.model_id for record in records]
            workspace.set_outcome(
                JobOutcome(
                    job_id=document.job_id,
                    state=JobState.SUCCESS,
                    models=[record.model_id for record in records],
                    started_at=_NOW,
                    ended_at=_NOW + timedelta(seconds=60),
                )
            )
    return data, models


def _tree(workspace: WorkspaceCatalog, files: dict[str, bytes]) -> Tree:
    put = workspace.store.objects.put
    tree = Tree.of(File(path, len(content), put(content)) for path, content in files.items())
    put(tree.encoded)
    return tree


def _bundle(workspace: WorkspaceCatalog, kind: str, files: dict[str, bytes]) -> BundlePin:
    return workspace.commit_bundle(
        "source" if kind == "source" else "data", kind, _tree(workspace, files), "ada"
    ).pin


def _document(source: BundlePin, data: BundlePin) -> JobDocument:
    job_id = new_job_id()
    return JobDocument(
        job_id=job_id,
        workspace=_WORKSPACE,
        definition="train",
        dag_id=f"kaos.{_WORKSPACE}.train",
        run_id=job_id,
        source=source,
        data=data,
        params=ParametersPin(name="params.json", digest=digest_bytes(b"grid"), trials=_TRIALS, author="ada"),
        resources=Resources(),
        runtime="process",
        author="ada",
        submitted_at=_NOW,
        kaos_version="0",
    )


def _record(document: JobDocument, build: BuildRecord, trial: int, tree: Tree, model_id: str) -> ModelRecord:
    params = {"degree": trial % 7, "gamma": trial / 100}
    name = " ".join(f"{key}={value}" for key, value in params.items())
    return ModelRecord(
        model_id=model_id,
        digest=tree.digest,
        files=1,
        size=tree.size,
        job=document,
        job_digest="0" * 64,
        trial=Trial(index=trial, name=name, params=params),
        build=build,
        run=TrialRecord(
            index=trial,
            name=name,
            succeeded=True,
            reason="",
            exit_code=0,
            model=tree.digest,
            params=params,
            log=tree.digest,
            limits="",
            started_at=_NOW,
            ended_at=_NOW + timedelta(seconds=9),
        ),
        airflow=AirflowRun(
            dag_id=document.dag_id,
            run_id=document.run_id,
            task_id="register",
            map_index=-1,
            try_number=1,
            bundle_version=digest_bytes(b"dags"),
            airflow_version="3.3.2",
        ),
        metrics={f"metric_{number}": trial / (number + 1) for number in range(8)},
        created_at=_NOW,
    )
