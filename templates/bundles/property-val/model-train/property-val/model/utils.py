"""Find the inputs of a training job and write its outputs: the contract with kaos, in one place.

kaos sets these in every runtime; set them by hand to run `train` without kaos.

KAOS_DATA    directory of the data bundle (read-only)
KAOS_PARAMS  JSON file with the hyperparameters of this trial, {} without any (optional)
KAOS_OUTPUT  directory to write anything to; also the first argument of `train`
"""

import json
import os
import pickle
import sys
from pathlib import Path


def say(line):
    """Print a line of progress at once, so that `kaos train logs` shows it while the job runs."""
    print(line, flush=True)


def data_files(split):
    """List the CSV files of a split: KAOS_DATA/training/*.csv or KAOS_DATA/features/training/*.csv."""
    root = os.environ.get("KAOS_DATA")
    if not root:
        sys.exit("KAOS_DATA is not set: it must name the directory of the data bundle, such as templates/.../data")
    if not Path(root).is_dir():
        sys.exit(f"KAOS_DATA={root} is no directory")
    files = sorted([*Path(root).glob(f"{split}/*.csv"), *Path(root).glob(f"*/{split}/*.csv")])
    if not files:
        sys.exit(f"there is no {split}/*.csv in {root} or in a directory of it: is this the right data bundle?")
    return files


def hyperparams(params):
    """Override the static parameters by those of this trial; refuse a name that `train` does not know."""
    path = os.environ.get("KAOS_PARAMS")
    if not path:
        return params
    try:
        trial = json.loads(Path(path).read_text())
    except FileNotFoundError:
        sys.exit(f"KAOS_PARAMS={path} does not exist")
    except ValueError as error:
        sys.exit(f"KAOS_PARAMS={path} is no JSON: {error}")
    if not isinstance(trial, dict):
        sys.exit(f"KAOS_PARAMS={path} must be a JSON object, such as {json.dumps(params)}")
    unknown = sorted(set(trial) - set(params))
    if unknown:
        sys.exit(f"unknown hyperparameter {', '.join(unknown)}: `train` knows {', '.join(sorted(params))}")
    return {**params, **trial}


def output_directory():
    """Return where to write: the first argument, or KAOS_OUTPUT."""
    output = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("KAOS_OUTPUT")
    if not output:
        sys.exit("nowhere to write: set KAOS_OUTPUT or give a directory as the first argument")
    return Path(output)


def save(output, model, metrics):
    """Write model/model.pkl and metrics/metrics.json, the same bytes for the same model and metrics."""
    model_file = output / "model" / "model.pkl"
    metrics_file = output / "metrics" / "metrics.json"
    for file in (model_file, metrics_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    # A fixed protocol: the default one changes with the version of Python.
    model_file.write_bytes(pickle.dumps(model, protocol=5))
    metrics_file.write_text(json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False) + "\n")
    say(f"wrote {model_file} ({model_file.stat().st_size} bytes) and {metrics_file}")
