"""How two models came to be different: files, hyperparameters, packages, the run and its result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from kaos.bundle import EmptyDirectory, File, Link, Tree
from kaos.catalog import WorkspaceCatalog
from kaos.errors import InvalidInputError
from kaos.lock import packages
from kaos.model import ModelRecord
from kaos.models import Models
from kaos.schema.lineage import Difference, ModelDifference

_SHOWN = 12
_PARTS = ("source", "data", "hyperparams", "packages", "run", "metrics", "model")


def difference(workspace: WorkspaceCatalog, one: str, other: str) -> ModelDifference:
    """Return in what two models differ.

    :param one: id of a model that was trained here, or a tag that names it
    :raises UnknownNameError: there is no such model
    :raises InvalidInputError: it was not trained here
    """
    records = [_record(workspace, name) for name in (one, other)]
    first, second = (_facts(workspace, record) for record in records)
    found = [
        Difference(of=part, what=what, one=before, other=after)
        for part in _PARTS
        for what, before, after in _differing(first[part], second[part])
    ]
    differing = {each.of for each in found}
    return ModelDifference(
        one=records[0].model_id,
        other=records[1].model_id,
        differences=found,
        same=[part for part in _PARTS if part not in differing],
    )


def _record(workspace: WorkspaceCatalog, name: str) -> ModelRecord:
    pin = Models(workspace).pin(name)
    if not any(workspace.store.refs.names(f"workspaces/{workspace.workspace.name}/models/{pin.model_id}")):
        raise InvalidInputError(
            f"The model {pin.model_id} was imported: nothing is known of how it was made.",
            f"What is: kaos lineage upstream {pin.model_id}",
        )
    return workspace.model_record(pin.model_id)


def _facts(workspace: WorkspaceCatalog, record: ModelRecord) -> dict[str, dict[str, str]]:
    """Return what there is to compare of a model: by part, by name."""
    document, build = record.job, record.build
    lock = workspace.store.objects.get(build.lock).decode() if build.lock else ""
    image = build.image
    made_in = {f"base {base.name}": base.digest for base in image.bases} if image is not None else {}
    return {
        "source": _files(workspace.tree(document.source.digest)),
        "data": _files(workspace.tree(document.pinned_data.digest)),
        "hyperparams": {name: _text(value) for name, value in record.trial.params.items()},
        "packages": packages(lock),
        "run": {
            "runtime": build.runtime,
            **({"python": build.python} if build.python else {}),
            **({"image": image.id[:_SHOWN]} if image is not None else {}),
            **made_in,
            **{
                name: _text(value)
                for name, value in document.resources.model_dump().items()
                if value is not None
            },
            "kaos": document.kaos_version,
            "airflow": record.airflow.airflow_version,
        },
        "metrics": dict(_leaves(record.metrics)),
        "model": _files(workspace.tree(record.digest)),
    }


def _files(tree: Tree) -> dict[str, str]:
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
