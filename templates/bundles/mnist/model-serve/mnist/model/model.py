"""Load the model, once."""

import os
import pickle
from pathlib import Path

HERE = Path(__file__).parent


def model_file():
    """Return the file of the model: beside the code, where kaos lays it, or anywhere in KAOS_MODEL."""
    beside = HERE / "model.pkl"
    if beside.exists():
        return beside
    given = os.environ.get("KAOS_MODEL")
    found = sorted(Path(given).rglob("model.pkl")) if given else []
    if not found:
        raise SystemExit("there is no model.pkl: deploy with a model, kaos serve deploy -s ... -m MODEL_ID")
    return found[0]


def load():
    # A pickle can run code: serve a model only if you trust where it comes from.
    with model_file().open("rb") as source:
        return pickle.load(source)


MODEL = load()
