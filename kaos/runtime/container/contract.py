"""What a script finds in its container: the paths and variables of kaos, and those of SageMaker.

``docs/container-runtime.md`` has the table.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaos.lineage import ImageRecord
from kaos.resources import Resources
from kaos.runtime.base import RunSpec
from kaos.runtime.container.engine import Mount
from kaos.runtime.proctree import MARKER
from kaos.runtime.userenv import INSTANCE, PROXIES, THREADS

PROGRAM = "/opt/program"
DATA = "/pfs/data"
PARAMS = "/pfs/hyper/params.json"
OUTPUT = "/pfs/out"
CHECKPOINT = "/opt/ml/checkpoints"
ML_INPUT = "/opt/ml/input"
ML_MODEL = "/opt/ml/model"
ML_OUTPUT = "/opt/ml/output"
FAILURE = "failure"

_CHANNEL = "training"
_HOST = "algo-1"
_FAILURE_BYTES = 1024


def mounts(spec: RunSpec) -> list[Mount]:
    """Return what of the machine the container sees; lays out what SageMaker's scripts look for."""
    ml = spec.directory / "ml"
    _lay_out(ml, spec)
    found = [
        Mount(source=spec.params, target=PARAMS),
        Mount(source=spec.output, target=OUTPUT, writable=True),
        Mount(source=spec.output, target=ML_MODEL, writable=True),
        Mount(source=ml / "input", target=ML_INPUT),
        Mount(source=ml / "output", target=ML_OUTPUT, writable=True),
    ]
    if spec.data is not None:
        found.append(Mount(source=spec.data, target=data_path(spec)))
    if spec.checkpoint is not None:
        found.append(Mount(source=spec.checkpoint, target=CHECKPOINT, writable=True))
    if spec.program is not None:
        found.append(Mount(source=spec.program, target=PROGRAM, writable=True))
    return found


def data_path(spec: RunSpec) -> str:
    """Return where the data bundle is."""
    return f"{DATA}/{spec.data_name}"


def command(spec: RunSpec, image: ImageRecord) -> tuple[str, ...]:
    """Return the arguments for the image: `train` alone where it has an entry point of its own."""
    if spec.command:
        return spec.command
    return (image.train, OUTPUT) if image.train else ("train",)


def variables(spec: RunSpec, image: ImageRecord, key: str, server: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a run, to add to those of the image.

    :param key: marks what the run starts
    :param server: the environment of the calling process, from which a few named variables pass
    """
    result = common_variables(spec.resources, image, key, server)
    result |= dict(spec.env)
    result |= {"KAOS_JOB": spec.job_id, "KAOS_PARAMS": PARAMS, "KAOS_OUTPUT": OUTPUT, MARKER: key}
    if spec.data is not None:
        result["KAOS_DATA"] = data_path(spec)
    if spec.checkpoint is not None:
        result["KAOS_CHECKPOINT"] = CHECKPOINT
    return result


def common_variables(
    resources: Resources, image: ImageRecord, key: str, server: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that runs and services have; the image's own win over the defaults."""
    defaults = {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}
    # A proxy's address may hold a password; then the script has to do without.
    defaults |= {name: server[name] for name in PROXIES if "@" not in server.get(name, "@")}
    if resources.cpu is not None:
        defaults |= dict.fromkeys(THREADS, str(math.ceil(resources.cpu)))
    result = {name: value for name, value in defaults.items() if name not in image.variables}
    result[MARKER] = key
    if INSTANCE in server:
        result[INSTANCE] = server[INSTANCE]
    return result


def failure(directory: Path) -> str:
    """Return the first line of what a script wrote to ``/opt/ml/output/failure``, empty for nothing."""
    try:
        with (directory / "ml" / "output" / FAILURE).open("rb") as file:
            text = file.read(_FAILURE_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""
    return text.splitlines()[0] if text else ""


def _lay_out(ml: Path, spec: RunSpec) -> None:
    config, data = ml / "input" / "config", ml / "input" / "data"
    for directory in (config, data, ml / "output"):
        directory.mkdir(parents=True, exist_ok=True)
    params = json.loads(spec.params.read_text())
    channels = _channels(spec.data) if spec.data is not None else {}
    documents: dict[str, Any] = {
        "hyperparameters.json": {name: as_text(value) for name, value in params.items()},
        "inputdataconfig.json": {
            name: {
                "TrainingInputMode": "File",
                "S3DistributionType": "FullyReplicated",
                "RecordWrapperType": "None",
            }
            for name in channels
        },
        "resourceconfig.json": {"current_host": _HOST, "hosts": [_HOST], "network_interface_name": "eth0"},
    }
    for name, document in documents.items():
        (config / name).write_text(json.dumps(document))
    for name, below in channels.items():
        link = data / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"{data_path(spec)}{below}")
    # Whoever the script is in its container must get in. The run's directory above is its owner's alone.
    for path in (ml, *ml.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def _channels(data: Path) -> dict[str, str]:
    """Return SageMaker's channels: a directory each, and `training` for all of it where there is none."""
    with os.scandir(data) as entries:
        found = {entry.name: f"/{entry.name}" for entry in entries if entry.is_dir()}
    return {_CHANNEL: "", **found}


def as_text(value: object) -> str:
    """Return a hyperparameter as SageMaker hands it over: a text; what is no text already is JSON."""
    return value if isinstance(value, str) else json.dumps(value)
