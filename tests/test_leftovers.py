"""Which images a collection removes of a machine, and what it leaves alone."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import containers
from lineages import Team
from test_images import Bundle, Memory, bundles

from kaos.collect import Order, collect_and_look
from kaos.lineage import ImageRecord
from kaos.needed import NeededBuilds, needed_builds
from kaos.retention import RetentionPolicy
from kaos.runtime.container.builders import builder_named
from kaos.runtime.container.engine import Container, Docker, ImageState, Podman
from kaos.runtime.container.images import LOOKING, Images
from kaos.runtime.container.leftovers import Leftovers, own_sizes, removable
from kaos.store import Store, memory_store

DOCKERFILE = "FROM python:3.11-slim\nWORKDIR /opt/program\nCOPY . /opt/program/\n"
ONE = RetentionPolicy(keep_last=1)


def image(key: str, *names: str, size: int = 0, layers: str = "", last: str = "") -> ImageState:
    return ImageState(
        id=key,
        digest=f"sha256:{key}",
        names=names,
        size=size,
        layers=tuple(layers),
        last_step=last,
        variables={},
        user="",
        workdir="/",
        entrypoint=(),
    )


# -- what goes -----------------------------------------------------------------------------------------


def test_an_image_goes_that_nothing_needs_and_nobody_else_named() -> None:
    ours = "localhost/kaos/build-train-a:1-2"
    pushed = "registry/team/kaos:build-train-a-1-2"
    built = [
        image("named", ours),
        image("pushed", ours, pushed),
        image("untagged"),
        image("a step", last="/bin/sh -c pip install numpy"),
        image("kept", ours),
        image("theirs", "localhost/theirs:1"),
        image("also theirs", ours, "localhost/theirs:1"),
        image("elsewhere", "registry/other:build-1"),
    ]
    assert [each.id for each in removable(built, {"kept"}, "registry/team/kaos")] == [
        "named",
        "pushed",
        "untagged",
    ]
    assert [each.id for each in removable(built, {"kept"}, "")] == ["named", "untagged"]


def test_only_what_nothing_else_uses_counts() -> None:
    there = [
        image("base", "python:3.11-slim", size=100, layers="b"),
        image("packages", size=150, layers="bp"),
        image("one", size=151, layers="bp1"),
        image("two", "x:2", size=152, layers="bp2"),
        image("three", size=103, layers="b3"),
        image("rebuilt", size=154, layers="bp4"),
    ]
    one, two, three = there[2:5]
    assert own_sizes([one], there, ()) == {"one": 1}  # the packages stay with the second
    assert own_sizes([one, two], there, ()) == {"one": 51, "two": 2}
    assert own_sizes([one, two], there, {"rebuilt"}) == {"one": 1, "two": 2}
    assert own_sizes([three], there, ()) == {"three": 3}
    assert own_sizes([one], [one], ()) == {"one": 151}


@given(st.lists(st.text("abc", max_size=4), unique=True), st.data())
def test_no_layer_counts_twice(chains: list[str], data: st.DataObject) -> None:
    """Every layer takes a byte, and is an image of its own, as podman keeps them."""
    every = sorted({chain[:end] for chain in chains for end in range(len(chain) + 1)})
    named = set(chains)
    there = [
        image(chain, *(["x"] if chain in named else []), size=len(chain), layers=chain) for chain in every
    ]
    going = data.draw(st.lists(st.sampled_from(chains), unique=True)) if chains else []
    sizes = own_sizes([each for each in there if each.id in going], there, ())
    left = {chain[:end] for chain in named.difference(going) for end in range(1, len(chain) + 1)}
    before = {chain[:end] for chain in named for end in range(1, len(chain) + 1)}
    assert sum(sizes.values()) == len(before) - len(left)


# -- what is needed ------------------------------------------------------------------------------------


def needed(store: Store, policy: RetentionPolicy | None = None, *, dry_run: bool = False) -> NeededBuilds:
    policies = {"mnist": policy} if policy else {}
    order = Order(policies, "ada", lambda *_: False, timedelta(hours=24), 5.0, dry_run)
    return needed_builds(collect_and_look(store, order)[1])


def record(key: str) -> ImageRecord:
    return ImageRecord(engine="podman", name="localhost/kaos/build-train-a:1-2", id=key)


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_models_that_stay_were_made_in_is_needed(dry_run: bool) -> None:
    team = Team(memory_store())
    old, again, new, rebuilt = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
    gone = team.train("a", source="one", days=3, environment=old)
    team.workspace.set_container_image(gone.job.source.digest, record(old))
    team.train("b", source="two", days=2, environment=again)
    stays = team.train("b", source="two", days=1, environment=new)
    # Built anew since: nothing was made in it yet, and the next job with the bundle will be.
    team.workspace.set_container_image(stays.job.source.digest, record(rebuilt))
    assert needed(team.store) == NeededBuilds(frozenset({old, again, new, rebuilt}), known=True)
    # All records of the model that stays: any of them may be asked to be made again.
    found = needed(team.store, ONE, dry_run=dry_run)
    assert found == NeededBuilds(frozenset({again, new, rebuilt}), known=True)


def test_nothing_is_known_to_go_while_a_record_cannot_be_read() -> None:
    team = Team(memory_store())
    model = team.train("a", environment="1" * 64)
    (ref,) = team.store.refs.names(f"workspaces/mnist/models/{model.model_id}")
    found = team.store.refs.get(ref)
    assert found is not None
    assert needed(team.store).known
    team.store.refs.set(ref, ("f" * 64).encode(), found.version)
    assert not needed(team.store).known


# -- with an engine ------------------------------------------------------------------------------------


@pytest.fixture
def images(podman: containers.Podman, tmp_path: Path) -> Images:
    return Images(Podman(), builder_named("podman"), tmp_path, store=secrets.token_hex(8))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return partial(bundles(f"# {tmp_path}\n"), dockerfile=DOCKERFILE)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def leftovers(images: Images) -> Leftovers:
    return Leftovers(images.engine, images.store, images.directory)


def free() -> bool:
    return False


def there(images: Images, found: ImageRecord) -> bool:
    return images.engine.image(found.id) is not None


@pytest.mark.container
def test_images_of_this_store_go_and_no_others(images: Images, bundle: Bundle, memory: Memory) -> None:
    log: list[str] = []
    blob = {"blob": "x" * 2_000_000}
    kept, _ = images.build(bundle(), log.append, memory)
    gone, _ = images.build(bundle(**blob), log.append, memory)
    # A later build has taken the name of this one.
    unnamed, _ = images.build(bundle(other="x"), log.append, memory)
    images.engine.tag(kept.id, unnamed.name)
    # Of the same source, from the same layers.
    theirs, _ = replace(images, store=f"not-{images.store}").build(bundle(), log.append, Memory())
    assert theirs.id != kept.id
    everything = (kept, gone, unnamed, theirs)
    clean = leftovers(images).clean

    # While a job may be about to use one, all stay; and so it is when it is only asked for.
    assert list(clean({kept.id}, lambda: True, dry_run=False)) == []
    plan = list(clean({kept.id}, free, dry_run=True))
    assert len(plan) == 2
    assert max(plan) in range(2_000_000, 4_000_000)
    assert all(there(images, each) for each in everything)

    # A container of somebody's keeps its image; one that a killed build left to look into it does not.
    user, look = f"user-{images.store}", f"{LOOKING}{images.store}"
    for name, used in ((user, gone), (look, unnamed)):
        images.engine.create(Container(name=name, image=used.id, command=("train",)))
    try:
        assert list(clean({kept.id}, free, dry_run=False)) == [min(plan)]
        assert [there(images, each) for each in everything] == [True, True, False, True]
        assert images.engine.inspect(look) is None
    finally:
        images.engine.remove(user)
    assert list(clean({kept.id}, free, dry_run=False)) == [max(plan)]
    assert [there(images, each) for each in everything] == [True, False, False, True]

    # What is kept is found at once, and what went is built again from what is left of its layers.
    assert images.build(bundle(), log.append, memory) == (kept, True)
    again, reused = images.build(bundle(**blob), log.append, memory)
    assert (there(images, again), reused) == (True, False)


@pytest.mark.container
def test_a_build_that_begins_while_an_image_goes_has_one(
    images: Images, bundle: Bundle, memory: Memory
) -> None:
    before, _ = images.build(bundle(), print, memory)
    built: list[tuple[ImageRecord, bool]] = []
    build = threading.Thread(target=lambda: built.append(images.build(bundle(), print, memory)))

    def busy() -> bool:
        """Look, find no job; and then one begins at once, before anything is removed."""
        build.start()
        time.sleep(0.5)
        return False

    assert len(list(leftovers(images).clean((), busy, dry_run=False))) == 1
    build.join(60)
    ((found, reused),) = built
    assert not reused
    assert there(images, found)
    assert found.name == before.name


@pytest.mark.container
def test_a_second_name_does_not_keep_an_image(images: Images, bundle: Bundle, memory: Memory) -> None:
    found, _ = images.build(bundle(), print, memory)
    images.engine.tag(found.id, "localhost/team/kaos:build-train-second")
    pushed = replace(leftovers(images), repository="localhost/team/kaos")
    assert len(list(pushed.clean((), free, dry_run=False))) == 1
    assert not there(images, found)


@pytest.mark.container
def test_what_builds_find_again_stays(images: Images, bundle: Bundle, memory: Memory) -> None:
    earlier = "FROM python:3.11-slim AS packages\nCOPY train /\nRUN date > /packages\n"
    two = bundle(dockerfile=f"{earlier}{DOCKERFILE}COPY --from=packages /packages /\n")
    kept, _ = images.build(two, print, memory)
    assert list(leftovers(images).clean({kept.id}, free, dry_run=False)) == []
    lines: list[str] = []
    assert images.build(two, lines.append, Memory())[0].id == kept.id
    assert sum("Using cache" in line for line in lines) >= 5


@pytest.mark.container
def test_docker_removes_an_image_with_all_its_names(
    docker: Docker, bundle: Bundle, memory: Memory, tmp_path: Path
) -> None:
    images = Images(docker, builder_named("docker"), tmp_path, "host", store=secrets.token_hex(8))
    found, _ = images.build(bundle(blob="x" * 2_000_000), print, memory)
    docker.tag(found.id, "localhost/team/kaos:build-train-second")
    pushed = replace(leftovers(images), repository="localhost/team/kaos")
    docker.create(Container(name="user", image=found.id, command=("train",)))
    assert list(pushed.clean((), free, dry_run=False)) == []
    docker.remove("user")
    (size,) = pushed.clean((), free, dry_run=False)
    assert size in range(2_000_000, 4_000_000)
    assert not there(images, found)
