"""The HTTP client: operations by noun, values of `kaos.schema` in and out, errors of `kaos.errors`."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from kaos.bundle import Tree
from kaos.errors import (
    InvalidInputError,
    KaosError,
    ServerUnreachableError,
    UnauthenticatedError,
    UnknownNameError,
    error_of,
)
from kaos.job import JobDocument, JobOutcome
from kaos.model import JobSummary
from kaos.names import check_workspace
from kaos.schema.bundle import (
    BundleKind,
    CommittedBundle,
    CommittedManifest,
    ObjectsFetch,
    ObjectsMissing,
    UploadState,
    VerifyReport,
)
from kaos.schema.deploy import DeployRequest, DeployResponse
from kaos.schema.job import JobContent, JobCurves, JobInfo, JobList, JobSource, LogChunk
from kaos.schema.server import ServerInfo
from kaos.schema.workspace import WorkspaceCreate, WorkspaceInfo, WorkspaceKilled, WorkspaceList
from kaos.value import Value
from kaos_cli.config import Config, read_local_server, save_config

V = TypeVar("V", bound=Value)

_TIMEOUT = urllib3.Timeout(connect=10, read=300)
_BLOCK = 1 << 20


class Connection:
    """Requests to one server, as one user."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.token = token
        self._pool = urllib3.PoolManager(maxsize=8, timeout=_TIMEOUT, retries=False)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Value | bytes | Iterable[bytes] | None = None,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer to a request.

        :raises KaosError: the one that the server answered with, or one for a server that does not answer
        """
        headers = {"Authorization": f"Bearer {self.token}", "Accept-Encoding": "identity"}
        content: Any = body
        if isinstance(body, Value):
            content, headers["Content-Type"] = body.encode(), "application/json"
        wanted = {
            key: list(map(_text, value)) if isinstance(value, list) else _text(value)
            for key, value in (query or {}).items()
            if value is not None
        }
        url = f"{self.url}{path}" + (f"?{urlencode(wanted, doseq=True)}" if wanted else "")
        try:
            response = self._pool.request(
                method,
                url,
                body=content,
                headers=headers,
                preload_content=not stream,
                chunked=content is not None and not isinstance(content, bytes),
            )
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise _error(response.status, response.data, self)
        except HTTPError as error:
            raise ServerUnreachableError(
                f"{self.url} does not answer: {_reason(error)}.",
                "Is it running? See kaos status, or kaos init -e URL.",
            ) from error
        return response


class Client:
    """The operations of a kaos server."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @cached_property
    def info(self) -> ServerInfo:
        """Return what the server says of itself and of the user."""
        return self._get(ServerInfo, "/info")

    @property
    def workspaces(self) -> Workspaces:
        """Return the operations on workspaces."""
        return Workspaces(self.connection)

    def workspace(self, name: str) -> WorkspaceClient:
        """Return the operations in a workspace."""
        return WorkspaceClient(self.connection, name)

    def verify(self) -> VerifyReport:
        """Check the whole store."""
        return self._call(VerifyReport, "POST", "/store/verify")

    def _get(self, kind: type[V], path: str, **query: Any) -> V:
        return self._call(kind, "GET", path, query=query)

    def _call(self, kind: type[V], method: str, path: str, **options: Any) -> V:
        answer = self.connection.call(method, f"/kaos/api/v1{path}", **options).data
        try:
            return kind.parse(answer)
        except InvalidInputError as error:  # an Airflow without kaos answers everything with its own page
            raise ServerUnreachableError(
                f"{self.connection.url} did not answer as kaos does: {error.message}",
                "Does that Airflow have kaos, and of this version?",
            ) from error


class Workspaces(Client):
    """Workspaces as a whole."""

    def list(self) -> WorkspaceList:
        """Return those that the user may see."""
        return self._get(WorkspaceList, "/workspaces")

    def create(self, name: str, runtime: str | None = None) -> WorkspaceInfo:
        """Create one."""
        return self._call(
            WorkspaceInfo, "POST", "/workspaces", body=WorkspaceCreate(name=name, runtime=runtime)
        )

    def get(self, name: str) -> WorkspaceInfo:
        """Return what is in one."""
        return self._get(WorkspaceInfo, f"/workspaces/{check_workspace(name)}")

    def kill(self, name: str, *, keep_models: bool) -> WorkspaceKilled:
        """Stop what runs in one, and remove it."""
        path = f"/workspaces/{check_workspace(name)}"
        return self._call(WorkspaceKilled, "DELETE", path, query={"keep_models": keep_models})


class WorkspaceClient(Client):
    """What is in one workspace."""

    def __init__(self, connection: Connection, name: str) -> None:
        super().__init__(connection)
        self.name = name
        self._at = f"/workspaces/{check_workspace(name)}"

    def inputs(self) -> DeployResponse:
        """Return the current inputs."""
        return self._get(DeployResponse, f"{self._at}/inputs")

    def deploy(self, request: DeployRequest) -> DeployResponse:
        """Merge inputs, and start a job if they are complete."""
        return self._call(DeployResponse, "POST", f"{self._at}/deploys", body=request)

    def bundle(self, kind: BundleKind, digest: str) -> CommittedBundle | None:
        """Return a committed bundle, or None."""
        try:
            return self._get(CommittedBundle, f"{self._at}/bundles/{kind}/{digest}")
        except UnknownNameError:  # where it is the workspace that is missing, the next request says so
            return None

    def commit(self, kind: BundleKind, name: str, tree: Tree, purpose: str = "train") -> CommittedBundle:
        """Commit a bundle whose objects the server has."""
        path = f"{self._at}/bundles/{kind}/{tree.digest}"
        query = {"name": name, "purpose": purpose}
        return self._call(CommittedBundle, "PUT", path, query=query, body=tree.encoded)

    def commit_manifest(self, name: str, content: bytes) -> CommittedManifest:
        """Commit a data manifest, whose files the job downloads."""
        path = f"{self._at}/manifests"
        return self._call(CommittedManifest, "POST", path, query={"name": name}, body=content)

    def missing(self, objects: dict[str, int]) -> dict[str, int]:
        """Return what the server lacks of these objects."""
        body = ObjectsMissing(objects=objects)
        return self._call(ObjectsMissing, "POST", f"{self._at}/objects/missing", body=body).objects

    def upload_pack(self, pack: Iterable[bytes]) -> None:
        """Send many objects at once."""
        self._call(UploadState, "POST", f"{self._at}/objects", body=pack)

    def uploaded(self, digest: str) -> int:
        """Return how many bytes of a large object the server has."""
        return self._get(UploadState, f"{self._at}/uploads/{digest}").offset

    def upload_part(self, digest: str, offset: int, size: int, chunks: Iterable[bytes]) -> None:
        """Send a large object from `offset` on."""
        path = f"{self._at}/uploads/{digest}"
        self._call(UploadState, "PUT", path, query={"offset": offset, "size": size}, body=chunks)

    def tree(self, digest: str) -> Tree:
        """Return the tree of a bundle or a model."""
        return Tree.decode(self.connection.call("GET", f"/kaos/api/v1{self._at}/trees/{digest}").data)

    def download_pack(self, tree: str, digests: list[str]) -> Iterator[bytes]:
        """Yield the pack of a tree's objects as it comes."""
        path = f"/kaos/api/v1{self._at}/trees/{tree}/objects"
        response = self.connection.call("POST", path, body=ObjectsFetch(digests=digests), stream=True)
        try:
            yield from response.stream(_BLOCK)
        except HTTPError as error:
            raise ServerUnreachableError(
                f"The download broke off: {_reason(error)}.", "Try again."
            ) from error
        finally:
            response.release_conn()

    def jobs(self, limit: int, offset: int = 0) -> JobList:
        """Return jobs, the newest first."""
        return self._get(JobList, f"{self._at}/jobs", limit=limit, offset=offset)

    def job(
        self, job_id: str, *, metric: str | None = None, ascending: bool = False, page: int = 0
    ) -> JobInfo:
        """Return everything about a job."""
        path = self._job(job_id)
        return self._get(JobInfo, path, metric=metric, ascending=ascending, page=page)

    def rerun(self, job_id: str, *, failed: bool) -> JobDocument:
        """Start a job on exactly the inputs of another."""
        path = f"{self._job(job_id)}/rerun"
        return self._call(JobDocument, "POST", path, query={"failed": failed})

    def kill(self, job_id: str) -> JobOutcome:
        """End a running job."""
        return self._call(JobOutcome, "POST", f"{self._job(job_id)}/kill")

    def summary(self, job_id: str) -> JobSummary:
        """Return all trials of a job that have ended."""
        return self._get(JobSummary, f"{self._job(job_id)}/summary")

    def curves(self, job_id: str, metrics: list[str]) -> JobCurves:
        """Return the learning curves of a job's models: of these metrics first, and of others up to six."""
        path = f"{self._job(job_id)}/curves"
        return self._get(JobCurves, path, metric=metrics)

    def content(self, job_id: str) -> JobContent:
        """Return the trees of a job."""
        return self._get(JobContent, f"{self._job(job_id)}/content")

    def logs(self, job_id: str, kind: str, position: str) -> LogChunk:
        """Return lines of a job's log; `kind` is ``logs`` or ``build-logs``."""
        return self._get(LogChunk, f"{self._job(job_id)}/{kind}", position=position)

    def dag(self, job_id: str) -> JobSource:
        """Return the generated source that a job ran on."""
        return self._get(JobSource, f"{self._job(job_id)}/dag")

    def _job(self, job_id: str) -> str:
        return f"{self._at}/jobs/{segment('job', job_id, 'See kaos train list.')}"


def segment(kind: str, name: str, next_step: str) -> str:
    """Return a name as one segment of a path.

    :raises UnknownNameError: nothing has this name, which would be more than a segment, or none
    """
    if not name.strip(".") or "/" in name:
        raise UnknownNameError(kind, name, next_step=next_step)
    return quote(name, safe=":")


def connect(config: Config) -> Client:
    """Return the client of a connection; a token of this user's own server is renewed before it expires."""
    local = read_local_server()
    if local is not None and local.url == config.url and _expires(config.token) < time.time() + 60:
        config = config.model_copy(update={"token": sign_in(local.url, local.username, local.password)})
        save_config(config)
    return Client(Connection(config.url, config.token))


def sign_in(url: str, user: str, password: str) -> str:
    """Return a token for this user.

    :raises UnauthenticatedError: user or password is wrong
    """
    body = json.dumps({"username": user, "password": password}).encode()
    connection = Connection(url)
    try:
        response = connection._pool.request(
            "POST", f"{url}/auth/token", body=body, headers={"Content-Type": "application/json"}
        )
    except HTTPError as error:
        raise ServerUnreachableError(
            f"{url} does not answer: {_reason(error)}.", "Is that the address of Airflow's API server?"
        ) from error
    if response.status == HTTPStatus.UNAUTHORIZED:
        raise UnauthenticatedError(
            f"{url} does not accept this password for user {user!r}.", "Try again: kaos init"
        )
    try:
        return str(json.loads(response.data)["access_token"])
    except (ValueError, KeyError, TypeError):
        raise ServerUnreachableError(
            f"{url} gave no token (HTTP {response.status}).",
            "Is that the address of Airflow's API server? A token of your own: kaos init -e URL -t TOKEN",
        ) from None


def check_url(text: str) -> str:
    """Return a server's address without a slash at the end; ``http://`` is added where there is no scheme.

    :raises InvalidInputError: it is no address
    """
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInputError(f"{text!r} is no address of a server.", "Give one like http://127.0.0.1:8080")
    return url


def _error(status: int, content: bytes, connection: Connection) -> KaosError:
    if status == HTTPStatus.UNAUTHORIZED:
        expired = _expires(connection.token)
        if expired < time.time():
            when = time.strftime("%d %b %Y %H:%M", time.localtime(expired))
            return UnauthenticatedError(
                f"Your token expired on {when}.", f"Renew it: kaos init -f -e {connection.url}"
            )
        return UnauthenticatedError(
            f"{connection.url} does not accept your token.",
            f"Sign in again: kaos init -f -e {connection.url}",
        )
    try:
        body = json.loads(content)
        return error_of(str(body["code"]), str(body["message"]), str(body.get("next_step", "")))
    except (ValueError, KeyError, TypeError):
        return ServerUnreachableError(
            f"{connection.url} answered with HTTP {status}.", "Does that Airflow have kaos? See kaos status."
        )


def _expires(token: str) -> float:
    """Return when a JSON web token ends, in seconds since 1970; one that does not say never does."""
    try:
        payload = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return float("inf")


def _reason(error: HTTPError) -> str:
    text = str(error).rpartition(": ")[2]
    return text.rstrip(".") or type(error).__name__


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def direct_store(info: ServerInfo) -> Path | None:
    """Return the directory of the server's store if it is on this machine and this user may write to it.

    ``KAOS_TRANSFER=http`` in the environment takes all bytes over HTTP nevertheless.
    """
    from kaos.digest import digest_bytes

    if os.environ.get("KAOS_TRANSFER") == "http":
        return None

    parts = urlsplit(info.store)
    if parts.scheme != "file" or not info.instance:
        return None
    root = Path(parts.path)
    try:
        return root if digest_bytes((root / "refs" / "instance").read_bytes()) == info.instance else None
    except OSError:
        return None
