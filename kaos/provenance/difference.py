"""How two models came to be different: files, hyperparameters, packages, the run and its result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kaos.bundle import EmptyDirectory, File, Link, Tree
from kaos.catalog import WorkspaceCatalog
from kaos.errors import CorruptObjectError, InvalidInputError, RemovedError
from kaos.lock import packages
from kaos.model import ModelRecord
from kaos.models import Models
from kaos.schema.lineage import Difference, ModelDifference

_SHOWN = 12
_PARTS = ("source", "data", "hyperparams", "packages", "run", "metrics", "model")


class _Facts(NamedTuple):
    """What there is to compare of a part of a model, by name.

    :param known: None where retention has removed it
    :param digest: of it, which stays known
    """

    known: Mapping[str, str] | None
    digest: str = ""


def difference(workspace: WorkspaceCatalog, one: str, other: str) -> ModelDifference:
    """Return in what two models differ; of what retention has removed of one of them by its digest alone.

    :param one: id of a model that was trained here, or a tag that names it
    :raises UnknownNameError: there is no such model
    :raises InvalidInputError: it was not trained here
    """
    records = [_record(workspace, name) for name in (one, other)]
    first, second = (_facts(workspace, record) for record in records)
    found = [
        Difference(of=part, what=what, one=before, other=after)
        for part in _PARTS
        for what, before, after in _differing(*_sides(first[part], second[part]))
    ]
    differing = {each.of for each in found}
    return ModelDifference(
        one=records[0].model_id,
        other=records[1].model_id,
        differences=found,
        same=[part for part in _PARTS if part not in differing],
    )


def _record(workspace: WorkspaceCatalog, name: str) -> ModelRecord:
    model_id = Models(workspace).named(name)
    if not any(workspace.store.refs.names(f"workspaces/{workspace.workspace.name}/models/{model_id}")):
        raise InvalidInputError(
            f"The model {model_id} was imported: nothing is known of how it was made.",
            f"What is: kaos lineage upstream {model_id}",
        )
    return workspace.model_record(model_id)


def _facts(workspace: WorkspaceCatalog, record: ModelRecord) -> dict[str, _Facts]:
    """Return what there is to compare of a model: by part, by name."""
    document, build = record.job, record.build
    image = build.image
    made_in = {f"base {base.name}": base.digest for base in image.bases} if image is not None else {}
    run = {
        "runtime": build.runtime,
        **({"python": build.python} if build.python else {}),
        **({"image": image.id[:_SHOWN]} if image is not None else {}),
        **made_in,
        **{
            name: _text(value) for name, value in document.resources.model_dump().items() if value is not None
        },
        "kaos": document.kaos_version,
        "airflow": record.airflow.airflow_version,
    }
    return {
        "source": _files(workspace, document.source.digest),
        "data": _files(workspace, document.pinned_data.digest),
        "hyperparams": _Facts({name: _text(value) for name, value in record.trial.params.items()}),
        "packages": _packages(workspace, record),
        "run": _Facts(run),
        "metrics": _Facts(dict(_leaves(record.metrics))),
        "model": _files(workspace, record.digest),
    }


def _sides(one: _Facts, other: _Facts) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return what is compared of a part."""
    if one.known is None or other.known is None:
        return {"digest": one.digest[:_SHOWN]}, {"digest": other.digest[:_SHOWN]}
    return one.known, other.known


def _packages(workspace: WorkspaceCatalog, record: ModelRecord) -> _Facts:
    lock = record.build.lock
    try:
        return _Facts(packages(workspace.store.objects.get(lock).decode()) if lock else {}, lock)
    except CorruptObjectError:
        if workspace.removed_model(record.model_id) is None:
            raise
        return _Facts(None, lock)


def _files(workspace: WorkspaceCatalog, digest: str) -> _Facts:
    try:
        return _Facts(_contents(workspace.tree(digest)), digest)
    except RemovedError:
        return _Facts(None, digest)


def _contents(tree: Tree) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in tree.entries:
        match entry:
            case File(path, size, digest, executable):
                found[path] = f"{digest[:_SHOWN]} {size} bytes{', executable' if executable else ''}"
            case Link(path, target):
                found[path] = f"link to {target}"
            case EmptyDirectory(path):
                found[path] = "empty directory"
    return found


def _differing(
    one: Mapping[str, str], other: Mapping[str, str]
) -> Iterator[tuple[str, str | None, str | None]]:
    for what in sorted({*one, *other}):
        if one.get(what) != other.get(what):
            yield what, one.get(what), other.get(what)


def _leaves(metrics: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the metrics, those inside of others by their path: ``metrics_test.3.recall``."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
