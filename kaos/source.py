"""What a source bundle must have."""

from __future__ import annotations

from kaos.bundle import Tree
from kaos.errors import InvalidBundleError

DOCKERFILE = "Dockerfile"
MODEL = "model"
TRAIN_SCRIPT = f"{MODEL}/train"


def check_source(tree: Tree) -> None:
    """Check that a tree is a source bundle for training.

    :raises InvalidBundleError: it has no `Dockerfile`, no `model/train`, or that is empty
    """
    for path in (DOCKERFILE, TRAIN_SCRIPT):
        file = tree.file(path)
        if file is None:
            raise InvalidBundleError(
                f"The source bundle has no {path}.",
                "It needs at least Dockerfile and model/train; kaos template get --name mnist shows one.",
            )
        if not file.size:
            raise InvalidBundleError(f"{path} of the source bundle is empty.", "Write it first.")
