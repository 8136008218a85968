"""The environment of user code in the process runtime, built from nothing, so that no secret slips in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from kaos.image import PATH_HOLE, PROGRAM_HOLE
from kaos.runtime.base import Environment, RunSpec
from kaos.runtime.proctree import MARKER

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

INSTANCE = "KAOS_INSTANCE"
"""Names the local server; whatever it starts carries it, so that `kaos down` finds all of it."""

# Facts of the machine that a script needs to reach the network at all; none of them is a secret.
_MACHINE = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "TZ")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def user_environment(
    spec: RunSpec, environment: Environment, program: Path, key: str, scratch: Path, server: Mapping[str, str]
) -> dict[str, str]:
    """Return all variables of a run's script.

    What the contract gives (``KAOS_...``) wins over the Dockerfile's ``ENV``, and that over the defaults.

    :param key: marks what the run starts
    :param scratch: directory for temporary files
    :param server: the environment of the calling process, from which a few named variables pass
    """
    venv = environment.python.parent.parent
    path = f"{venv / 'bin'}:{SYSTEM_PATH}"
    result = {name: server[name] for name in _MACHINE if name in server}
    # A proxy's address may hold a password; then the script has to do without.
    result |= {name: server[name] for name in PROXIES if "@" not in server.get(name, "@")}
    result |= {
        "PATH": path,
        "HOME": str(spec.directory / "home"),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "VIRTUAL_ENV": str(venv),
        "PYTHONUNBUFFERED": "1",
        # The order of sets is the same in every run: one difference less between two runs of the same inputs.
        "PYTHONHASHSEED": "0",
    }
    if spec.resources.cpu is not None:
        result |= dict.fromkeys(THREADS, str(math.ceil(spec.resources.cpu)))
    if spec.resources.gpu is not None:
        result["CUDA_VISIBLE_DEVICES"] = _gpus(server, spec.resources.gpu)
    result |= {name: _fill(value, path, program) for name, value in spec.env.items()}
    result |= {
        MARKER: key,
        "KAOS_JOB": spec.job_id,
        "KAOS_PARAMS": str(spec.params),
        "KAOS_OUTPUT": str(spec.output),
    }
    if spec.data is not None:
        result["KAOS_DATA"] = str(spec.data)
    if spec.checkpoint is not None:
        result["KAOS_CHECKPOINT"] = str(spec.checkpoint)
    if INSTANCE in server:
        result[INSTANCE] = server[INSTANCE]
    return result


def _fill(value: str, path: str, program: Path) -> str:
    return value.replace(PATH_HOLE, path).replace(PROGRAM_HOLE, str(program))


def _gpus(server: Mapping[str, str], count: int) -> str:
    given = server.get("CUDA_VISIBLE_DEVICES")
    devices = [str(index) for index in range(count)] if given is None else given.split(",")
    return ",".join(devices[:count])
