"""Look at all refs of a store, and say which objects are needed: by what stays, and by records alone.

Refs of a kind that is not known here are roots, and everything that can be reached from them stays, so that a
record added later is never lost. The kinds that are known are looked at more closely: what a removed model or
job alone needs does not stay, but its records do.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from kaos.catalog import Catalog, Made, WorkspaceCatalog
from kaos.endpoint import Endpoint
from kaos.errors import CorruptObjectError, InvalidInputError, UnknownNameError
from kaos.job import ManifestPin
from kaos.models import Models
from kaos.names import dag_id
from kaos.reachability import Reachability, digests_in
from kaos.removals import COLLECTIONS, Removals
from kaos.retention import Decision, JobFacts, RetentionPolicy, decide
from kaos.schedules import Pinned, ScheduleState
from kaos.serving.records import Endpoints
from kaos.store import Store

Running = Callable[[str, str], bool]
"""Tells whether Airflow still works on a run: DAG id and run id."""

YOUNG = timedelta(minutes=2)
"""For so long a job that Airflow does not know counts as one that is about to start."""


class Weight(Enum):
    """How much a ref keeps: all that can be reached, that but for trees, the record it names, or nothing."""

    ALL = 1
    RECORDS = 2
    RECORD = 3
    NOTHING = 4


_OF_JOBS = ("jobs", "resolved", "progress", "trials", "live", "failures", "builds", "outcomes")
_HISTORY = ("reproductions", "decisions", "promotions")
_NOT_ROOTS = ("images", "containers", "removed", "retention")


@dataclass
class WorkspaceView:
    """A workspace as a collection found it.

    :param policy: that applies; one that is not set lets nothing go
    :param unfinished: when each job and each deploy of a revision began that has not ended
    :param jobs: the jobs with what the policy looks at
    :param ended: ids of those that have ended
    :param active: ids of the others
    :param dead: revisions that nobody can come back to, by endpoint and number
    :param dead_jobs: ids of their deploys
    """

    catalog: WorkspaceCatalog
    policy: RetentionPolicy
    unfinished: list[datetime] = field(default_factory=list)
    jobs: list[JobFacts] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    active: set[str] = field(default_factory=set)
    decision: Decision = field(default_factory=lambda: Decision({}, frozenset(), frozenset()))
    dead: set[tuple[str, int]] = field(default_factory=set)
    dead_jobs: set[str] = field(default_factory=set)
    trees: list[str] = field(default_factory=list)
    removed_trees: list[str] = field(default_factory=list)
    manifests: dict[str, str] = field(default_factory=dict)
    memo: dict[str, Made] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)
    needed: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the workspace's name."""
        return self.catalog.workspace.name


@dataclass(frozen=True)
class Survey:
    """What a store needs.

    :param kept: digests of all objects that stay
    :param whole: those of them that stay for what they are, and not as records of something removed
    :param named: digests of all objects that any ref leads to, removed or not; looked for the first time only
    :param unused: trees that were committed and that no job or deploy has used yet
    """

    views: list[WorkspaceView]
    kept: set[str]
    whole: set[str]
    named: set[str]
    unused: set[str]
    damaged: list[str]

    @property
    def oldest_unfinished(self) -> datetime | None:
        """Return when the oldest job began that has not ended, None if all have."""
        return min((each for view in self.views for each in view.unfinished), default=None)


def survey(
    store: Store,
    known: Mapping[str, int],
    policies: Mapping[str, RetentionPolicy],
    running: Running,
    now: datetime,
    young: Callable[[str], bool],
    aside: Container[str],
    *,
    again: bool = False,
) -> Survey:
    """Return what the store needs once these policies (by workspace) are applied.

    :param aside: what is set aside, and comes back if it is needed
    :param again: let no further model or job go, only those that were recorded as removed
    :param known: size in bytes of each object by digest, read before
    :param young: tells of an object whether it was written so recently that a deploy may be under way
    """
    # The second look decides: what a record names that was written after the objects were listed counts.
    reach = Reachability(store.objects, known, newer=again)
    views = []
    # Whether a job has ended is looked at first: of one that had, everything is named by the refs below.
    for found in Catalog(store).workspaces():
        try:
            views.append(_view(Catalog(store).workspace(found.name), policies, running, now, again))
        except UnknownNameError:  # it is being killed
            continue
    by_name = {view.name: view for view in views}
    roots: dict[Weight, list[str]] = {weight: [] for weight in Weight}
    trees: list[str] = []
    reports: set[str] = set()
    for name, value in _refs(store):
        named = digests_in(name) + digests_in(value)
        top, _, rest = name.partition("/")
        workspace, _, rest = rest.partition("/")
        if top == COLLECTIONS:
            reports.update(named)
            continue
        view = by_name.get(workspace) if top == "workspaces" else None
        if view is None:
            roots[Weight.ALL] += named
            continue
        family, _, tail = rest.partition("/")
        if family == "trees":
            (view.removed_trees if value else view.trees).append(tail)
            trees.append(tail)
        elif family == "bundles":  # it is registered as a tree too
            continue
        elif family in ("manifests", "origins"):
            if family == "manifests":
                view.manifests[tail] = ManifestPin.parse(value).content
            roots[Weight.NOTHING] += named
        else:
            _note(view, family, tail, value)
            roots[_weight(view, family, tail, value)] += named
    result = _reached(reach, views, roots, trees, young, store, aside)
    result.kept.update(reports)
    return result


def _reached(
    reach: Reachability,
    views: list[WorkspaceView],
    roots: Mapping[Weight, list[str]],
    trees: Iterable[str],
    young: Callable[[str], bool],
    store: Store,
    aside: Container[str],
) -> Survey:
    registered = set(trees)
    used = reach.reached((each for some in roots.values() for each in some), closed=aside)
    unused = registered - used
    whole = set(roots[Weight.ALL])
    for view in views:
        if view.policy.is_set:
            whole |= {tree for tree in view.trees if tree in unused and young(tree)}
        else:
            whole |= set(view.trees)
    kept_whole = reach.reached(whole)
    for view in views:
        kept_manifests = {
            digest: content
            for digest, content in view.manifests.items()
            if not view.policy.is_set or content in kept_whole or young(content)
        }
        more = set(kept_manifests.values())
        for digest in kept_manifests:
            ref = store.refs.get(f"workspaces/{view.name}/origins/{digest}")
            more |= set(digests_in(ref.value)) if ref else set()
        kept_whole |= reach.reached(more)
    records = reach.reached(roots[Weight.RECORDS], registered - kept_whole)
    single = {each for each in roots[Weight.RECORD] if each not in registered and reach.is_document(each)}
    named = used | reach.reached(registered, closed=aside)
    return Survey(views, kept_whole | records | single, kept_whole, named, unused, reach.damaged)


def _refs(store: Store) -> Iterator[tuple[str, bytes]]:
    for name in store.refs.names(""):
        ref = store.refs.get(name)
        if ref is not None:
            yield name, ref.value


def _starts_jobs(view: WorkspaceView, family: str, value: bytes) -> bool:
    """Tell whether a schedule's record names a job that has not ended, or is not even recorded yet."""
    pinned = ScheduleState.parse(value).pinned if family == "schedules" else (Pinned.parse(value),)
    return any(each.job_id not in view.ended for each in pinned)


def _weight(view: WorkspaceView, family: str, tail: str, value: bytes) -> Weight:
    """Return what a ref of a workspace keeps."""
    first, _, rest = tail.partition("/")
    if family in _NOT_ROOTS:
        return Weight.NOTHING
    if family in _OF_JOBS:
        if first in view.decision.gone or first in view.dead_jobs:
            return Weight.RECORD if family in ("jobs", "outcomes") else Weight.NOTHING
        return Weight.RECORDS if family in ("trials", "outcomes") and first in view.ended else Weight.ALL
    if family == "memo":
        return Weight.NOTHING if view.memo[tail].job_id in view.decision.gone else Weight.RECORDS
    if family in _HISTORY:
        return Weight.RECORDS
    if family in ("schedules", "ticks"):
        return Weight.ALL if _starts_jobs(view, family, value) else Weight.RECORDS
    if family == "models":
        return Weight.RECORD if first in view.decision.removed else Weight.ALL
    if family in ("revisions", "served", "ends"):
        if (first, int(rest)) not in view.dead:
            return Weight.ALL
        # What verifies a store looks for the lock of each revision that was routed.
        return {"ends": Weight.NOTHING, "served": Weight.RECORDS}.get(family, Weight.RECORD)
    return Weight.ALL


def _note(view: WorkspaceView, family: str, tail: str, value: bytes) -> None:
    """Keep in mind what is removed together with something else."""
    if family == "memo":
        view.memo[tail] = Made.parse(value)
    elif family in ("images", "containers"):
        view.sources.add(tail)


def _view(
    catalog: WorkspaceCatalog,
    policies: Mapping[str, RetentionPolicy],
    running: Running,
    now: datetime,
    again: bool,
) -> WorkspaceView:
    view = WorkspaceView(catalog, policies.get(catalog.workspace.name, RetentionPolicy()))
    removals = Removals(catalog)
    _look_at_jobs(view, running, now)
    _look_at_schedules(view, running)
    _look_at_endpoints(view, running, now)
    for move in Models(catalog).tags():
        if move.model_id is not None:
            view.needed.setdefault(move.model_id, f"tag {move.name}")
    removed = {key for key in removals.models() if catalog.removed_model(key) is not None}
    before = frozenset(removed | set(removals.jobs()))
    policy = RetentionPolicy() if again else view.policy
    view.decision = decide(policy, view.jobs, view.needed, before, now)
    return view


def _look_at_jobs(view: WorkspaceView, running: Running, now: datetime) -> None:
    """Note the jobs of a workspace: first which of them have ended."""
    catalog = view.catalog
    models: dict[str, set[str]] = {}
    ids = catalog.job_ids()
    outcomes = {job_id: catalog.outcome(job_id) for job_id in ids}
    for key, job_id in catalog.models_of_jobs():
        models.setdefault(job_id, set()).add(key)
    for job_id in ids:
        outcome, definition, ended_at = outcomes[job_id], "", None
        if outcome is None or view.policy.is_set:
            try:
                document, _ = catalog.job(job_id)
            except (CorruptObjectError, InvalidInputError, UnknownNameError):  # damaged, or going
                view.unfinished += [] if outcome else [now]
                view.active.add(job_id)
                continue
            # Models that were made again to be compared do not push those out that were made to be used.
            definition = f"{document.definition} {'again' if document.reproduces else ''}"
            if outcome is None:
                begins = now - document.submitted_at < YOUNG
                if begins or running(document.dag_id, document.run_id):
                    view.unfinished.append(document.submitted_at)
                else:
                    ended_at = document.submitted_at
        if outcome is not None:
            ended_at = outcome.ended_at
        (view.active if ended_at is None else view.ended).add(job_id)
        view.jobs.append(JobFacts(job_id, definition, ended_at, frozenset(models.get(job_id, ()))))
        if ended_at is None:
            for key in models.get(job_id, ()):
                view.needed[key] = "its job runs"


def _look_at_schedules(view: WorkspaceView, running: Running) -> None:
    """Note the models of jobs whose schedule's run goes on: one may wait for a person."""
    refs = view.catalog.store.refs
    models = {job.job_id: job.models for job in view.jobs if job.ended_at is not None}
    for name in refs.names(f"workspaces/{view.name}/schedules"):
        ref = refs.get(name)
        # A schedule's runs come one after the other: it is the newest, if any.
        for pinned in ScheduleState.parse(ref.value).pinned[-1:] if ref is not None else ():
            made = models.get(pinned.job_id)
            if made and running(dag_id(view.name, name.rpartition("/")[2]), pinned.run_id):
                for model in made:
                    view.needed.setdefault(model, "its schedule's run goes on")


def _look_at_endpoints(view: WorkspaceView, running: Running, now: datetime) -> None:
    """Note what endpoints need, and which revisions nobody can come back to."""
    records = Endpoints(view.catalog)
    for name in records.names():
        endpoint = records.get(name)
        numbers = records.revision_numbers(name)
        for number in numbers:
            document, _ = records.revision(name, number)
            deploys = (
                endpoint.killed_at is None
                and records.outcome(name, number) is None
                and (now - document.submitted_at < YOUNG or running(document.dag_id, document.run_id))
            )
            if deploys:
                view.unfinished.append(document.submitted_at)
            elif number not in _served(endpoint, numbers) and view.policy.is_set:
                view.dead.add((name, number))
                view.dead_jobs.add(document.job_id)
                continue
            if document.model is not None and endpoint.killed_at is None:
                view.needed.setdefault(document.model.model_id, f"endpoint {name}")


def _served(endpoint: Endpoint, numbers: list[int]) -> set[int]:
    """Return the revisions of an endpoint that have traffic or may get it back, and the newest."""
    if endpoint.killed_at is not None:
        return set()
    found = {endpoint.current, endpoint.previous, endpoint.canary, endpoint.wanted, *numbers[-1:]}
    return {number for number in found if number is not None}
