"""Images of source bundles: built once, found again, pushed, and pulled by digest where they are missing."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from kaos.baseimage import Outline, outline
from kaos.digest import digest_bytes
from kaos.errors import ContainerEngineError, EnvironmentBuildError
from kaos.lineage import BaseImage, ImageRecord
from kaos.runtime.container.builders import BuildOrder, ImageBuilder, Log
from kaos.runtime.container.contract import PROGRAM
from kaos.runtime.container.engine import Container, ContainerEngine, ImageState
from kaos.runtime.container.registry import Registry
from kaos.runtime.container.script import is_there, trouble
from kaos.runtime.exclusive import exclusive, locked

TRAIN, SERVE = "train", "serve"

STORE = "kaos.store"
"""The label that says of an image for which store it was built."""

REMOVAL = "removal.lock"
"""The lock that is held while an image is removed."""

PLACE = "localhost/kaos/"
"""What the names of all images begin with on the machine that built them."""

LOOKING = "kaos-look-"
"""What the name of a container begins with that is made to look into an image, and never runs."""

_SHORT = 12
_SYSTEM = ("/usr/", "/bin", "/sbin")


@dataclass(frozen=True)
class ImageSpec:
    """Say what to build an image of.

    :param name: of the source bundle
    :param source: its digest
    :param dockerfile: the text of its Dockerfile
    :param lay_out: writes the build context, the bundle's folder ``model/``, to a new directory
    :param script: what the image must have: ``train`` or ``serve``
    """

    name: str
    source: str
    dockerfile: str
    lay_out: Callable[[Path], None]
    script: str = TRAIN


class Known(Protocol):
    """What remembers which image a source bundle was built to, on any machine."""

    def container_image(self, source: str) -> ImageRecord | None:
        """Return the image that was last built from a source bundle, or None."""

    def set_container_image(self, source: str, record: ImageRecord) -> None:
        """Record the image that was built from a source bundle."""


@dataclass(frozen=True)
class Images:
    """Build, find, push and pull the images of one engine; several processes may do so at the same time.

    The job that an image is for is on record before anything is done here: a collection that begins to remove
    images from then on leaves them all.

    :param directory: for locks and build contexts
    :param network: that builds use, empty for the builder's default
    :param registry: that images are pushed to, None for none
    :param store: what tells the store from all others: its collections remove what is built for it; empty for
        images that nobody removes
    """

    engine: ContainerEngine
    builder: ImageBuilder
    directory: Path
    network: str = ""
    registry: Registry | None = None
    store: str = ""

    def build(
        self, spec: ImageSpec, log: Log, known: Known, *, no_cache: bool = False
    ) -> tuple[ImageRecord, bool]:
        """Return the image of a source bundle, and whether it was there already.

        :param known: what was built before, anywhere; is told what is built now
        :param no_cache: build it anew, with none of its layers from before
        :raises EnvironmentBuildError: with the builder's reason, or without a base image
        :raises ContainerEngineError: it cannot be pushed
        """
        self._let_removals_end()
        with exclusive(self.directory / f"{spec.source}.lock", log, "image"):
            # Whoever held the lock before us may just have made it.
            before = None if no_cache else known.container_image(spec.source)
            reused = before is not None and self._is_current(before, log)
            if before is not None and reused:
                log(f"The image {before.name} is there already.")
                record = self._pushed(self._ready(before, spec), log)
            else:
                record = self._pushed(self._make(spec, log, no_cache), log)
            if record != before:
                known.set_container_image(spec.source, record)
            return record, reused

    def provide(self, record: ImageRecord, log: Log) -> None:
        """Have an image on this machine, pulled by its digest if it is not.

        :raises ContainerEngineError: it is not, and was pushed nowhere or cannot be pulled
        """
        self._let_removals_end()
        if self.engine.image(record.id) is not None:
            return
        if not record.pinned:
            raise ContainerEngineError(
                f"The image {record.name} is not on this machine, and it was pushed to no registry.",
                "Set [kaos] registry, or deploy again.",
            )
        log(f"Pulling {record.pinned}")
        login = self.registry.login() if self.registry is not None else None
        self.builder.pull(record.pinned, log, login)

    def _let_removals_end(self) -> None:
        """Wait for a removal that began before our job did; those that begin from now on leave all images."""
        with locked(self.directory / REMOVAL, shared=True):
            pass

    def _is_current(self, record: ImageRecord, log: Log) -> bool:
        """Tell whether an image from before can be had, and is built on today's base images."""
        for base in record.bases:
            there = self.engine.image(base.name)
            if there is not None and there.digest != base.digest:
                log(f"The base image {base.name} is another one than before.")
                return False
        try:
            self.provide(record, log)
        except ContainerEngineError:
            return False
        return True

    def _make(self, spec: ImageSpec, log: Log, no_cache: bool) -> ImageRecord:
        about = outline(spec.dockerfile)
        bases = tuple(BaseImage(name=name, digest=self._base(name, log).digest) for name in about.bases)
        name = _name(spec, bases)
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="build-") as scratch:
            context, dockerfile = Path(scratch) / "context", Path(scratch) / "Dockerfile"
            dockerfile.write_text(spec.dockerfile)
            spec.lay_out(context)
            _equal_modes(context)
            order = BuildOrder(
                dockerfile=dockerfile,
                context=context,
                name=name,
                no_cache=no_cache,
                network=self.network,
                labels={STORE: self.store} if self.store else {},
            )
            self.builder.build(order, log)
        image = self.engine.image(name)
        if image is None:
            raise EnvironmentBuildError(
                f"{self.builder.name} built {name}, and {self.engine.name} does not have it.",
                "Do both use the same storage? See docs/container-runtime.md.",
            )
        return ImageRecord(
            engine=self.engine.name,
            name=name,
            id=image.id,
            bases=bases,
            user="" if image.user in ("0", "root", "0:0", "root:root") else image.user,
            workdir=image.workdir,
            variables=tuple(sorted(image.variables)),
        ).with_script(spec.script, self._find(image, about, spec.script))

    def _ready(self, record: ImageRecord, spec: ImageSpec) -> ImageRecord:
        """Return an image from before with the script that is asked for: another one may have been before."""
        about = outline(spec.dockerfile)
        if about.entrypoint or record.script(spec.script):
            return record
        image = self.engine.image(record.id)
        return record.with_script(spec.script, self._find(image, about, spec.script)) if image else record

    def _base(self, name: str, log: Log) -> ImageState:
        found = self.engine.image(name)
        if found is None:
            log(f"Pulling the base image {name}")
            try:
                self.builder.pull(name, log)
            except ContainerEngineError as error:
                there = self.engine.images()
                raise EnvironmentBuildError(
                    f"The base image {name} is not on this machine and could not be pulled: {error.message}",
                    f"Is its name right, and does `{self.engine.name} pull {name}` work? Or begin the"
                    f" Dockerfile with an image that is here: {', '.join(there[:5]) or 'there is none'}.",
                ) from error
            found = self.engine.image(name)
        if found is None:
            raise EnvironmentBuildError(f"The base image {name} was pulled and is not there.")
        return found

    def _pushed(self, record: ImageRecord, log: Log) -> ImageRecord:
        if self.registry is None or (record.digest and record.repository == self.registry.repository):
            return record
        target = f"{self.registry.repository}:{record.name.removeprefix(PLACE).replace(':', '-')}"
        log(f"Pushing {target}")
        digest = self.builder.push(record.name, target, log, self.registry.login())
        return record.model_copy(update={"repository": self.registry.repository, "digest": digest})

    def _find(self, image: ImageState, about: Outline, script: str) -> str:
        """Return where an image has its script, empty for one whose own entry point takes care of it.

        :raises EnvironmentBuildError: it has none, or one that cannot be run
        """
        if about.entrypoint:
            return ""
        path = [part for part in image.variables.get("PATH", "").split(":") if part]
        places = [image.workdir, PROGRAM, *(part for part in path if not part.startswith(_SYSTEM))]
        name = f"{LOOKING}{secrets.token_hex(8)}"
        self.engine.create(Container(name=name, image=image.id, command=(script,)))
        try:
            for place in dict.fromkeys(places):
                found = str(PurePosixPath(place) / script)
                if is_there(self.engine, name, found):
                    wrong = trouble(self.engine, name, found)
                    if wrong is not None:
                        raise EnvironmentBuildError(
                            f"In the image, {wrong[1]}.", "Correct it and deploy again."
                        )
                    return found
        finally:
            self.engine.remove(name)
        raise EnvironmentBuildError(
            f"The image has no `{script}`: not in its working directory {image.workdir}, not in {PROGRAM}.",
            f"Write `WORKDIR {PROGRAM}` and `COPY . {PROGRAM}/`, or an ENTRYPOINT that takes `{script}`.",
        )


def _name(spec: ImageSpec, bases: tuple[BaseImage, ...]) -> str:
    clean = re.sub(r"[^a-z0-9]+", "-", spec.name.lower()).strip("-") or "source"
    based = digest_bytes("".join(base.digest for base in bases).encode())
    return f"{PLACE}build-{spec.script}-{clean}:{spec.source[:_SHORT]}-{based[:_SHORT]}"


def _equal_modes(context: Path) -> None:
    """Let the build context not depend on our umask: every user of the image must be able to read it."""
    for path in (context, *context.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
