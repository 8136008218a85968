"""Call uv: with little of our environment, its output line by line to a log, its reason in the error."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kaos.errors import EnvironmentBuildError

_PASSED = (
    *("PATH", "HOME", "USER", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "NETRC"),
    *(
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
    ),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
)
# Users know pip's settings; uv reads only its own.
_FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
}
_REASON_LINES = 20


def uv_environment(server: Mapping[str, str]) -> dict[str, str]:
    """Return what uv, and the build scripts of packages that it runs, may see of our environment."""
    result = {uv: server[pip] for pip, uv in _FROM_PIP.items() if pip in server}
    result |= {
        name: value for name, value in server.items() if name in _PASSED or name.startswith(("PIP_", "UV_"))
    }
    return result | {"LANG": "C.UTF-8", "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}


def run_uv(
    arguments: Sequence[str | Path],
    log: Callable[[str], None],
    *,
    cwd: Path,
    hold: int | None = None,
) -> None:
    """Run uv; its messages go to ``log`` line by line.

    :param hold: a descriptor of a lock that uv keeps as long as it runs, even if we are killed
    :raises EnvironmentBuildError: uv failed, with its last lines
    """
    import uv

    said: list[str] = []
    with subprocess.Popen(
        [uv.find_uv_bin(), *map(str, arguments)],
        cwd=cwd,
        env=uv_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        pass_fds=() if hold is None else (hold,),
    ) as process:
        assert process.stderr is not None  # noqa: S101  a pipe was asked for
        try:
            for line in process.stderr:
                said.append(line.rstrip())
                log(said[-1])
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        errors = [index for index, line in enumerate(said) if line.startswith("error: ")]
        reason = "\n".join(said[errors[0] if errors else 0 :][:_REASON_LINES])
        raise EnvironmentBuildError(
            f"The environment could not be built: {reason.removeprefix('error: ') or 'uv failed'}",
            "Correct the requirements or the Dockerfile and deploy again.",
        )


def installed_pythons() -> list[str]:
    """Return the versions of Python that uv finds on this machine."""
    import uv

    listed = subprocess.run(
        [uv.find_uv_bin(), "python", "list", "--only-installed", "--no-config"],
        env=uv_environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return re.findall(r"^cpython-(\d+\.\d+\.\w+)", listed.stdout, re.MULTILINE)
