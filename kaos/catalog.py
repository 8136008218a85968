"""Everything that has a name in a store: workspaces with their bundles, inputs, jobs, outcomes and models.

The refs, below ``workspaces/<workspace>/``::

    workspace                       the Workspace
    definitions/<name>              a Definition
    inputs                          the current Inputs; changes by compare-and-swap
    bundles/<kind>/<digest>         a Bundle as it was committed
    trees/<digest>                  a tree that members of the workspace may read (a bundle's or a model's);
                                    empty, or the Note of its removal
    manifests/<digest>              a ManifestPin as it was committed
    origins/<manifest digest>       digest of what its URLs gave the last time
    jobs/<job_id>                   digest of the JobDocument
    resolved/<job_id>               a ResolvedManifest, once a job's manifest is downloaded
    progress/<job_id>               how far that download is; gone when it has ended
    trials/<job_id>/<index>         the TrialRecord of the trial's last try
    live/<job_id>/<index>           the LiveTrial of a trial that runs; without meaning once it has ended
    memo/<digest>                   the trial that was made of this environment, code, data and parameters
    failures/<job_id>/<index>       empty; a trial that failed, for counting them
    builds/<job_id>                 digest of the build's log
    images/<source digest>          digest of the environment that was last built from a source bundle
    containers/<source digest>      the ImageRecord of what was last built from it for containers
    outcomes/<job_id>               a JobOutcome, once the job has ended
    models/<model_id>/<job>-<trial> digest of a ModelRecord; the same model may come out of several jobs
    removed/...                     what retention removed, see kaos.removals
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from kaos.bundle import Tree
from kaos.curves import LiveTrial
from kaos.digest import SHORT, matching, shortest_prefix
from kaos.errors import (
    AlreadyExistsError,
    CorruptObjectError,
    FilesMissingError,
    InvalidInputError,
    RemovedError,
    UnknownNameError,
)
from kaos.job import (
    BundlePin,
    Definition,
    Inputs,
    JobDocument,
    JobOutcome,
    ManifestPin,
    ParametersPin,
    new_job_id,
)
from kaos.lineage import ImageRecord, ResolvedManifest, TrialRecord
from kaos.manifest import parse as parse_manifest
from kaos.model import ModelRecord, model_id, model_identity
from kaos.names import check_bundle, check_workspace
from kaos.parameters import Space
from kaos.retention import Note, Tombstone
from kaos.schema.bundle import Bundle, BundleKind
from kaos.schema.job import DownloadProgress
from kaos.schema.workspace import Workspace
from kaos.store import Store, change_ref
from kaos.value import Value

_SURE = 60.0
"""Seconds for which a commit takes for granted what it has found in the store."""

_COLLECTIONS = 10
"""So many collections that began before a job did may note its tree as removed."""


class Catalog:
    """The names of one store, across workspaces."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def workspaces(self) -> list[Workspace]:
        """Return all workspaces, sorted by name."""
        return [
            Workspace.parse(ref.value)
            for name in self.store.refs.names("workspaces")
            if name.count("/") == 2 and name.endswith("/workspace") and (ref := self.store.refs.get(name))
        ]

    def create_workspace(self, name: str, user: str) -> WorkspaceCatalog:
        """Make a workspace; one that was killed comes back, with the models that were kept.

        :raises InvalidNameError: the name cannot be used
        :raises AlreadyExistsError: it is there
        """
        ref_name = f"workspaces/{check_workspace(name)}/workspace"
        current = self.store.refs.get(ref_name)
        if current is not None and Workspace.parse(current.value).killed_at is None:
            raise AlreadyExistsError(
                f"The workspace {name!r} exists.", f"Use it: kaos workspace set -n {name}"
            )
        value = Workspace(name=name, created_at=datetime.now(UTC), created_by=user)
        self.store.refs.set(ref_name, value.encode(), current.version if current else None)
        return WorkspaceCatalog(self.store, value)

    def workspace(self, name: str) -> WorkspaceCatalog:
        """Return what is in a workspace.

        :raises UnknownNameError: there is none of this name
        """
        ref = self.store.refs.get(f"workspaces/{check_workspace(name)}/workspace")
        if ref is None:
            raise UnknownNameError(
                "workspace", name, (known.name for known in self.workspaces()), "See kaos workspace list."
            )
        return WorkspaceCatalog(self.store, Workspace.parse(ref.value))


class Made(Value):
    """A trial that succeeded, and the job it was part of."""

    job_id: str
    record: TrialRecord


class WorkspaceCatalog:
    """The names of one workspace."""

    def __init__(self, store: Store, workspace: Workspace) -> None:
        self.store = store
        self.workspace = workspace
        self._at = f"workspaces/{workspace.name}"

    def check_alive(self) -> None:
        """Check that the workspace takes jobs.

        :raises InvalidInputError: it was killed, with its models kept
        """
        if self.workspace.killed_at is not None:
            name = self.workspace.name
            raise InvalidInputError(
                f"The workspace {name!r} was killed; its models are still there.",
                f"Bring it back: kaos workspace create -n {name}",
            )

    # -- definitions -------------------------------------------------------------------------------------

    def set_definition(self, definition: Definition) -> None:
        """Record a definition in place of the one with its name."""
        name = f"{self._at}/definitions/{definition.name}"
        self._swap(name, lambda _: definition.encode())

    def remove_definition(self, name: str) -> None:
        """Forget a definition; one that is not there is no error."""
        self.store.refs.delete(f"{self._at}/definitions/{name}")

    def definitions(self) -> list[Definition]:
        """Return the definitions, sorted by name."""
        return [Definition.parse(value) for _, value in self._values("definitions")]

    # -- bundles -----------------------------------------------------------------------------------------

    def commit_bundle(self, kind: BundleKind, name: str, tree: Tree, user: str) -> Bundle:
        """Record the bundle with this tree, whose objects are all in the store; the first to submit it is its
        author.

        :raises FilesMissingError: objects of the tree are missing; nothing was recorded
        """
        check_bundle(name)
        with self.store.uses.hold():
            looked = time.time()
            self._check_arrived(tree)
            self.store.objects.put(tree.encoded)
            bundle = self._record_bundle(kind, name, tree, user)
            self._keep_tree(tree.digest)
            if time.time() - looked > _SURE:  # the machine slept, and nobody may have waited for us
                self._check_arrived(tree)
        return bundle

    def _check_arrived(self, tree: Tree) -> None:
        missing = self.store.objects.missing(tree.objects)
        if missing:
            raise FilesMissingError(len(missing))

    def _record_bundle(self, kind: BundleKind, name: str, tree: Tree, user: str) -> Bundle:
        new = BundlePin(
            name=name, digest=tree.digest, files=len(list(tree.files)), size=tree.size, author=user
        )

        def record(old: bytes | None) -> bytes:
            if old is None:
                return Bundle(kind=kind, pin=new, created_at=datetime.now(UTC)).encode()
            before = Bundle.parse(old)
            # The content is the identity; the name is what the newest deploy calls it.
            return before.model_copy(update={"pin": before.pin.model_copy(update={"name": name})}).encode()

        return Bundle.parse(self._swap(f"{self._at}/bundles/{kind}/{tree.digest}", record))

    def bundle(self, kind: BundleKind, digest: str) -> Bundle | None:
        """Return the committed bundle with this full digest, or None; one that was removed is none."""
        ref = self.store.refs.get(f"{self._at}/bundles/{kind}/{digest}")
        return Bundle.parse(ref.value) if ref and self.removed_tree(digest) is None else None

    def given_bundle(self, kind: BundleKind, digest: str) -> BundlePin:
        """Return the committed bundle with this digest, for who names it in a ref inside the same `hold`.

        :raises UnknownNameError: there is none
        :raises RemovedError: there was one
        """
        ref = self.store.refs.get(f"{self._at}/bundles/{kind}/{digest}")
        if ref is None:
            raise UnknownNameError(f"{kind} bundle", digest[:12], next_step="Deploy its directory again.")
        self.given_tree(digest)
        return Bundle.parse(ref.value).pin

    def is_complete(self, digest: str) -> bool:
        """Tell whether everything that a tree of the workspace names is in the store."""
        try:
            return not self.store.objects.missing(self.tree(digest).objects)
        except (CorruptObjectError, UnknownNameError, RemovedError):
            return False

    def is_whole(self, digest: str, *others: str) -> bool:
        """Tell whether a tree, registered or not, everything that it names, and other objects are here."""
        objects = self.store.objects
        try:
            lacking = objects.missing(Tree.stored(objects.get(digest)).objects)
        except CorruptObjectError:
            return False
        return not lacking and all(objects.size(other) is not None for other in others)

    def bundle_digests(self) -> list[str]:
        """Return the digests of all bundles of the workspace."""
        return [name.rpartition("/")[2] for name in self.store.refs.names(f"{self._at}/bundles")]

    def shown(self, pin: BundlePin) -> str:
        """Return a bundle as a person sees it: ``/mnist:e23a2``."""
        return f"/{pin.name}:{shortest_prefix(pin.digest, self.bundle_digests())}"

    def tree(self, digest: str) -> Tree:
        """Return the tree of a bundle or a model of this workspace, verified.

        :raises UnknownNameError: the workspace has none with this digest
        :raises RemovedError: it had
        """
        ref = self.store.refs.get(f"{self._at}/trees/{digest}")
        if ref is None:
            raise UnknownNameError("bundle or model", digest[:12])
        if ref.value:
            raise RemovedError(
                f"content of bundle or model {digest[:12]}",
                Note.parse(ref.value).shown,
                "Deploy its directory again, if you still have it: it gets the same digest.",
            )
        return Tree.stored(self.store.objects.get(digest))

    def removed_tree(self, digest: str) -> Note | None:
        """Return when and why the content of a tree was removed, None if it was not."""
        ref = self.store.refs.get(f"{self._at}/trees/{digest}")
        return Note.parse(ref.value) if ref and ref.value else None

    def use_tree(self, digest: str) -> None:
        """Let a tree that a ref names by now count as kept, if it was removed and all of it is still here.

        :raises RemovedError: it is not
        """
        note = self.removed_tree(digest)
        if note is None:
            return
        try:
            lacking = bool(self.store.objects.missing(Tree.stored(self.store.objects.get(digest)).objects))
        except CorruptObjectError:
            lacking = True
        if lacking:
            raise RemovedError(
                f"content of bundle or model {digest[:12]}", note.shown, "Deploy its directory again."
            )
        self._keep_tree(digest)

    def given_tree(self, digest: str) -> Tree:
        """Return a tree, as `tree` does, for who names it in a ref inside the same `hold`.

        One that a collection has just let go is as good as any while all of it is here; the note of its
        removal goes by `use_tree`, once the ref is there.
        """
        try:
            return self.tree(digest)
        except RemovedError:
            if not self.is_whole(digest):
                raise
            return Tree.stored(self.store.objects.get(digest))

    def needed_tree(self, digest: str) -> Tree:
        """Return a tree that a recorded job or revision needs, as `tree` does.

        A collection that looked before that was recorded may note the tree as removed, and takes the note
        back when it looks again. Whoever needs the tree in between takes it back himself.
        """
        for _ in range(_COLLECTIONS):
            try:
                return self.tree(digest)
            except RemovedError:
                self.use_tree(digest)
        return self.tree(digest)

    def _keep_tree(self, digest: str) -> None:
        """Register a tree, or take the note of its removal away; what names it has to be recorded before."""
        name = f"{self._at}/trees/{digest}"
        if not self.store.refs.create(name, b""):
            self._swap(name, lambda _: b"")

    def trees(self) -> Iterator[tuple[str, str]]:
        """Iterate over the trees of the workspace: digest, and what it is to a person."""
        names = {
            record.pin.digest: f"bundle /{record.pin.name}:{record.pin.digest[:5]}"
            for record in (Bundle.parse(value) for _, value in self._values("bundles"))
        }
        for name, note in self._values("trees"):
            if note:
                continue
            digest = name.rpartition("/")[2]
            yield digest, f"{names.get(digest, f'model {digest[:6]}')} of workspace {self.workspace.name}"

    # -- manifests ---------------------------------------------------------------------------------------

    def commit_manifest(self, name: str, content: bytes, user: str) -> ManifestPin:
        """Record a data manifest; the first to submit it is its author.

        :raises InvalidManifestError: it cannot be used; nothing was recorded
        """
        with self.store.uses.hold():
            return self._record_manifest(name, content, user)

    def _record_manifest(self, name: str, content: bytes, user: str) -> ManifestPin:
        manifest = parse_manifest(content)
        new = ManifestPin(
            name=check_bundle(name),
            digest=manifest.digest,
            content=self.store.objects.put(content),
            files=len(manifest.entries),
            size=manifest.size,
            author=user,
        )

        def record(old: bytes | None) -> bytes:
            author = ManifestPin.parse(old).author if old else user
            return new.model_copy(update={"author": author}).encode()

        return ManifestPin.parse(self._swap(f"{self._at}/manifests/{new.digest}", record))

    def manifest(self, digest: str) -> ManifestPin | None:
        """Return the committed manifest with this full digest, or None."""
        ref = self.store.refs.get(f"{self._at}/manifests/{digest}")
        return ManifestPin.parse(ref.value) if ref else None

    def shown_manifest(self, pin: ManifestPin) -> str:
        """Return a manifest as a person sees it: ``/features:c6062``."""
        digests = [name.rpartition("/")[2] for name in self.store.refs.names(f"{self._at}/manifests")]
        return f"/{pin.name}:{shortest_prefix(pin.digest, digests)}"

    def origins(self, manifest: str) -> bytes:
        """Return what the URLs of a manifest gave the last time, JSON lines; empty before the first time."""
        ref = self.store.refs.get(f"{self._at}/origins/{manifest}")
        return self.store.objects.get(ref.value.decode()) if ref else b""

    def resolve_manifest(self, job_id: str, resolved: ResolvedManifest) -> ResolvedManifest:
        """Record what a job's manifest gave, once: the first stays, and is returned."""
        name = f"{self._at}/resolved/{job_id}"
        if self.store.refs.create(name, resolved.encode()):
            self._swap(f"{self._at}/origins/{resolved.manifest}", lambda _: resolved.origins.encode())
            return resolved
        return self.resolved(job_id) or resolved

    def resolved(self, job_id: str) -> ResolvedManifest | None:
        """Return what a job's manifest gave, or None while it is not downloaded."""
        ref = self.store.refs.get(f"{self._at}/resolved/{job_id}")
        return ResolvedManifest.parse(ref.value) if ref else None

    def with_data(self, document: JobDocument) -> JobDocument:
        """Return a job with its data, if its manifest is downloaded by now."""
        if document.data is not None:
            return document
        resolved = self.resolved(document.job_id)
        return document.model_copy(update={"data": resolved.data}) if resolved else document

    def set_progress(self, job_id: str, progress: DownloadProgress | None) -> None:
        """Record how far a job's download is; None when it has ended."""
        name = f"{self._at}/progress/{job_id}"
        if progress is None:
            self.store.refs.delete(name)
        else:
            self._swap(name, lambda _: progress.encode())

    def progress(self, job_id: str) -> DownloadProgress | None:
        """Return how far a job's download is, or None if there is none."""
        ref = self.store.refs.get(f"{self._at}/progress/{job_id}")
        return DownloadProgress.parse(ref.value) if ref else None

    # -- inputs ------------------------------------------------------------------------------------------

    def inputs(self) -> Inputs:
        """Return the current inputs."""
        ref = self.store.refs.get(f"{self._at}/inputs")
        return Inputs.parse(ref.value) if ref else Inputs()

    def merge_inputs(self, new: Inputs, *, drop_params: bool = False) -> Inputs:
        """Put `new` into the current inputs in one step, and return what then was current.

        :param drop_params: have no hyperparameters afterwards
        """

        def merge(old: bytes | None) -> bytes:
            merged = (Inputs.parse(old) if old else Inputs()).merge(new)
            return (merged.without_params() if drop_params else merged).encode()

        return Inputs.parse(self._swap(f"{self._at}/inputs", merge))

    def add_space(self, space: Space) -> str:
        """Store hyperparameters and return their digest."""
        return self.store.objects.put(space.canonical)

    def space(self, pin: ParametersPin | None) -> Space | None:
        """Return the hyperparameters that a job names, or None if it has none."""
        return Space.parse(self.store.objects.get(pin.digest)) if pin else None

    # -- jobs --------------------------------------------------------------------------------------------

    def add_job(self, document: JobDocument) -> str:
        """Record a job before it starts, and return the digest of its document.

        :raises RemovedError: retention has removed what it should run on; nothing was recorded
        """
        name = f"{self._at}/jobs/{document.job_id}"
        with self.store.uses.hold():
            digest = self.store.objects.put(document.encode())
            self.store.refs.set(name, digest.encode(), None)
            try:
                for pin in (document.source, document.data):
                    if pin is not None:
                        self.use_tree(pin.digest)
            except RemovedError:
                self.store.refs.delete(name)
                raise
        return digest

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs, the oldest first."""
        return [name.rpartition("/")[2] for name in self.store.refs.names(f"{self._at}/jobs")]

    def job(self, job_id: str) -> tuple[JobDocument, str]:
        """Return a job's document, with its data where that came by a manifest, and the document's digest.

        :param job_id: the whole id, or a beginning that only one job has
        :raises UnknownNameError: there is no such job, or several
        """
        ids = (
            [job_id]
            if len(job_id) == 32
            else matching(job_id, self.job_ids())
            if len(job_id) >= SHORT
            else []
        )
        ref = self.store.refs.get(f"{self._at}/jobs/{ids[0]}") if len(ids) == 1 and ids[0] else None
        if ref is None:
            raise UnknownNameError("job", job_id, self.job_ids(), "See kaos train list.")
        digest = ref.value.decode()
        return self.with_data(JobDocument.parse(self.store.objects.get(digest))), digest

    def set_trial(self, job_id: str, record: TrialRecord) -> None:
        """Record how a trial ended; a later try takes the place of an earlier one."""
        self._swap(f"{self._at}/trials/{job_id}/{record.index:06d}", lambda _: record.encode())

    def trial(self, job_id: str, index: int) -> TrialRecord | None:
        """Return the record of a trial that has ended, or None."""
        ref = self.store.refs.get(f"{self._at}/trials/{job_id}/{index:06d}")
        return TrialRecord.parse(ref.value) if ref else None

    def remember_trial(self, key: str, job_id: str, record: TrialRecord) -> None:
        """Keep a trial's record under what it was made of, for jobs that take models over."""
        self.store.refs.create(f"{self._at}/memo/{key}", Made(job_id=job_id, record=record).encode())

    def made(self, key: str) -> Made | None:
        """Return the trial that was made of this, or None."""
        ref = self.store.refs.get(f"{self._at}/memo/{key}")
        return Made.parse(ref.value) if ref else None

    def add_failure(self, job_id: str, index: int) -> int:
        """Count a trial as failed, and return how many of the job are."""
        self.store.refs.create(f"{self._at}/failures/{job_id}/{index:06d}", b"")
        return self.failures(job_id)

    def failures(self, job_id: str) -> int:
        """Return how many trials of a job have failed."""
        return sum(1 for _ in self.store.refs.names(f"{self._at}/failures/{job_id}"))

    def trials(self, job_id: str) -> list[TrialRecord]:
        """Return the records of a job's trials that have ended, by index."""
        return [TrialRecord.parse(value) for _, value in self._values(f"trials/{job_id}")]

    def set_live(self, job_id: str, trial: LiveTrial) -> None:
        """Record the newest metrics of a trial that runs."""
        self._swap(f"{self._at}/live/{job_id}/{trial.index:06d}", lambda _: trial.encode())

    def live(self, job_id: str) -> list[LiveTrial]:
        """Return the newest metrics of the job's trials that run, or ran when their worker was lost."""
        return [LiveTrial.parse(value) for _, value in self._values(f"live/{job_id}")]

    def live_trial(self, job_id: str, index: int) -> LiveTrial | None:
        """Return the newest metrics of one of them, or None."""
        ref = self.store.refs.get(f"{self._at}/live/{job_id}/{index:06d}")
        return LiveTrial.parse(ref.value) if ref else None

    def drop_live(self, job_id: str, index: int | None = None) -> None:
        """Forget the newest metrics of a trial that has ended, or those of all of a job's."""
        names = [f"{self._at}/live/{job_id}/{index:06d}"] if index is not None else None
        for name in names or list(self.store.refs.names(f"{self._at}/live/{job_id}")):
            self.store.refs.delete(name)

    def set_build_log(self, job_id: str, digest: str) -> None:
        """Record the log of a job's build, an object in the store."""
        self._swap(f"{self._at}/builds/{job_id}", lambda _: digest.encode())

    def build_log(self, job_id: str) -> bytes | None:
        """Return the log of a job's build, or None while there is none."""
        digest = self.build_log_digest(job_id)
        return self.store.objects.get(digest) if digest else None

    def build_log_digest(self, job_id: str) -> str | None:
        """Return the digest of the log of a job's build, or None while there is none."""
        ref = self.store.refs.get(f"{self._at}/builds/{job_id}")
        return ref.value.decode() if ref else None

    def set_image(self, source: str, digest: str) -> None:
        """Record what was built from the source bundle with this digest."""
        self._swap(f"{self._at}/images/{source}", lambda _: digest.encode())

    def image(self, source: str) -> str | None:
        """Return the digest of what was last built from a source bundle, or None."""
        ref = self.store.refs.get(f"{self._at}/images/{source}")
        return ref.value.decode() if ref else None

    def set_container_image(self, source: str, record: ImageRecord) -> None:
        """Record the image that was built from the source bundle with this digest."""
        self._swap(f"{self._at}/containers/{source}", lambda _: record.encode())

    def container_image(self, source: str) -> ImageRecord | None:
        """Return the image that was last built from a source bundle, or None."""
        ref = self.store.refs.get(f"{self._at}/containers/{source}")
        return ImageRecord.parse(ref.value) if ref else None

    def built(self, source: str, runtime: str) -> str | None:
        """Return the digest of what was last built from a source bundle for a runtime, or None."""
        if runtime == "process":
            return self.image(source)
        record = self.container_image(source)
        return record.id if record else None

    def set_outcome(self, outcome: JobOutcome) -> JobOutcome:
        """Record how a job ended, once: the first outcome stays, and is returned."""
        name = f"{self._at}/outcomes/{outcome.job_id}"
        if self.store.refs.create(name, outcome.encode()):
            return outcome
        return self.outcome(outcome.job_id) or outcome

    def outcome(self, job_id: str) -> JobOutcome | None:
        """Return how a job ended, or None."""
        ref = self.store.refs.get(f"{self._at}/outcomes/{job_id}")
        return JobOutcome.parse(ref.value) if ref else None

    # -- models ------------------------------------------------------------------------------------------

    def next_model_ids(self, document: JobDocument, digests: Iterable[str]) -> dict[str, str]:
        """Return the ids for models with these trees, by digest; the same content has the same id."""
        found: dict[str, str] = {}
        given: dict[str, str] = {}
        for digest in dict.fromkeys(digests):
            key = model_id(document, digest, lambda key: given.get(key) or self._identity(key))
            found[digest], given[key] = key, model_identity(document, digest)
        return found

    def output_tree(self, digest: str) -> Tree:
        """Return the tree that a trial wrote, before it is registered.

        :raises CorruptObjectError: it is not in the store
        """
        return Tree.decode(self.store.objects.get(digest))

    def add_model(self, record: ModelRecord) -> None:
        """Record a model, whose tree's objects are all in the store."""
        with self.store.uses.hold():
            digest = self.store.objects.put(record.encode())
            name = f"{self._at}/models/{record.model_id}/{record.job.job_id}-{record.trial.index}"
            self.store.refs.create(name, digest.encode())
            self._keep_tree(record.digest)
        before = self.tombstone(record.model_id)
        if before is not None and before.removed is not None:
            self.add_tombstone(
                before.model_copy(
                    update={
                        "removed": None,
                        "back": f"job {record.job.job_id} made it again",
                        "at": datetime.now(UTC),
                    }
                )
            )

    def add_tombstone(self, tombstone: Tombstone) -> None:
        """Record that a model was removed, or that it is back; older ones stay."""
        self.store.refs.create(
            f"{self._at}/removed/models/{tombstone.model_id}/{new_job_id()}", tombstone.encode()
        )

    def tombstone(self, key: str) -> Tombstone | None:
        """Return the newest tombstone of a model (by id), None if it was never removed."""
        names = list(self.store.refs.names(f"{self._at}/removed/models/{key}"))
        ref = self.store.refs.get(names[-1]) if names else None
        return Tombstone.parse(ref.value) if ref else None

    def removed_model(self, key: str) -> Note | None:
        """Return when and why a model (by id) was removed, None if it was not, or is back."""
        found = self.tombstone(key)
        return found.removed if found else None

    def model_ids(self) -> list[str]:
        """Return the ids of all models, sorted."""
        names = self.store.refs.names(f"{self._at}/models")
        return sorted({name.split("/")[3] for name in names})

    def models_of_jobs(self) -> Iterator[tuple[str, str]]:
        """Iterate over the ids of models and of the jobs that made them, one for each record."""
        for name in self.store.refs.names(f"{self._at}/models"):
            key, made = name.split("/")[3:5]
            yield key, made.partition("-")[0]

    def model_records(self, key: str) -> list[ModelRecord]:
        """Return the records of a model, the oldest first: one for each job and trial that made it.

        :raises UnknownNameError: there is no such model
        """
        records = [
            ModelRecord.parse(self.store.objects.get(value.decode()))
            for _, value in self._values(f"models/{key}")
        ]
        if not records:
            raise UnknownNameError("model", key, self.model_ids(), "See kaos train info.")
        return records

    def job_model(self, job_id: str, key: str, index: int) -> ModelRecord:
        """Return the record of the model (by id) that a trial made.

        :raises UnknownNameError: there is no such model
        """
        ref = self.store.refs.get(f"{self._at}/models/{key}/{job_id}-{index}")
        if ref is None:
            raise UnknownNameError("model", key, next_step="See kaos train info.")
        return ModelRecord.parse(self.store.objects.get(ref.value.decode()))

    def job_models(self, job_id: str, keys: list[str]) -> list[ModelRecord]:
        """Return the records of those models (by id) that a job made, by trial."""
        found = [record for key in dict.fromkeys(keys) for record in self.model_records(key)]
        return sorted(
            (record for record in found if record.job.job_id == job_id), key=lambda r: r.trial.index
        )

    def _identity(self, key: str) -> str | None:
        name = next(self.store.refs.names(f"{self._at}/models/{key}"), None)
        if name is None:
            return None
        ref = self.store.refs.get(name)  # any of them: thousands of trials may have made the same model
        if ref is None:
            return None
        record = ModelRecord.parse(self.store.objects.get(ref.value.decode()))
        return model_identity(record.job, record.digest)

    # -- the end -----------------------------------------------------------------------------------------

    def kill(self, *, keep_models: bool) -> None:
        """Forget the workspace; with `keep_models` its jobs and models stay readable."""
        if keep_models:
            killed = self.workspace.model_copy(update={"killed_at": datetime.now(UTC)})
            self._swap(f"{self._at}/workspace", lambda _: killed.encode())
            self.store.refs.delete(f"{self._at}/inputs")
            for below in ("definitions", "schedules", "told"):
                for name in list(self.store.refs.names(f"{self._at}/{below}")):
                    self.store.refs.delete(name)
            return
        # The workspace itself last: a kill cut short can be repeated.
        for name in [*self.store.refs.names(self._at)]:
            if name != f"{self._at}/workspace":
                self.store.refs.delete(name)
        self.store.refs.delete(f"{self._at}/workspace")

    def _values(self, below: str) -> Iterator[tuple[str, bytes]]:
        for name in self.store.refs.names(f"{self._at}/{below}"):
            ref = self.store.refs.get(name)
            if ref is not None:
                yield name, ref.value

    def _swap(self, name: str, change: Callable[[bytes | None], bytes]) -> bytes:
        return change_ref(self.store.refs, name, change)
