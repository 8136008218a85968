"""Remove the images that kaos built and that nothing needs any more, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kaos.runtime.container.engine import ContainerEngine, ImageState
from kaos.runtime.container.images import LOOKING, PLACE, REMOVAL, STORE
from kaos.runtime.exclusive import locked


@dataclass(frozen=True)
class Leftovers:
    """The images of one engine that were built for one store.

    :param store: what tells the store from all others: this machine may have images of several
    :param directory: that the builds use, see :class:`kaos.runtime.container.images.Images`
    :param repository: that images are pushed to, empty for none
    """

    engine: ContainerEngine
    store: str
    directory: Path
    repository: str = ""

    def clean(self, kept: Container[str], busy: Callable[[], bool], *, dry_run: bool) -> Iterator[int]:
        """Remove images, and yield the bytes of each that were its own alone.

        One that a container uses is left.

        :param kept: ids of images that stay
        :param busy: tells whether a job may be about to use any image: then all stay
        :raises ContainerEngineError: the engine does not answer, or cannot remove one
        """
        ours = {STORE: self.store}
        going = removable(self.engine.image_states(ours), kept, self.repository)
        if not going:
            return
        # Base images, and what podman keeps of each step of a build.
        others = [*self.engine.image_states({}), *self.engine.image_states(ours, layers=True)]
        sizes = own_sizes(going, others, kept)
        for image in going:
            with locked(self.directory / REMOVAL):
                # Builds wait for the lock before they look: a job that is not seen here finds what is left.
                if busy():
                    return
                gone = dry_run or self._remove(image)
            if gone:
                yield sizes[image.id]

    def _remove(self, image: ImageState) -> bool:
        for name in self.engine.find({STORE: self.store}):
            # A build that was killed left it, and would keep its image.
            if name.startswith(LOOKING):
                self.engine.remove(name)
        return self.engine.remove_image(image)


def removable(built: Iterable[ImageState], kept: Container[str], repository: str) -> list[ImageState]:
    """Return the images that go: nothing needs them, and nobody else gave them a name.

    What people build on an image of ours has our label, too; so has what podman keeps of each step of a
    build, for the next one.

    :param built: those with our label
    :param kept: ids of those that stay
    :param repository: that ours are pushed to, empty for none
    """
    ours = (f"{PLACE}build-", f"{repository}:build-") if repository else (f"{PLACE}build-",)
    return [
        image
        for image in built
        if image.id not in kept
        and all(name.startswith(ours) for name in image.names)
        and (image.names or _is_whole(image))
    ]


def _is_whole(image: ImageState) -> bool:
    """Tell whether an image is what came of a build: the label is the last step of that."""
    return not image.last_step or STORE in image.last_step


def own_sizes(
    going: Iterable[ImageState], there: Iterable[ImageState], kept: Container[str]
) -> dict[str, int]:
    """Return by id the bytes that each image takes beyond what stays, or was counted with one before it.

    :param there: images of the machine; one without a name stays if something stays that was built on it
    """
    gone, there = list(going), list(there)
    ids = {image.id for image in gone}
    counted = [image.layers for image in there if image.id not in ids and (image.names or image.id in kept)]
    found = {}
    for image in gone:
        shared = (
            each.size
            for each in there
            if _begins(image.layers, each.layers) and any(_begins(layers, each.layers) for layers in counted)
        )
        found[image.id] = max(0, image.size - max(shared, default=0))  # the engine's sizes count records, too
        counted.append(image.layers)
    return found


def _begins(layers: tuple[str, ...], first: tuple[str, ...]) -> bool:
    return layers[: len(first)] == first
