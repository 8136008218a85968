"""Collections beside deploys and trainings: in every order of their steps, and truly at the same time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from threading import Event

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lineages import Team, tree_of

from kaos.bundle import Tree
from kaos.collect import Order, collect
from kaos.errors import InvalidInputError, RemovedError
from kaos.job import Inputs, JobDocument
from kaos.lineage import TrialRecord
from kaos.model import ModelRecord
from kaos.models import Models
from kaos.removals import Removals
from kaos.retention import RetentionPolicy
from kaos.store import Store, memory_store, open_file_store
from kaos.store.verify import verify_store

Steps = Generator[None]


class Together(RuleBasedStateMachine):
    """Several deploys, trainings and collections, each stopped and gone on with at any step.

    A collection is a generator too: it is cut into steps at every call that it makes of the store.
    """

    def new_store(self) -> Store:
        return memory_store()

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.store = self.new_store()
        self.team = Team(self.store)
        self.deploys: list[tuple[str, Tree]] = []
        self.jobs: list[tuple[JobDocument, list[TrialRecord] | None]] = []
        self.models: list[ModelRecord] = []
        self.running: set[str] = set()
        self.collections: list[_Paused] = []

    def teardown(self) -> None:
        for paused in getattr(self, "collections", []):
            paused.finish()

    contents = st.sampled_from("abcd")

    @rule(content=contents)
    def plan_deploy(self, content: str) -> None:
        """Ask what is missing and send that; the commit comes later, or never."""
        self.deploys.append((content, tree_of(self.store, {"a": content.encode(), "data.txt": b"data"})))

    @precondition(lambda self: self.deploys)
    @rule(pick=st.randoms(use_true_random=False))
    def commit_deploy(self, pick: random.Random) -> None:
        """Commit, and deploy what was committed."""
        content, tree = self.deploys.pop(pick.randrange(len(self.deploys)))
        try:
            pin = self.team.workspace.commit_bundle("data", "data", tree, "ada").pin
        except InvalidInputError:  # told honestly: the client sends it again
            tree_of(self.store, {"a": content.encode(), "data.txt": b"data"})
            pin = self.team.workspace.commit_bundle("data", "data", tree, "ada").pin
        with self.store.uses.hold():
            if self.team.workspace.bundle("data", pin.digest) is not None:
                self.team.workspace.merge_inputs(Inputs(data=pin))

    @rule(source=contents, data=contents)
    def begin_job(self, source: str, data: str) -> None:
        with self.store.uses.hold():  # as a request does
            document = self.team.begin(source, data)
        self.running.add(document.run_id)
        self.jobs.append((document, None))

    @precondition(lambda self: any(records is None for _, records in self.jobs))
    @rule(output=contents)
    def train(self, output: str) -> None:
        index = next(i for i, (_, records) in enumerate(self.jobs) if records is None)
        document = self.jobs[index][0]
        self.jobs[index] = (document, self.team.write(document, [output]))

    @precondition(lambda self: any(records is not None for _, records in self.jobs))
    @rule()
    def register(self) -> None:
        index = next(i for i, (_, records) in enumerate(self.jobs) if records is not None)
        document, records = self.jobs.pop(index)
        assert records is not None
        self.team.record(document, records)
        self.models += self.team.end(document, records)
        self.running.discard(document.run_id)

    @precondition(lambda self: self.models)
    @rule(pick=st.randoms(use_true_random=False))
    def tag(self, pick: random.Random) -> None:
        with self.store.uses.hold():
            try:
                Models(self.team.workspace).move_tag("best", pick.choice(self.models).model_id, "ada")
            except RemovedError:
                return

    @precondition(lambda self: len(self.collections) < 2)
    @rule(last=st.sampled_from([0, 1, None]), settled=st.booleans())
    def start_collection(self, last: int | None, settled: bool) -> None:
        policies = {"mnist": RetentionPolicy(keep_last=last)}
        order = Order(
            policies, "gc", lambda _, run: run in self.running, timedelta(0), 0.0 if not settled else 1.0
        )
        self.collections.append(_Paused(self.store, order))

    @precondition(lambda self: self.collections)
    @rule(steps=st.sampled_from([10, 50, 200, 500, 5000]), pick=st.randoms(use_true_random=False))
    def step_collection(self, steps: int, pick: random.Random) -> None:
        paused = pick.choice(self.collections)
        if not paused.go(steps):
            self.collections.remove(paused)

    @precondition(lambda self: self.collections)
    @rule(pick=st.randoms(use_true_random=False))
    def kill_collection(self, pick: random.Random) -> None:
        paused = pick.choice(self.collections)
        paused.kill()
        self.collections.remove(paused)

    @invariant()
    def all_that_counts_is_whole(self) -> None:
        if not hasattr(self, "team"):
            return
        check_whole(self.store, self.team, {document.job_id for document, _ in self.jobs})


def check_whole(store: Store, team: Team, running: set[str]) -> None:
    """Check, without touching what is set aside, that everything that counts as there is there."""
    present = {each.digest for each in store.objects.stored()} | {
        each.digest for each in store.objects.condemned()
    }
    workspace = team.workspace

    def tree(digest: str, whose: str) -> None:
        if workspace.removed_tree(digest) is not None:
            return
        assert digest in present, f"{whose}: the list of its files is gone"
        assert set(Tree.decode(peek(store, digest)).objects) <= present, f"{whose}: files are gone"

    for digest, title in workspace.trees():
        tree(digest, title)
    inputs = workspace.inputs()
    for pin in (inputs.source, inputs.data):
        if pin is not None:
            tree(pin.digest, "an input")
            assert set(Tree.decode(peek(store, pin.digest)).objects) <= present, "a current input is gone"
    for job_id in running:
        document = JobDocument.parse(peek(store, ref(store, f"workspaces/mnist/jobs/{job_id}")))
        for pin in (document.source, document.pinned_data):
            assert set(Tree.decode(peek(store, pin.digest)).objects) <= present, (
                "a running job lost its input"
            )
    for key in workspace.model_ids():
        for name in store.refs.names(f"workspaces/mnist/models/{key}"):
            record = ModelRecord.parse(peek(store, ref(store, name)))
            if workspace.removed_model(key) is not None:
                continue
            assert record.digest in present
            # Of a model that was removed and made again, the first job's logs are gone.
            if Removals(workspace).job(record.job.job_id) is None:
                assert {record.build.lock, record.build.log, record.run.log} <= present


def ref(store: Store, name: str) -> str:
    found = store.refs.get(name)
    assert found is not None
    return found.value.decode()


def peek(store: Store, digest: str) -> bytes:
    """Return an object without bringing it back."""
    objects = store.objects
    content = getattr(objects, "content", None)
    if content is not None:
        if digest in content:
            return bytes(content[digest])
        return next(batch[digest][0] for batch in objects._aside.values() if digest in batch)  # type: ignore[attr-defined]
    root: Path = objects.root  # type: ignore[attr-defined]
    for path in (root / digest[:2] / digest, *root.glob(f"condemned/*/{digest}")):
        if path.exists():
            return path.read_bytes()
    raise AssertionError(f"{digest} is gone")


class Killed(BaseException):
    """What ends a collection as kill -9 does: nothing of it runs any more."""


class _Paused:
    """A collection in a thread that goes on step by step: a step is a call of the store's objects or refs."""

    def __init__(self, store: Store, order: Order) -> None:
        self._steps = 0
        self._turn, self._paused = Event(), Event()
        self._dead = self._over = False
        self._pool = ThreadPoolExecutor(1)
        watched = Store(store.url, _Watched(store.objects, self), _Watched(store.refs, self), store.uses)  # type: ignore[arg-type]
        self._future = self._pool.submit(self._run, watched, order)

    def _run(self, store: Store, order: Order) -> None:
        try:
            self.step()
            collect(store, order)
        except Killed:
            return
        finally:
            self._over = True
            self._paused.set()

    def step(self) -> None:
        """Wait until this step may be done; called by the collection."""
        if self._steps == 0:
            self._paused.set()
            self._turn.wait()
            self._turn.clear()
        if self._dead:
            raise Killed
        self._steps -= 1

    def go(self, steps: int) -> bool:
        """Let the collection do this many steps; tell whether it goes on afterwards."""
        self._paused.wait()
        if self._over:
            self.finish()
            return False
        self._steps = steps
        self._paused.clear()
        self._turn.set()
        self._paused.wait()
        if self._over:
            self.finish()
        return not self._over

    def kill(self) -> None:
        """End it where it is."""
        self._paused.wait()
        self._dead, self._steps = True, 1
        self._turn.set()
        self._pool.shutdown()

    def finish(self) -> None:
        """End it, and raise what it raised."""
        if not self._over:
            self.kill()
        self._pool.shutdown()
        self._future.result()


class _Watched:
    """Passes calls on, each after a step."""

    def __init__(self, inner: object, paused: _Paused) -> None:
        self._inner = inner
        self._paused = paused

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments: object, **options: object) -> object:
            self._paused.step()
            return found(*arguments, **options)

        return call


class TogetherInFiles(Together):
    """The same over files."""

    def new_store(self) -> Store:
        return open_file_store(Path(self.stack.enter_context(tempfile.TemporaryDirectory())))

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "stack"):
            self.stack.close()


TestTogether = Together.TestCase
TestTogether.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestTogetherInFiles = TogetherInFiles.TestCase
TestTogetherInFiles.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


# -- truly at the same time ----------------------------------------------------------------------------

WRITER = """
    import random, sys, time
    from pathlib import Path
    from kaos.errors import FilesMissingError, RemovedError, UnknownNameError
    from kaos.job import Inputs
    from kaos.catalog import Catalog
    from kaos.models import Models
    from kaos.store import open_file_store
    from lineages import Team
    store = open_file_store(Path(sys.argv[1]))
    pick, until = random.Random(int(sys.argv[2])), time.monotonic() + float(sys.argv[3])
    team = Team.of(store)
    while time.monotonic() < until:
        source, data, output = (pick.choice("abcd") for _ in range(3))
        try:
            with store.uses.hold():
                document = team.begin(source, data)
        except (FilesMissingError, RemovedError):
            continue  # told honestly: a client sends it again
        model = team.end(document, team.run(document, [output]))[0]
        assert team.workspace.outcome(document.job_id)
        if pick.random() < 0.3:
            with store.uses.hold():
                try:
                    Models(team.workspace).move_tag(f"tag{sys.argv[2]}", model.model_id, "ada")
                except RemovedError:
                    continue
        print(model.model_id, flush=True)
"""

COLLECTOR = """
    import random, sys, time
    from datetime import timedelta
    from pathlib import Path
    from kaos import collect as collecting
    from kaos.collect import Order, collect
    from kaos.retention import RetentionPolicy
    from kaos.store import open_file_store
    collecting._MARGIN = timedelta(0)  # one clock
    store = open_file_store(Path(sys.argv[1]))
    pick, until = random.Random(int(sys.argv[2])), time.monotonic() + float(sys.argv[3])
    while time.monotonic() < until:
        policies = {"mnist": RetentionPolicy(keep_last=pick.choice([0, 1, 3]))}
        running = lambda *_: True
        report = collect(store, Order(policies, "gc", running, timedelta(0), 5.0))
        print(report.discarded.objects, flush=True)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_processes_that_deploy_train_and_collect_at_once(tmp_path: Path) -> None:
    """Collectors are killed with -9 again and again; what was committed is whole all the time."""
    store = open_file_store(tmp_path)
    team = Team(store)
    seconds = 6
    writers = [start(WRITER, tmp_path, number, seconds) for number in range(2)]
    steady = start(COLLECTOR, tmp_path, 7, seconds)
    pick = random.Random(0)
    deadline = time.monotonic() + seconds
    killed = 0
    while time.monotonic() < deadline:
        doomed = start(COLLECTOR, tmp_path, killed, 60)
        time.sleep(0.5 + pick.random())
        doomed.send_signal(signal.SIGKILL)
        doomed.communicate()
        killed += 1
    made = []
    for process in (*writers, steady):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        made.append(out.split())
    assert killed >= 3
    assert len(made[0]) + len(made[1]) > 10
    assert sum(map(int, made[2])) > 0
    running = set(team.workspace.job_ids()) - {
        job_id for job_id in team.workspace.job_ids() if team.workspace.outcome(job_id)
    }
    check_whole(store, team, running)
    assert verify_store(store, team.workspace.trees())[1] == []
    collect(store, Order({"mnist": RetentionPolicy(keep_last=1)}, "gc", lambda *_: False, timedelta(0)))
    assert verify_store(store, team.workspace.trees())[1] == []
    check_whole(store, team, set())
    kept = [key for key in team.workspace.model_ids() if team.workspace.removed_model(key) is None]
    assert kept
    assert all(team.whole(team.workspace.model_records(key)[-1]) for key in kept)
