"""Everything that can be wrong, each with its HTTP status and exit code, written once.

KaosError
├── InvalidInputError            what was given cannot be accepted
│   ├── InvalidNameError
│   ├── InvalidBundleError       a directory that is no bundle of the kind asked for
│   ├── FilesMissingError        a bundle some of whose files are not in the store (any more)
│   ├── InvalidResourceError     --cpu, --memory, --gpu
│   ├── InvalidParametersError   a hyperparameter file
│   ├── InvalidManifestError     a data manifest, with all its bad lines
│   ├── InvalidScheduleError     when a schedule runs
│   ├── InvalidConditionError    --if of a schedule, with the place
│   └── UnsupportedImageError    a Dockerfile that this runtime cannot honour
├── UnknownNameError             a workspace, job, model, template that is not there (with suggestions)
├── AlreadyExistsError
├── ConflictError                somebody else changed it meanwhile
├── UnauthenticatedError         no token, or one that expired
├── ForbiddenError
├── RemovedError                 what retention removed: its records are left
├── CorruptObjectError           stored bytes that are not what their digest says
├── EnvironmentBuildError        the environment of a source bundle could not be made
├── ContainerEngineError         podman or docker is not there, or did not do what it was told
├── DownloadFailedError          lines of a manifest that could not be downloaded
│   └── SourceUnavailableError   none of them for good: another try may do
├── TrainingFailedError          the user's script failed
├── JobFailedError               a job that was waited for did not succeed
├── NotReproducedError           a model that was made again came out differently
├── ServingFailedError           a revision of an endpoint that does not start, or not answer
├── ServerUnreachableError
└── LocalServerError             `kaos up` could not start, or a process of it is not there
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar


class KaosError(Exception):
    """The base of every error that a user may see: what was wrong, and the next step.

    :param message: one sentence with the offending name or line
    :param next_step: what to do now, as a sentence or a command; empty if the message says it all
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __reduce__(self) -> tuple[object, ...]:
        # Subclasses build their message from objects; a copy that crosses a process keeps the finished text.
        return _rebuild, (type(self), self.message, self.next_step)

    def __str__(self) -> str:
        return f"{self.message}\n{self.next_step}" if self.next_step else self.message


def _rebuild(kind: type[KaosError], message: str, next_step: str) -> KaosError:
    error = kind.__new__(kind)
    KaosError.__init__(error, message, next_step)
    return error


def error_of(code: str, message: str, next_step: str) -> KaosError:
    """Return the error that a server answered with, of the class whose code it is."""
    kinds = [KaosError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    found = next((kind for kind in kinds if kind.code == code), KaosError)
    return _rebuild(found, message, next_step)


def _listed(lines: Sequence[str], most: int = 20) -> str:
    shown = [f"  {line}" for line in lines[:most]]
    return "\n".join([*shown, f"  and {len(lines) - most} more"] if len(lines) > most else shown)


class InvalidInputError(KaosError):
    """Report input that cannot be accepted."""

    code = "invalid_input"
    status = 422
    exit_code = 2


class InvalidNameError(InvalidInputError):
    """Report a name that breaks the rules for names."""

    code = "invalid_name"

    def __init__(self, kind: str, name: str, rule: str) -> None:
        super().__init__(f"{name!r} is not a valid {kind} name.", rule)


class InvalidBundleError(InvalidInputError):
    """Report a directory that is no valid bundle; nothing of it was stored."""

    code = "invalid_bundle"


class FilesMissingError(InvalidInputError):
    """Report a bundle some of whose files are not in the store; nothing was recorded.

    :param count: how many
    """

    code = "files_missing"

    def __init__(self, count: int) -> None:
        super().__init__(
            f"{count} of the bundle's files have not arrived.", "Deploy again: what arrived is kept."
        )


class InvalidResourceError(InvalidInputError):
    """Report a --cpu, --memory or --gpu that is malformed or more than there is."""

    code = "invalid_resource"


class InvalidParametersError(InvalidInputError):
    """Report a hyperparameter file that gives no usable trials, or too many."""

    code = "invalid_parameters"


class InvalidManifestError(InvalidInputError):
    """Report all the lines of a data manifest that cannot be used.

    :param problems: number of each line, and what is wrong with it
    """

    code = "invalid_manifest"

    def __init__(self, problems: Sequence[tuple[int, str]]) -> None:
        super().__init__(
            "The manifest cannot be used:\n" + _listed([f"line {line}: {why}" for line, why in problems]),
            'Each line is an object such as {"url": "https://…", "path": "training/a.csv"}.',
        )


class InvalidScheduleError(InvalidInputError):
    """Report times at which nothing can be run."""

    code = "invalid_schedule"


class InvalidConditionError(InvalidInputError):
    """Report a condition that cannot be read, with a caret below the place.

    :param problem: what is wrong there, as a sentence
    :param place: index into `text`
    """

    code = "invalid_condition"

    def __init__(self, problem: str, text: str, place: int) -> None:
        super().__init__(
            f"The condition cannot be read: {problem}\n  {text}\n  {' ' * place}^",
            'Write one like "accuracy_test >= 0.9 and > current".',
        )


class UnsupportedImageError(InvalidInputError):
    """Report a Dockerfile instruction outside what the process runtime honours."""

    code = "unsupported_image"


class UnknownNameError(KaosError):
    """Report a name that does not exist, with the nearest ones that do.

    :param kind: what was looked for, such as ``workspace``
    :param name: the name as it was given
    :param known: the names that exist
    :param next_step: how to list them
    """

    code = "unknown_name"
    status = 404
    exit_code = 3

    def __init__(self, kind: str, name: str, known: Iterable[str] = (), next_step: str = "") -> None:
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else ""
        super().__init__(
            f"There is no {kind} {name!r}.", " ".join(part for part in (hint, next_step) if part)
        )


class AlreadyExistsError(KaosError):
    """Report something that is already there and would be overwritten."""

    code = "already_exists"
    status = 409
    exit_code = 4


class ConflictError(KaosError):
    """Report a value that somebody else changed in the meantime."""

    code = "conflict"
    status = 409
    exit_code = 4


class UnauthenticatedError(KaosError):
    """Report a missing, wrong or expired token."""

    code = "unauthenticated"
    status = 401
    exit_code = 5


class ForbiddenError(KaosError):
    """Report a user who may not do this."""

    code = "forbidden"
    status = 403
    exit_code = 5


class RemovedError(KaosError):
    """Report something that retention removed: when, by whom, and what can be done.

    :param what: such as ``model e23a2_c6062:4f6a1b``
    :param note: the end of the sentence, ``removed by retention on ... by ...``
    """

    code = "removed"
    status = 410
    exit_code = 3

    def __init__(self, what: str, note: str, next_step: str = "") -> None:
        super().__init__(f"The {what} was {note}.", next_step)


class CorruptObjectError(KaosError):
    """Report stored bytes that differ from their digest, naming the file."""

    code = "corrupt_object"
    status = 500
    exit_code = 6


class EnvironmentBuildError(KaosError):
    """Report an environment that could not be built; the build log says why."""

    code = "environment_build_failed"
    status = 422


class ContainerEngineError(KaosError):
    """Report a container engine that is not there, or that failed at what it was told."""

    code = "container_engine"
    status = 503


class DownloadFailedError(KaosError):
    """Report all the lines of a manifest whose files could not be had.

    :param failures: a sentence for each line: its number, URL and reason
    """

    code = "download_failed"
    status = 422
    advice: ClassVar[str] = "What did arrive is kept: mend the lines and deploy again."

    def __init__(self, failures: Sequence[str]) -> None:
        count = f"{len(failures)} file{'s' if len(failures) > 1 else ''}"
        super().__init__(
            f"{count} of the manifest could not be downloaded:\n{_listed(failures)}", self.advice
        )


class SourceUnavailableError(DownloadFailedError):
    """Report files that could not be had for now: their servers do not answer, or are too busy."""

    code = "source_unavailable"
    status = 503
    advice = "What did arrive is kept: deploy again later."


class TrainingFailedError(KaosError):
    """Report a user's script that ended with an error."""

    code = "training_failed"


class JobFailedError(KaosError):
    """Report a job that ended in another state than success."""

    code = "job_failed"


class NotReproducedError(KaosError):
    """Report a model that was made again, of the same inputs, and came out differently."""

    code = "not_reproduced"
    exit_code = 8


class ServingFailedError(KaosError):
    """Report a revision of an endpoint that does not start, or does not answer as it should."""

    code = "serving_failed"


class ServerUnreachableError(KaosError):
    """Report a server that does not answer."""

    code = "server_unreachable"
    status = 503
    exit_code = 7


class LocalServerError(KaosError):
    """Report a local server that could not start or stop."""

    code = "local_server"
