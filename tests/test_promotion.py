"""Promotions in a store: which model is proposed, what is decided once, and which revision comes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kaos.bundle import File, Tree
from kaos.catalog import Catalog, WorkspaceCatalog
from kaos.endpoint import Limits, ModelPin
from kaos.errors import UnknownNameError
from kaos.job import BundlePin, JobDocument, JobOutcome, JobState, Trial, new_job_id
from kaos.lineage import AirflowRun, BuildRecord, TrialRecord
from kaos.model import JobSummary, ModelRecord, TrialSummary
from kaos.promotion import Answer, Proposal, decide
from kaos.resources import Resources
from kaos.serving.promotions import Promotions
from kaos.serving.revision import lay_beside, revision_document
from kaos.store import memory_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = AirflowRun(
    dag_id="kaos.w.s",
    run_id="run",
    task_id="gate",
    map_index=-1,
    try_number=1,
    bundle_version=None,
    airflow_version="3.3.2",
)
CONDITION = "accuracy >= 0.5 and > current"


@pytest.fixture
def workspace() -> WorkspaceCatalog:
    return Catalog(memory_store()).create_workspace("w", "ada")


def commit(workspace: WorkspaceCatalog, kind: Any, files: dict[str, bytes]) -> BundlePin:
    put = workspace.store.objects.put
    tree = Tree.of(File(path, len(content), put(content)) for path, content in files.items())
    return workspace.commit_bundle(kind, "b", tree, "ada").pin


def job(workspace: WorkspaceCatalog, *metrics: dict[str, float]) -> JobDocument:
    """Record a job of a schedule that made a model for each of these metrics."""
    job_id = new_job_id()
    document = JobDocument(
        job_id=job_id,
        workspace="w",
        definition="s",
        dag_id="kaos.w.s",
        run_id=f"run of {job_id}",
        source=commit(workspace, "source", {"Dockerfile": b"FROM x", "model/train": b"x"}),
        data=commit(workspace, "data", {"a": b"a"}),
        resources=Resources(),
        runtime="process",
        author="ada",
        submitted_at=NOW,
        kaos_version="0",
        schedule="s",
    )
    digest = workspace.add_job(document)
    summaries = []
    for index, found in enumerate(metrics):
        tree = commit(workspace, "data", {"weights": repr(sorted(found.items())).encode()}).digest
        model_id = workspace.next_model_ids(document, [tree])[tree]
        trial = TrialRecord(
            index=index,
            name="train",
            succeeded=True,
            reason="",
            exit_code=0,
            model=tree,
            metrics=found,
            log="",
            limits="",
            started_at=NOW,
            ended_at=NOW,
        )
        workspace.add_model(
            ModelRecord(
                model_id=model_id,
                digest=tree,
                files=1,
                size=1,
                job=document,
                job_digest=digest,
                trial=Trial(index=index, name="train"),
                build=BuildRecord(runtime="process", environment="", log="", reused=True, seconds=0),
                run=trial,
                airflow=RUN,
                metrics=found,
                created_at=NOW,
            )
        )
        summaries.append(TrialSummary.of(trial, model_id))
    summary = workspace.store.objects.put(JobSummary.of(summaries).encode())
    workspace.set_outcome(JobOutcome(job_id=job_id, state=JobState.SUCCESS, ended_at=NOW, summary=summary))
    return document


def endpoint(workspace: WorkspaceCatalog, model: ModelPin | None = None, *, routed: bool = True) -> None:
    """Deploy a revision of the endpoint `e`, and route it."""
    records = Promotions(workspace).endpoints
    code = commit(workspace, "source", {"Dockerfile": b"FROM x", "model/serve": b"x"})
    document = revision_document(
        records.reserve("e", new_job_id(), "ada"),
        new_job_id(),
        source=lay_beside(workspace, code, model, "ada"),
        code=code,
        model=model,
        resources=Resources(cpu=2),
        workers=3,
        runtime="process",
        limits=Limits(timeout=7),
        author="ada",
    )
    records.add_revision(document)
    if routed:
        records.change("e", lambda found: found.take(document, NOW))


def propose(workspace: WorkspaceCatalog, document: JobDocument, condition: str = CONDITION) -> Proposal:
    lower = condition.startswith("loss")
    metric = condition.split()[0]
    return Promotions(workspace).propose(document, "e", condition, metric, lower_is_better=lower)


def test_the_best_trial_is_proposed(workspace: WorkspaceCatalog) -> None:
    endpoint(workspace)
    document = job(
        workspace,
        {"accuracy": 0.6},
        {"accuracy": 0.9, "loss": 3.0},
        {"loss": 0.1},
        {"accuracy": float("nan")},
    )
    assert propose(workspace, document).trial == 1
    assert propose(workspace, document, "loss < 5").trial == 2
    assert propose(workspace, document, "loss < 0.05").accepted is False
    nothing = propose(workspace, document, "nothing > 0")
    assert not nothing.accepted
    assert "no metric 'nothing'" in nothing.verdict.reason


def test_better_than_what_serves(workspace: WorkspaceCatalog) -> None:
    endpoint(workspace, routed=False)
    first = propose(workspace, job(workspace, {"accuracy": 0.6}))
    assert (first.accepted, first.serving, first.revision) == (True, None, None)  # nothing serves yet
    endpoint(workspace, first.model)
    assert propose(workspace, job(workspace, {"accuracy": 0.7})).accepted
    worse = propose(workspace, job(workspace, {"accuracy": 0.55}))
    assert (worse.accepted, worse.serving, worse.revision) == (False, first.model, 2)
    same = propose(workspace, job(workspace, {"accuracy": 0.6}), "accuracy >= current")
    assert (same.verdict.holds, same.serves, same.accepted) == (True, True, False)
    assert decide(same, None, RUN, NOW).reason == f"{first.model.model_id} serves already"
    Promotions(workspace).endpoints.kill("e", "ada")
    with pytest.raises(UnknownNameError):
        propose(workspace, job(workspace, {"accuracy": 0.9}))


def test_an_imported_model_has_no_metrics(workspace: WorkspaceCatalog) -> None:
    from kaos.models import Models

    tree = workspace.tree(commit(workspace, "data", {"weights": b"x"}).digest)
    imported = Models(workspace).add_import("foreign", tree, "ada")
    endpoint(workspace, Models(workspace).pin(imported.model_id))
    proposal = propose(workspace, job(workspace, {"accuracy": 0.9}))
    assert not proposal.accepted
    assert "the model that serves has no metric 'accuracy'" in proposal.verdict.reason


def test_a_decision_is_made_once_and_becomes_one_revision(workspace: WorkspaceCatalog) -> None:
    endpoint(workspace)
    promotions = Promotions(workspace)
    proposal = propose(workspace, job(workspace, {"accuracy": 0.6}))
    decision, digest = promotions.add(decide(proposal, None, RUN, NOW))
    assert (decision.outcome, decision.by) == ("promoted", "schedule s")
    no = decide(proposal, Answer(approved=False, by="eve", at=NOW), RUN, NOW)
    assert promotions.add(no) == (decision, digest)  # the first stays
    document, _ = promotions.promote(proposal, digest)
    assert promotions.promote(proposal, digest)[0] == document
    assert promotions.endpoints.revision_numbers("e") == [1, 2]
    before, _ = promotions.endpoints.revision("e", 1)
    assert (document.model, document.code, document.decision) == (proposal.model, before.code, digest)
    assert (document.resources, document.workers, document.limits) == (
        before.resources,
        before.workers,
        before.limits,
    )
    assert [file.path for file in workspace.tree(document.source.digest).files] == [
        "Dockerfile",
        "model/serve",
        "model/weights",
    ]
    assert list(promotions.decisions()) == [decision]


def test_a_promotion_that_was_killed_in_between_is_finished(
    workspace: WorkspaceCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint(workspace)
    promotions = Promotions(workspace)
    proposal = propose(workspace, job(workspace, {"accuracy": 0.6}))
    with monkeypatch.context() as patched:
        patched.setattr(promotions.endpoints, "add_revision", _killed)
        with pytest.raises(KeyboardInterrupt):
            promotions.promote(proposal, "d" * 64)
    assert promotions.endpoints.revision_numbers("e") == [1]
    document, _ = Promotions(workspace).promote(proposal, "d" * 64)
    assert promotions.endpoints.revision_numbers("e") == [1, document.revision]


def _killed(_: object) -> None:
    raise KeyboardInterrupt


def test_what_serves_by_the_time_counts(workspace: WorkspaceCatalog) -> None:
    endpoint(workspace)
    promotions = Promotions(workspace)
    waits = propose(workspace, job(workspace, {"accuracy": 0.6}))
    assert waits.accepted
    assert promotions.again(waits) == waits
    endpoint(
        workspace, propose(workspace, job(workspace, {"accuracy": 0.8})).model
    )  # while a person was asked
    assert not promotions.again(waits).accepted


@pytest.mark.parametrize(
    ("by", "approved", "outcome", "decided"),
    [
        ("eve", True, "promoted", "eve"),
        ("eve", False, "rejected", "eve"),
        ("", False, "rejected", "schedule s"),
    ],
)
def test_who_decided(
    workspace: WorkspaceCatalog, by: str, approved: bool, outcome: str, decided: str
) -> None:
    endpoint(workspace)
    proposal = propose(workspace, job(workspace, {"accuracy": 0.6}))
    decision = decide(proposal, Answer(approved=approved, by=by, at=NOW), RUN, NOW)
    assert (decision.outcome, decision.by) == (outcome, decided)
    assert ("nobody answered in time" in decision.reason) is (not by)
