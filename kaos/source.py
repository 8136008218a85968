"""What a source bundle must have."""

from __future__ import annotations

from kaos.bundle import Tree
from kaos.errors import InvalidBundleError

DOCKERFILE = "Dockerfile"
MODEL = "model"
TRAIN_SCRIPT = f"{MODEL}/train"
SERVE_SCRIPT = f"{MODEL}/serve"


def check_source(tree: Tree, script: str = TRAIN_SCRIPT) -> None:
    """Check that a tree is a source bundle.

    :param script: what it must have: that of training, or that of serving
    :raises InvalidBundleError: it has no `Dockerfile`, not that script, or one of them is empty
    """
    for path in (DOCKERFILE, script):
        file = tree.file(path)
        if file is None:
            raise InvalidBundleError(
                f"The source bundle has no {path}.",
                f"It needs at least Dockerfile and {script}; kaos template get --name mnist shows one.",
            )
        if not file.size:
            raise InvalidBundleError(f"{path} of the source bundle is empty.", "Write it first.")
