"""Call a container engine: with nothing of Airflow in its environment, its reason in the error."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kaos.errors import ContainerEngineError

_SECONDS = 120
_REASON_LINES = 20
_DAEMON = "Error response from daemon:"
# Not for the processes that an engine leaves beside a container (conmon): the marks by which the local server
# finds what is its own, and the secrets of Airflow.
_KEPT_BACK = ("AIRFLOW", "KAOS_", "SUPERVISOR_", "_AIRFLOW")


def engine_environment(server: Mapping[str, str], more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what an engine may see of our environment, and what is added to it."""
    kept = {name: value for name, value in server.items() if not name.startswith(_KEPT_BACK)}
    return kept | dict(more or {})


def call(
    command: Sequence[str],
    *,
    more: Mapping[str, str] | None = None,
    seconds: float = _SECONDS,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end and return what it printed, whatever its exit code.

    :param more: variables to add
    :param cwd: where podman's monitor of a container leaves a file ``oom``
    :raises ContainerEngineError: it is not there, or did not end in time
    """
    try:
        return subprocess.run(
            command,
            cwd=cwd or tempfile.gettempdir(),
            env=engine_environment(os.environ, more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            # A kill of the task must not cut a start in half: the operator ends what was started.
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise ContainerEngineError(
            f"{command[0]} is not installed on this machine.", "Install podman or docker."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ContainerEngineError(
            f"`{' '.join(command[:2])}` did not end within {seconds:g} s.", f"Is {command[0]} well?"
        ) from error


def reason(said: bytes) -> str:
    """Return the line of what a command said that has the reason, without the words around it."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    answers = [line for line in lines if line.startswith(_DAEMON)]
    return (answers or lines or [""])[-1].removeprefix(_DAEMON).removeprefix("Error: ").strip()


class Stream:
    """A command whose lines are passed on as they come; another thread or a signal handler can end it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = False

    def run(
        self,
        command: Sequence[str],
        log: Callable[[str], None],
        *,
        more: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> tuple[int, list[str]]:
        """Run a command; return its exit code and its last lines.

        :raises ContainerEngineError: it is not there, or was cancelled
        """
        said: list[str] = []
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=engine_environment(os.environ, more),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ContainerEngineError(
                f"{command[0]} is not installed on this machine.", "Install podman or docker."
            ) from error
        with process:
            assert process.stdout is not None  # noqa: S101  a pipe was asked for
            self._process = process
            try:
                for line in process.stdout:
                    text = line.rstrip()
                    said = [*said[1 - _REASON_LINES :], text]
                    log(text)
            except BaseException:
                self.cancel()
                raise
            finally:
                self._process = None
        if self._cancelled:
            raise ContainerEngineError("The build was ended.")
        return process.returncode, said

    def cancel(self) -> None:
        """End the command with all that it started; it cleans up after itself when it is asked to end."""
        process = self._process
        self._cancelled = True
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)
                return
