"""What a policy lets go, what stays anyway, and what is left of what went."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lineages import Team, tree_of

from kaos.collect import Order, collect
from kaos.digest import digest_bytes
from kaos.errors import RemovedError, UnknownNameError
from kaos.job import JobDocument
from kaos.model import TagMove
from kaos.models import Models
from kaos.reachability import Reachability
from kaos.removals import Removals, removed_object
from kaos.retention import JobFacts, Note, RetentionPolicy, decide
from kaos.schedules import Schedules, Unless
from kaos.schema.retention import Collected
from kaos.store import Store, Uses, memory_store, open_file_store
from kaos.store.verify import verify_store

LAST = RetentionPolicy(keep_last=1)
NONE = RetentionPolicy(keep_last=0)


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return memory_store() if request.param == "memory" else open_file_store(tmp_path / "store")


@pytest.fixture
def team(store: Store) -> Team:
    return Team(store)


def gc(
    store: Store,
    policy: RetentionPolicy | None = None,
    *,
    name: str = "mnist",
    hours: float = 24,
    dry_run: bool = False,
    running: bool = False,
) -> Collected:
    """Collect with a policy for one workspace; whether jobs without an outcome run is given."""
    policies = {name: policy} if policy else {}
    order = Order(policies, "ada", lambda *_: running, timedelta(hours=hours), 5.0, dry_run)
    return collect(store, order)


def check(team: Team) -> None:
    """Check that `bundle verify` has nothing to say."""
    assert verify_store(team.store, team.workspace.trees())[1] == []


# -- the policy ----------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@st.composite
def histories(draw: st.DrawFn) -> list[JobFacts]:
    count = draw(st.integers(0, 12))
    models = st.frozensets(st.sampled_from("abcdef"), max_size=3)
    return [
        JobFacts(
            job_id=f"{index:032x}",
            definition=draw(st.sampled_from(["train", "night"])),
            ended_at=NOW - timedelta(days=draw(st.integers(0, 30))) if draw(st.booleans()) else None,
            models=draw(models),
        )
        for index in range(count)
    ]


policies = st.builds(
    RetentionPolicy,
    keep_last=st.none() | st.integers(0, 4),
    keep_days=st.none() | st.floats(0, 40, allow_nan=False),
)
names = st.frozensets(st.sampled_from("abcdef"))


@given(histories(), policies, names, names)
def test_decisions(
    jobs: list[JobFacts], policy: RetentionPolicy, needed: frozenset[str], before: frozenset[str]
) -> None:
    decision = decide(policy, jobs, dict.fromkeys(needed, "tag t"), before, NOW)
    made = {model for job in jobs for model in job.models}
    assert decision.kept.keys() | decision.removed == made
    assert not decision.kept.keys() & decision.removed
    assert needed & made <= decision.kept.keys()
    for job in jobs:
        young = policy.keep_days is not None and job.ended_at and (NOW - job.ended_at).days < policy.keep_days
        newer = [
            other
            for other in jobs
            if other.definition == job.definition
            and other.job_id > job.job_id
            and other.models
            and other.ended_at
        ]
        last = policy.keep_last is not None and len(newer) < policy.keep_last
        if job.ended_at is None or young or last or not policy.is_set:
            assert job.models - before <= decision.kept.keys()
        if job.job_id in decision.gone:
            assert job.ended_at is not None
            assert not job.models & decision.kept.keys()
    assert before & made - needed <= decision.removed
    if not policy.is_set:
        assert decision.removed == before & made - needed


@given(histories(), st.integers(0, 4), st.integers(0, 30))
def test_policy_that_keeps_more_removes_less(jobs: list[JobFacts], last: int, days: int) -> None:
    def removed(policy: RetentionPolicy) -> frozenset[str]:
        return decide(policy, jobs, {}, frozenset(), NOW).removed

    both = removed(RetentionPolicy(keep_last=last, keep_days=days))
    assert both <= removed(RetentionPolicy(keep_last=last))
    assert both <= removed(RetentionPolicy(keep_days=days))
    assert removed(RetentionPolicy(keep_last=last + 1)) <= removed(RetentionPolicy(keep_last=last))


# -- what goes and what stays --------------------------------------------------------------------------


def test_nothing_goes_without_a_policy(team: Team) -> None:
    models = [team.train(f"output {number}", days=100) for number in range(3)]
    report = gc(team.store, hours=0)
    assert report.discarded.objects == 0
    assert all(team.whole(model) for model in models)
    check(team)


def test_models_of_older_jobs_go_and_their_records_stay(team: Team) -> None:
    old = team.train("old output", source="old source", data="old data", days=2)
    new = team.train("new output", days=1)
    assert old.job.data is not None
    before = list(team.store.objects.stored())
    plan = gc(team.store, LAST, dry_run=True)
    assert list(team.store.objects.stored()) == before
    report = gc(team.store, LAST)
    assert [each.model_id for each in report.workspaces[0].models] == [old.model_id]
    assert plan.discarded == report.discarded
    assert plan.after.bytes == report.after.bytes
    assert report.before.bytes - report.after.bytes == report.discarded.bytes > 0
    for content in (b"old output", b"old source", b"old data", f"build of {old.job.job_id}".encode()):
        assert digest_bytes(content) not in set(team.store.objects.digests())
    assert team.whole(new)
    assert not team.whole(old)
    check(team)
    # What the lineage is made of still answers.
    workspace = team.workspace
    assert workspace.model_records(old.model_id) == [old]
    assert workspace.job(old.job.job_id)[0] == old.job
    assert workspace.outcome(old.job.job_id) is not None
    assert workspace.trials(old.job.job_id) == [old.run]
    tombstone = workspace.tombstone(old.model_id)
    assert tombstone is not None
    assert tombstone.removed is not None
    assert (tombstone.digest, tombstone.size, tombstone.removed.by) == (old.digest, old.size, "ada")
    # What is asked for says what happened to it.
    with pytest.raises(
        RemovedError, match=r"removed by retention on .* by ada .keep the models of the newest job"
    ):
        workspace.tree(old.digest)
    with pytest.raises(RemovedError, match=r"The model .* was removed by retention"):
        Models(workspace).pin(old.model_id)
    with pytest.raises(RemovedError, match="log of job"):
        Removals(workspace).content(old.job.job_id, old.run.log)
    note = removed_object(team.store, digest_bytes(b"old output"))
    assert note is not None
    assert note.by == "ada"
    assert removed_object(team.store, digest_bytes(b"never here")) is None
    # A second one finds nothing.
    again = gc(team.store, LAST)
    assert (again.discarded.objects, again.workspaces[0].models) == (0, [])


def test_days_keep_what_is_young(team: Team) -> None:
    old, young = team.train("old", data="1", days=10), team.train("young", data="2", days=3)
    last = team.train("last", data="3", days=20)
    gc(team.store, RetentionPolicy(keep_days=7))
    assert [team.whole(each) for each in (old, young, last)] == [False, True, False]
    assert team.workspace.is_complete(last.job.pinned_data.digest)  # a current input


def test_tag_keeps_a_model_with_all_that_made_it(team: Team) -> None:
    old = team.train("old", source="s1", data="d1")
    Models(team.workspace).move_tag("production", old.model_id, "ada")
    other = team.train("other", source="s2", data="d2")
    team.train("new", source="s3", data="d3")
    report = gc(team.store, LAST)
    assert report.workspaces[0].reasons == {"among the newest 1": 1, "tag production": 1}
    assert team.whole(old)
    assert not team.whole(other)
    # The other's records are no way to it, and the tag can be taken away.
    Models(team.workspace).move_tag("production", None, "ada")
    gc(team.store, LAST)
    assert not team.whole(old)
    check(team)


def test_content_that_others_share_stays(team: Team) -> None:
    old = team.train("same", source="s1", data="d")
    new = team.train("same", source="s2", data="d")
    neighbour = Team(team.store, "neighbour")
    theirs = neighbour.train("same", source="s1", data="d")
    gc(team.store, LAST)
    assert team.whole(new)
    assert neighbour.whole(theirs)
    assert team.workspace.removed_model(old.model_id) is not None
    check(team)
    check(neighbour)


def test_running_job_keeps_everything(team: Team) -> None:
    team.train("first", data="1")
    document = team.begin("s2", "2", days=1)
    records = team.run(document, ["a", "b"])
    team.train("last", data="3")
    log = team.store.objects.put(b"what is named only when the job ends")
    gc(team.store, NONE, hours=0, running=True)
    assert team.store.objects.get(log)
    models = team.end(document, records)
    assert all(team.whole(model) for model in models)
    check(team)


def test_a_model_that_waits_for_a_person_stays(team: Team) -> None:
    """The job of a schedule has ended, and its run goes on."""
    document = team.begin()
    Schedules(team.workspace).pin("nightly", document, Unless.NEVER, datetime.now(UTC))
    (model,) = team.end(document, team.run(document, ["output"]))
    team.train("other", source="other", data="other data")
    assert gc(team.store, NONE, running=True).workspaces[0].reasons == {"its schedule's run goes on": 1}
    assert team.whole(model)
    gc(team.store, NONE)
    assert not team.whole(model)


def test_what_a_running_job_found_is_not_discarded_before_it_ends(team: Team) -> None:
    """A job may have found an object of a removed model here, and name it days later."""
    old = team.train("old", data="1")
    document = team.begin("s2", "2", days=1)
    records = team.run(document, ["a"])
    lock = team.store.objects.put(b"the lock that both have")
    found = digest_bytes(b"old")
    assert team.store.objects.size(found) is not None
    report = gc(team.store, NONE, hours=0, running=True)
    assert report.discarded.objects == 0
    assert report.waiting.objects > 0
    assert {lock, found} <= {each.digest for each in team.store.objects.condemned()}
    with pytest.raises(RemovedError, match="log of job"):  # what waits for its end is not shown any more
        Removals(team.workspace).content(old.job.job_id, old.run.log)
    assert team.store.objects.get(found) == b"old"  # it came back
    team.end(document, records)
    report = gc(team.store, LAST, hours=0)
    assert report.waiting.objects == 0
    assert team.store.objects.size(lock) is None


def test_model_that_is_made_again_is_back(team: Team) -> None:
    first = team.train("output", data="1")
    team.train("other", data="2")
    gc(team.store, LAST)
    assert team.workspace.removed_model(first.model_id) is not None
    again = team.train("output", data="1")
    assert again.model_id == first.model_id
    assert team.workspace.removed_model(first.model_id) is None
    assert Models(team.workspace).pin(first.model_id).digest == first.digest
    assert team.whole(again)
    gc(team.store, LAST)
    assert team.whole(again)
    tombstone = team.workspace.tombstone(first.model_id)
    assert tombstone is not None
    assert tombstone.back == f"job {again.job.job_id} made it again"
    check(team)


def test_one_of_a_jobs_models_can_stay_alone(team: Team) -> None:
    document = team.begin("s", "d")
    models = team.end(document, team.run(document, ["a", "b", "c"]))
    Models(team.workspace).move_tag("best", models[1].model_id, "ada")
    team.train("new", source="s2", data="d2")
    gc(team.store, LAST)
    assert [team.whole(model) for model in models] == [False, True, False]
    assert Removals(team.workspace).job(document.job_id) is None
    check(team)


def test_upload_that_no_deploy_finished_stays_for_the_grace(team: Team) -> None:
    digest = team.store.objects.put(b"half of a deploy")
    pin = team.bundle("data", "committed, but no job yet")
    gc(team.store, NONE)
    assert team.store.objects.size(digest) is not None
    assert team.workspace.is_complete(pin.digest)
    gc(team.store, NONE, hours=0)
    assert team.store.objects.size(digest) is None
    assert not team.workspace.is_complete(pin.digest)
    assert team.workspace.bundle("data", pin.digest) is None
    assert team.bundle("data", "committed, but no job yet") == pin  # and can be deployed again
    assert team.workspace.is_complete(pin.digest)
    check(team)


def test_ref_of_a_kind_nobody_knows_keeps_what_it_names(team: Team) -> None:
    inner = team.store.objects.put(b"a file")
    outer = team.store.objects.put(b'{"of": "' + inner.encode() + b'"}')
    team.store.refs.create("workspaces/mnist/futures/f", outer.encode())
    team.store.refs.create(f"planets/{inner}", b"")
    gc(team.store, NONE, hours=0)
    assert team.store.objects.get(outer)
    assert team.store.objects.get(inner)


def test_rerun_of_a_removed_job_says_so(team: Team) -> None:
    old = team.train("old", data="1")
    team.train("new", data="2")
    gc(team.store, LAST)
    again = old.job.model_copy(update={"job_id": "0" * 32})
    with pytest.raises(RemovedError, match="Deploy its directory again"):
        team.workspace.add_job(again)
    assert "0" * 32 not in team.workspace.job_ids()


def test_damaged_document_keeps_what_only_it_may_name(tmp_path: Path) -> None:
    team = Team(open_file_store(tmp_path))
    model = team.train("output", days=9)
    path = tmp_path / "objects" / model.digest[:2] / model.digest
    path.chmod(0o644)
    path.write_bytes(b"x")
    report = gc(team.store, hours=0)
    assert any(model.digest in problem for problem in report.problems)
    assert team.store.objects.get(digest_bytes(b"output")) == b"output"


# -- what others do between the two looks --------------------------------------------------------------


class Between(Uses):
    """Does something else at the moment at which a collection waits: everything is set aside by then."""

    def __init__(self, inner: Uses, action: Callable[[], object]) -> None:
        self._inner = inner
        self._action = action

    def hold(self) -> AbstractContextManager[None]:
        return self._inner.hold()

    def settle(self, seconds: float) -> bool:
        self._action()
        return self._inner.settle(seconds)


def gc_with(team: Team, action: Callable[[], object], policy: RetentionPolicy = NONE) -> Collected:
    return gc(replace(team.store, uses=Between(team.store.uses, action)), policy, hours=0)


def test_tag_that_comes_between(team: Team) -> None:
    old = team.train("old", source="s1", data="d1")
    team.train("new", source="s2", data="d2")
    pin = Models(team.workspace).pin(old.model_id)

    def tag() -> None:
        # As a request that had found the model before it was removed.
        move = TagMove(name="best", model_id=pin.model_id, by="ada", at=old.created_at)
        digest = team.store.objects.put(move.encode())
        team.store.refs.create("workspaces/mnist/tags/best", digest.encode())

    gc_with(team, tag)
    assert team.whole(old)
    assert Models(team.workspace).pin("best") == pin
    check(team)


def test_deploy_that_comes_between(team: Team) -> None:
    old = team.train("old", source="s1", data="d1")
    team.train("new", source="s2", data="d2")
    begun: list[JobDocument] = []
    gc_with(team, lambda: begun.append(team.begin("s1", "d1")))
    assert team.workspace.is_complete(old.job.source.digest)
    again = team.end(begun[0], team.run(begun[0], ["old"]))[0]
    assert again.model_id == old.model_id
    assert team.whole(again)
    check(team)


def test_job_that_begins_before_its_bundles_are_noted_as_removed(team: Team) -> None:
    team.train("old", source="s1", data="d1")
    team.train("new", source="s2", data="d2")
    begun = team.begin("s1", "d1")
    note = Note(by="ada", at=NOW, why="a collection that looked before")
    # A deploy that comes now names them too, and a task finds them, each of them as if nothing had been.
    for pin, kind in ((begun.source, "source"), (begun.pinned_data, "data")):
        Removals(team.workspace).remove_tree(pin.digest, note)
        with pytest.raises(RemovedError):
            team.workspace.tree(pin.digest)
        assert team.workspace.given_bundle(kind, pin.digest) == pin
        assert team.workspace.removed_tree(pin.digest) == note
        assert team.workspace.needed_tree(pin.digest).digest == pin.digest
        assert team.workspace.removed_tree(pin.digest) is None
    check(team)


def test_what_is_gone_is_not_given(team: Team) -> None:
    old = team.train("old", source="s1", data="d1").job
    team.train("new", source="s2", data="d2")
    gc(team.store, LAST, hours=0)
    with pytest.raises(RemovedError, match="Deploy its directory again"):
        team.workspace.given_bundle("source", old.source.digest)
    with pytest.raises(RemovedError):
        team.workspace.needed_tree(old.source.digest)
    with pytest.raises(UnknownNameError):
        team.workspace.given_bundle("source", "0" * 64)


def test_model_that_is_made_again_between(team: Team) -> None:
    old = team.train("old", source="s1", data="d1")
    team.train("new", source="s2", data="d2")
    gc_with(team, lambda: team.train("old", source="s1", data="d1"))
    assert team.workspace.removed_model(old.model_id) is None
    assert team.whole(team.workspace.model_records(old.model_id)[-1])
    check(team)


def test_bundle_that_is_committed_between(team: Team) -> None:
    tree = tree_of(team.store, {"a": b"planned before"})
    gc_with(team, lambda: team.workspace.commit_bundle("data", "data", tree, "ada"))
    assert team.workspace.is_complete(tree.digest)
    check(team)


def test_collection_that_comes_between_another(team: Team) -> None:
    team.train("old", source="s1", data="d1")
    new = team.train("new", source="s2", data="d2")
    gc_with(team, lambda: gc(team.store, LAST, hours=0), LAST)
    assert team.whole(new)
    check(team)


def test_request_that_takes_long_keeps_what_it_may_have_found(team: Team) -> None:
    old = team.train("old", source="s1", data="d1")
    team.train("new", source="s2", data="d2")
    order = Order({"mnist": LAST}, "ada", lambda *_: False, settle=0.0)
    with team.store.uses.hold():
        assert collect(team.store, order).discarded.objects == 0
        assert team.store.objects.missing({digest_bytes(b"old"): 3}) == []
    assert collect(team.store, order).discarded.objects > 0
    assert not team.whole(old)


def test_what_was_written_after_the_objects_were_listed_is_followed_by_the_second_look() -> None:
    store = memory_store()
    weights = store.objects.put(b"weights")
    known = {weights: 7}
    record = store.objects.put(f'{{"model":"{weights}"}}'.encode())
    assert Reachability(store.objects, known).reached([record]) == set()
    assert Reachability(store.objects, known, newer=True).reached([record]) == {record, weights}
    assert Reachability(store.objects, known, newer=True).reached(["0" * 64]) == set()
