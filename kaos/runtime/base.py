"""What a runtime can do: launch a run, observe it, read its log, end it; and what a builder makes for it."""

from __future__ import annotations

import codecs
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator

from kaos.lineage import ImageRecord
from kaos.resources import Resources
from kaos.value import Value

SpecT = TypeVar("SpecT")
BuiltT = TypeVar("BuiltT")

AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]

_LONGEST_LINE = 1 << 20
_FIRST_PAUSE_SECONDS = 0.005


class Environment(Value):
    """Say what a builder made, or found made, for the process runtime.

    :param digest: SHA-256 of what is installed: the Python asked for, the platform and the lock
    :param python: its interpreter
    :param python_version: the full version, such as ``3.11.7``
    :param lock: every package with version and hashes, in the format of a requirements file
    :param lock_digest: SHA-256 of the lock's text
    :param seconds: how long this call took
    :param reused: whether it was there already
    """

    digest: str
    python: Path
    python_version: str
    lock: str
    lock_digest: str
    seconds: float
    reused: bool


class Builder(ABC, Generic[SpecT, BuiltT]):
    """Make what a source bundle needs to run, once: a virtual environment, or an image."""

    @abstractmethod
    def build(self, spec: SpecT, log: Callable[[str], None], lock: str | None = None) -> BuiltT:
        """Return what ``spec`` asks for, from before if it was made before.

        :param log: called with each line of the build log as it comes
        :param lock: install exactly this, as an earlier build returned it, instead of resolving anew
        :raises kaos.errors.EnvironmentBuildError: with the reason that the tool gave
        """


class RunSpec(Value):
    """Describe one run of user code; a runtime needs nothing else.

    :param run_id: names the run; launching it again while it is alive starts nothing
    :param job_id: the job it belongs to, ``KAOS_JOB`` for the script
    :param program: the code, writable, and the working directory of the script; None where the image has it
    :param command: what to run; ``./train OUTPUT`` if empty
    :param data: directory of the data bundle, ``KAOS_DATA``
    :param data_name: the bundle's name, by which a container finds it too
    :param params: JSON file of the hyperparameters, ``KAOS_PARAMS``
    :param output: directory for what the script makes, ``KAOS_OUTPUT``; made if missing
    :param directory: for the runtime's own records and the log; always the same one for the same ``run_id``
    :param checkpoint: directory that outlives the tries of a trial, ``KAOS_CHECKPOINT``; None for none
    :param environment: what the builder returned
    :param env: further variables, the Dockerfile's ``ENV`` among them (``EnvironmentSpec.env``)
    :param executables: files of ``program`` to make executable first (``EnvironmentSpec.executables``)
    :param resources: what the run may use
    :param network: whether it may use the network; only a container can be kept from it
    :param labels: kept with the run, for people and for finding it again
    """

    run_id: str
    job_id: str
    program: AbsolutePath | None = None
    command: tuple[str, ...] = ()
    data: AbsolutePath | None = None
    data_name: str = "data"
    params: AbsolutePath
    output: AbsolutePath
    directory: AbsolutePath
    checkpoint: AbsolutePath | None = None
    environment: Environment | ImageRecord
    env: Mapping[str, str] = {}
    executables: tuple[str, ...] = ()
    resources: Resources = Resources()
    network: bool = True
    labels: Mapping[str, str] = {}


class RunState(StrEnum):
    """Name the states of a run; all but ``RUNNING`` are final."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"


class RunStatus(Value):
    """Say how a run is.

    :param exit_code: of the script; 128 + N when signal N ended it, 126 or 127 when it could not be started
    :param reason: one phrase for people, such as ``exit code 1``; empty while running and after success
    :param limits: which limits hold and by what means, in words
    :param out_of_memory: whether it is known that memory ran out
    :param terminated: whether somebody asked for its end
    """

    state: RunState
    exit_code: int | None = None
    reason: str = ""
    limits: str = ""
    out_of_memory: bool = False
    terminated: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state is not RunState.RUNNING


class Runtime(ABC):
    """Run user code somewhere, independent of the life of the process that asked for it.

    A handle is a JSON text, good at any time in any process of the machine (remote runtimes: of any machine).
    """

    @abstractmethod
    def launch(self, spec: RunSpec) -> str:
        """Start a run and return its handle; of a run that is alive, return the handle and start nothing."""

    @abstractmethod
    def find(self, directory: Path) -> str | None:
        """Return the handle of the run that was last launched in a directory, or None."""

    @abstractmethod
    def observe(self, handle: str) -> RunStatus:
        """Return how the run is now."""

    @abstractmethod
    def logs(self, handle: str, offset: int = 0) -> tuple[bytes, int]:
        """Return what the script wrote since ``offset``, at most 1 MiB, and the next offset.

        :param offset: 0, or what an earlier call returned
        """

    @abstractmethod
    def terminate(self, handle: str, grace_seconds: float = 1.0) -> None:
        """End the run with all that it started: ask, wait up to ``grace_seconds``, kill.

        A run that has ended stays as it is.
        """

    def follow(
        self,
        handle: str,
        line: Callable[[str], None],
        interval_seconds: float = 0.1,
        look: Callable[[], object] = lambda: None,
    ) -> RunStatus:
        """Call ``line`` for each line of the log, from its start; return how the run ended once it has.

        :param interval_seconds: the longest time between two looks at the log; they begin close together,
            for runs that are over in no time
        :param look: called between two looks at the log
        """
        pause = min(_FIRST_PAUSE_SECONDS, interval_seconds)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        offset, rest = 0, ""
        while True:
            # The state first: what a run wrote before its end is then always read after it.
            status = self.observe(handle)
            while True:
                chunk, offset = self.logs(handle, offset)
                *lines, rest = (rest + decoder.decode(chunk)).split("\n")
                for text in lines:
                    line(text)
                if len(rest) > _LONGEST_LINE:
                    line(rest)
                    rest = ""
                if not chunk:
                    break
            if status.ended:
                rest += decoder.decode(b"", final=True)
                if rest:
                    line(rest)
                return status
            look()
            time.sleep(pause)
            pause = min(pause * 1.5, interval_seconds)
