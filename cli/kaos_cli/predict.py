"""Send a request to an endpoint, as any of its clients would."""

from __future__ import annotations

import json
import mimetypes
import os
import sys
from pathlib import Path

import urllib3

from kaos.errors import ForbiddenError, InvalidInputError, KaosError, ServerUnreachableError

TOKEN_VARIABLE = "KAOS_ENDPOINT_TOKEN"  # noqa: S105 (its name)
_BAD_REQUEST = 400


def read_data(given: str) -> tuple[bytes, str]:
    """Return the body that `-d` means, and what it is.

    :param given: ``@file``, ``@-`` for standard input, or the text itself
    :raises InvalidInputError: the file cannot be read
    """
    if not given.startswith("@"):
        return os.fsencode(given), _kind_of_text(given)
    if given == "@-":
        body = sys.stdin.buffer.read()
        return body, _kind_of_text(body.decode(errors="replace"))
    path = Path(given[1:])
    try:
        body = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror}.", "Give a file: -d @FILE"
        ) from error
    return body, mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def read_token(file: Path | None) -> str | None:
    """Return the endpoint's token: of a file, of standard input (``-``), or of the environment."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE)
    if str(file) == "-":
        return sys.stdin.readline().strip()
    try:
        return file.read_text().strip()
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise InvalidInputError(f"{file} holds no token: it is no text.") from None


def predict(url: str, body: bytes, kind: str, token: str | None) -> bytes:
    """Return an endpoint's answer.

    :raises KaosError: it is an error
    """
    headers = {"Content-Type": kind, **({"Authorization": f"Bearer {token}"} if token else {})}
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=10, read=3600), retries=False)
    try:
        answer = pool.request("POST", url, body=body, headers=headers)
    except urllib3.exceptions.HTTPError as error:
        raise ServerUnreachableError(
            f"{url} does not answer: {error}.",
            "Endpoints of kaos up are reached from its own machine only. See kaos serve list.",
        ) from error
    except ValueError:  # its text would show the token
        raise InvalidInputError(
            "The token, or the content type, has characters that no header of HTTP can have.",
            "Is it the right file?",
        ) from None
    if answer.status >= _BAD_REQUEST:
        kind_of_error = (
            ForbiddenError if answer.status == ForbiddenError.status or answer.status == 401 else KaosError
        )
        raise kind_of_error(f"HTTP {answer.status}: {_said(answer.data)}", _advice(answer.status))
    return answer.data


def _kind_of_text(text: str) -> str:
    try:
        json.loads(text)
    except ValueError:
        return "text/plain; charset=utf-8"
    return "application/json"


def _said(body: bytes) -> str:
    try:
        document = json.loads(body)
        return str(document["error"])
    except (ValueError, KeyError, TypeError):
        return body[:1000].decode(errors="replace").strip() or "no more was said"


def _advice(status: int) -> str:
    if status == 401:
        return f"Give the token: --token-file FILE, or {TOKEN_VARIABLE} in the environment."
    return "See kaos serve info, kaos serve logs."
