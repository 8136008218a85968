"""Collect what a store does not need any more: apply policies, set aside, look again, discard.

Whatever other processes do meanwhile, and wherever this one is killed, nothing that is named is lost: see
docs/decisions/retention.md.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from kaos.errors import ConflictError, RemovedError
from kaos.job import new_job_id
from kaos.removals import COLLECTIONS, Removals
from kaos.retention import Note, RetentionPolicy, Tombstone
from kaos.schema.retention import Amount, Collected, RemovedModel, WorkspaceCollected
from kaos.store import Condemned, FileObjects, Store, Stored
from kaos.survey import Running, Survey, WorkspaceView, survey

GRACE = timedelta(hours=24)
"""For so long an upload stays that no deploy has finished: the next try goes on with it."""

_Young = Callable[[str], bool]

_MARGIN = timedelta(minutes=1)
"""How far the clocks of two machines may be apart."""

_REPORTS = 100
_FEW = 500
_AT_ONCE = 8
_T = TypeVar("_T")


@dataclass(frozen=True)
class Order:
    """What to collect, and for whom.

    :param policies: by workspace; nothing of the other workspaces goes, but what nothing names goes anywhere
    :param grace: how old what nothing names has to be
    :param settle: seconds to wait for requests under way; if they take longer the space is free the next time
    """

    policies: Mapping[str, RetentionPolicy]
    by: str
    running: Running
    grace: timedelta = GRACE
    settle: float = 30.0
    dry_run: bool = False


def collect(store: Store, order: Order) -> Collected:
    """Remove what the policies let go and what nothing names, and return what that was."""
    return collect_and_look(store, order)[0]


def collect_and_look(store: Store, order: Order) -> tuple[Collected, Survey]:
    """Do the same, and return what the store needs as well, as it was last looked at."""
    began = time.monotonic()
    now = datetime.now(UTC)
    old = (now - order.grace).timestamp()
    # First the objects, then the refs: what is named after it was looked at is not among these copies.
    stored = list(store.objects.stored())
    aside = list(store.objects.condemned())
    written = {found.digest: found.written for found in stored}

    def young(digest: str) -> bool:
        return written.get(digest, now.timestamp()) >= old

    out = {each.digest for each in aside}
    found = survey(store, _sizes(stored, aside), order.policies, order.running, now, young, out)
    going = [each for each in stored if each.digest not in found.kept and _may_go(each, found, old)]
    report = Collected(
        at=now,
        by=order.by,
        dry_run=order.dry_run,
        workspaces=[_shown(view, found, order) for view in found.views if view.name in order.policies],
        before=_amount([*stored, *aside]),
        released=_amount(going),
        problems=[
            f"The document {digest} is damaged: kaos bundle verify says whose it is."
            for digest in found.damaged
        ],
    )
    if order.dry_run:
        gone: list[Stored | Condemned] = [*going, *(each for each in aside if each.digest not in found.kept)]
        plan = {
            "discarded": _amount(gone),
            "after": _less(report.before, _amount(gone)),
            "seconds": round(time.monotonic() - began, 3),
        }
        return report.model_copy(update=plan), found
    for view in found.views:
        if view.name in order.policies:
            _record(view, found, Note(by=order.by, at=now, why=view.policy.shown), young)
    batch = f"{time.time_ns() // 1_000_000:015d}-{secrets.token_hex(4)}"
    _many(lambda each: store.objects.condemn(each, batch), going)
    done, found = _discard(store, order, young)
    if isinstance(store.objects, FileObjects):
        store.objects.sweep_scratch(old)
    left = list(store.objects.condemned())
    report = report.model_copy(
        update={
            "discarded": _amount(done),
            "waiting": _amount(left),
            "after": _amount([*store.objects.stored(), *left]),
            "seconds": round(time.monotonic() - began, 3),
        }
    )
    _keep_report(store, order, done, now)
    return report, found


def _discard(store: Store, order: Order, young: _Young) -> tuple[list[Condemned], Survey]:
    """Look again, bring back what is needed after all, and discard the rest of what was set aside by now."""
    aside = list(store.objects.condemned())
    settled = store.uses.settle(order.settle)
    known = _sizes(store.objects.stored(), store.objects.condemned())
    out = {each.digest for each in aside}
    now = datetime.now(UTC)
    found = survey(store, known, order.policies, order.running, now, young, out, again=True)
    for view in found.views:
        _bring_back(view, found)
    before = found.oldest_unfinished
    latest = (before - _MARGIN).timestamp() if before is not None else float("inf")

    def end(each: Condemned) -> bool:
        if each.digest in found.kept:
            store.objects.restore(each.digest)
            return False
        return settled and each.since < latest and store.objects.discard(each)

    gone = _many(end, aside)
    return [each for each, is_gone in zip(aside, gone, strict=True) if is_gone], found


def _many(do: Callable[[_T], bool], things: list[_T]) -> list[bool]:
    """Do something for each thing, several at a time where there are many: each waits for the disk."""
    if len(things) < _FEW:
        return list(map(do, things))
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        parts = [things[start : start + _FEW] for start in range(0, len(things), _FEW)]
        return [done for part in pool.map(lambda part: list(map(do, part)), parts) for done in part]


def _may_go(each: Stored, found: Survey, old: float) -> bool:
    """Tell whether an object that is not kept may go: it was named before, or nobody came back for it."""
    if each.digest in found.named and each.digest not in found.unused:
        return True
    # What a damaged document names is not known: it may be this.
    return not found.damaged and each.written < old


def _record(view: WorkspaceView, found: Survey, note: Note, young: _Young) -> None:
    """Write down what goes, before any of it does."""
    catalog, removals = view.catalog, Removals(view.catalog)
    for key in sorted(view.decision.removed):
        if catalog.removed_model(key) is None:
            newest = catalog.model_records(key)[-1]
            catalog.add_tombstone(
                Tombstone(
                    model_id=key,
                    digest=newest.digest,
                    files=newest.files,
                    size=newest.size,
                    removed=note,
                    at=note.at,
                )
            )
    for job_id in sorted(view.decision.gone):
        removals.remove_job(job_id, note)
    for digest in _dead_trees(view, found):
        try:
            removals.remove_tree(digest, note)
        except ConflictError:  # it is being committed
            continue
    dead = set(view.removed_trees) | set(_dead_trees(view, found))
    at = f"workspaces/{view.name}"
    gone = [
        f"{at}/memo/{key}"
        for key, made in view.memo.items()
        if made.record.model in dead or made.job_id in view.decision.gone
    ]
    gone += [f"{at}/{kind}/{source}" for source in view.sources & dead for kind in ("images", "containers")]
    if view.policy.is_set:
        for digest, content in view.manifests.items():
            if content not in found.whole and not young(content):
                gone += [f"{at}/manifests/{digest}", f"{at}/origins/{digest}"]
    for name in gone:
        catalog.store.refs.delete(name)


def _dead_trees(view: WorkspaceView, found: Survey) -> list[str]:
    return [digest for digest in view.trees if digest not in found.whole] if view.policy.is_set else []


def _bring_back(view: WorkspaceView, found: Survey) -> None:
    """Undo the notes of what somebody needs after all."""
    catalog, removals = view.catalog, Removals(view.catalog)
    for digest in view.removed_trees:
        if digest in found.whole:
            try:
                catalog.use_tree(digest)
            except RemovedError:  # not all of it
                continue
    for key, why in view.needed.items():
        before = catalog.tombstone(key)
        if before is not None and before.removed is not None and catalog.is_complete(before.digest):
            again = {"removed": None, "back": f"needed by {why}", "at": datetime.now(UTC)}
            catalog.add_tombstone(before.model_copy(update=again))
    kept = {job.job_id for job in view.jobs if job.models & view.decision.kept.keys()}
    for job_id in kept.intersection(removals.jobs()):
        logs = [trial.log for trial in catalog.trials(job_id)] + [catalog.build_log_digest(job_id) or ""]
        # Of a model that a later job has made again, the first job's own logs are gone.
        if all(catalog.store.objects.size(log) is not None for log in logs if log):
            removals.bring_job_back(job_id)


def _shown(view: WorkspaceView, found: Survey, order: Order) -> WorkspaceCollected:
    catalog = view.catalog
    going = sorted(key for key in view.decision.removed if catalog.removed_model(key) is None)
    models = []
    for key in going:
        newest = catalog.model_records(key)[-1]
        models.append(
            RemovedModel(
                model_id=key,
                digest=newest.digest,
                job_id=newest.job.job_id,
                created_at=newest.created_at,
                size=newest.size,
            )
        )
    known = set(Removals(catalog).jobs())
    return WorkspaceCollected(
        workspace=view.name,
        policy=view.policy,
        models=sorted(models, key=lambda each: each.created_at),
        jobs=len(view.decision.gone - known),
        trees=len(_dead_trees(view, found)),
        kept=len(view.decision.kept),
        reasons=_counted(view.decision.kept.values()),
    )


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for reason in reasons:
        found[reason] = found.get(reason, 0) + 1
    return dict(sorted(found.items()))


def _keep_report(store: Store, order: Order, done: list[Condemned], now: datetime) -> None:
    """Keep which objects were discarded, for those who ask for one later."""
    if not done:
        return
    policies = "; ".join(f"{name}: {policy.shown}" for name, policy in sorted(order.policies.items()))
    note = Note(by=order.by, at=now, why=policies or "nothing named it")
    lines = [note.encode(), *(each.digest.encode() for each in done), b""]
    with store.uses.hold():
        digest = store.objects.put(b"\n".join(lines))
        store.refs.create(f"{COLLECTIONS}/{new_job_id()}", digest.encode())
    for name in list(store.refs.names(COLLECTIONS))[:-_REPORTS]:
        store.refs.delete(name)


def _sizes(stored: Iterable[Stored], aside: Iterable[Condemned]) -> dict[str, int]:
    found = {each.digest: each.size for each in aside}
    return found | {each.digest: each.size for each in stored}


def _amount(objects: Iterable[Stored | Condemned]) -> Amount:
    sizes = [each.size for each in objects]
    return Amount(objects=len(sizes), bytes=sum(sizes))


def _less(one: Amount, other: Amount) -> Amount:
    return Amount(objects=one.objects - other.objects, bytes=one.bytes - other.bytes)
