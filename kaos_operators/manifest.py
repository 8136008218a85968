"""Download the files of a job's data manifest: they become its data bundle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.configuration import conf

from kaos import openlineage
from kaos.errors import InvalidInputError, KaosError, SourceUnavailableError
from kaos.job import Stage
from kaos.lineage import DownloadRecord, ResolvedManifest, small
from kaos.manifest import Manifest, parse
from kaos.schema.job import DownloadProgress
from kaos.transfer.checkout import SharedCheckouts
from kaos_operators.base import KaosOperator
from kaos_operators.hook import open_job, work_directory

if TYPE_CHECKING:
    from airflow.sdk import Context

    from kaos.catalog import WorkspaceCatalog
    from kaos.job import JobDocument, ManifestPin
    from kaos.openlineage import Traced
    from kaos.transfer.download import Downloaded, Network, Progress, S3Access

_TOLD = 1.0
_LOGGED = 5.0
_LONGEST_WAIT = 60.0


class Fetch:
    """Bring the files that a manifest names into the store.

    :param run: who asks, such as a job's id
    :param retries: how often it is tried again when the servers do not answer
    :param refresh: fetch every file, whether it has changed or not
    :param say: is told of what a log should have
    :param tell: is told how far it is, once a second at most
    """

    def __init__(
        self,
        workspace: WorkspaceCatalog,
        pin: ManifestPin,
        *,
        run: str,
        retries: int = 0,
        refresh: bool = False,
        say: Callable[[str], object],
        tell: Callable[[DownloadProgress], object] = lambda _: None,
    ) -> None:
        self._workspace = workspace
        self._pin = pin
        self._run = run
        self._retries = retries
        self._refresh = refresh
        self._say = say
        self._tell = tell
        self._killed = threading.Event()

    def kill(self) -> None:
        """End all transfers; what arrived is kept."""
        self._killed.set()

    def fetch(self) -> tuple[ResolvedManifest, Progress]:
        """Return what the manifest gives now, committed as a data bundle; again if the servers did not
        answer.
        """
        objects, pin = self._workspace.store.objects, self._pin
        manifest = parse(objects.get(pin.content))
        self._say(f"Manifest {pin.digest[:12]}: {len(manifest.entries)} files")
        downloaded = self._persistently(manifest)
        bundle = self._workspace.commit_bundle("data", pin.name, downloaded.tree, pin.author)
        self._say(
            f"Data {bundle.pin.digest[:12]}: {downloaded.progress.unchanged} of {len(downloaded.files)} "
            "files had not changed"
        )
        origins = objects.put(downloaded.origins)
        resolved = ResolvedManifest(manifest=pin.digest, data=bundle.pin, origins=origins)
        return resolved, downloaded.progress

    def _persistently(self, manifest: Manifest) -> Downloaded:
        attempt = 1
        while True:
            try:
                return self._once(manifest)
            except SourceUnavailableError as error:
                if attempt > self._retries:
                    raise
                seconds = min(_LONGEST_WAIT, 5.0 * 2 ** (attempt - 1))
                attempt += 1
                self._say(f"{error.message}\nTry {attempt} of {self._retries + 1} in {seconds:.0f} s")
                self._killed.wait(seconds)

    def _once(self, manifest: Manifest) -> Downloaded:
        from kaos.transfer.download import download

        told = logged = 0.0

        def tell(progress: Progress) -> None:
            nonlocal told, logged
            if self._killed.is_set():
                raise KaosError("The download was killed.")
            now = time.monotonic()
            if progress.ended or now - logged >= _LOGGED:
                logged = now
                self._say(str(progress))
            if now - told >= _TOLD:
                told = now
                self._tell(shown(progress))

        try:
            return download(
                manifest,
                self._workspace.store.objects,
                work_directory() / "downloads",
                network=network(),
                s3=s3_access() if any(entry.url.startswith("s3:") for entry in manifest.entries) else None,
                run=self._run,
                refresh=self._refresh,
                origins=self._workspace.origins(manifest.digest),
                progress=tell,
            )
        except OSError as error:
            raise KaosError(
                f"The worker cannot keep the files: {error}.",
                "What arrived is kept: make room, and deploy again.",
            ) from error


class ManifestDownloadOperator(KaosOperator):
    """Bring the files that a job's manifest names into the store, and lay them out on this worker.

    The tree that comes of it is the job's data from then on: the same manifest gives another one when a
    remote file has changed. What earlier jobs downloaded is asked for only if it has changed, and a download
    that was killed goes on with what is missing. A job without a manifest passes at once.
    """

    stage: ClassVar[Stage] = Stage.INGESTING

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fetch: Fetch | None = None

    def work(
        self, document: JobDocument, workspace: WorkspaceCatalog, context: Context
    ) -> dict[str, Any] | None:
        """Return a `DownloadRecord`."""
        if document.data is not None or document.manifest is None:
            self.log.info("There is nothing to download: the job's data is in the store")
            return None
        start = time.monotonic()
        self._fetch = Fetch(
            workspace,
            document.manifest,
            run=document.job_id,
            retries=document.retries,
            refresh=document.refresh,
            say=self.log.info,
            tell=lambda progress: workspace.set_progress(document.job_id, progress),
        )
        try:
            found, progress = self._fetch.fetch()
        finally:
            workspace.set_progress(document.job_id, None)
        resolved = workspace.resolve_manifest(document.job_id, found)
        SharedCheckouts(work_directory() / "trees").get(
            workspace.store.objects, workspace.needed_tree(resolved.data.digest)
        )
        return small(
            DownloadRecord(
                manifest=resolved.manifest,
                data=resolved.data.digest,
                origins=resolved.origins,
                files=resolved.data.files,
                size=resolved.data.size,
                unchanged=progress.unchanged,
                received=progress.received,
                retries=progress.retries,
                seconds=round(time.monotonic() - start, 3),
            )
        )

    def trace(self) -> Traced:
        """Return the manifest, and the data that came of it."""
        document, _ = open_job(self.job)
        found = openlineage.traced(document, self.job)
        at = document.workspace
        read = [openlineage.bundle(at, "manifest", document.manifest)] if document.manifest else []
        made = [openlineage.bundle(at, "data", document.data)] if document.manifest and document.data else []
        return replace(found, inputs=read, outputs=made)

    def on_kill(self) -> None:
        """End all transfers; what arrived is kept."""
        if self._fetch is not None:
            self._fetch.kill()


def shown(progress: Progress) -> DownloadProgress:
    """Return how far a download is, as the catalog keeps it."""
    return DownloadProgress(
        files=progress.files,
        total=progress.total,
        received=progress.received,
        size=progress.size,
        failed=progress.failed,
        rate=progress.rate,
        eta=progress.eta,
        shown=str(progress),
    )


def network() -> Network:
    """Return what `[kaos] manifest_…` says of the network."""
    from kaos.transfer.download import Network

    allowed: str = conf.get("kaos", "manifest_allowed_networks", fallback="")
    proxy: str = conf.get("kaos", "manifest_proxy", fallback="")
    ca_file: str = conf.get("kaos", "manifest_ca_file", fallback="")
    return Network(
        allowed_networks=tuple(cidr.strip() for cidr in allowed.split(",") if cidr.strip()),
        proxy=proxy or None,
        ca_file=Path(ca_file) if ca_file else None,
        per_host=conf.getint("kaos", "manifest_connections_per_host", fallback=16),
    )


def s3_access() -> S3Access:
    """Return where S3 is and as whom, from the Airflow connection `[kaos] manifest_s3_connection`.

    :raises InvalidInputError: there are no credentials
    """
    # Two seconds of imports, for those who use it.
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore import UNSIGNED  # type: ignore[import-untyped]

    from kaos.transfer.download import S3Access

    name: str = conf.get("kaos", "manifest_s3_connection", fallback="aws_default")
    hook = S3Hook(aws_conn_id=name)
    settings = hook.conn_config
    region = settings.region_name or "us-east-1"
    endpoint = settings.get_service_endpoint_url("s3")
    if getattr(settings.botocore_config, "signature_version", None) is UNSIGNED:
        return S3Access(endpoint=endpoint, region=region, anonymous=True)
    session = hook.get_session(region_name=region)
    credentials = session.get_credentials()
    if credentials is None:
        raise InvalidInputError(
            f"There are no credentials for s3:// in the Airflow connection {name!r}, nor on the worker.",
            f"Add one of type aws, with the key's id as login: airflow connections add {name} …",
        )
    frozen = credentials.get_frozen_credentials()
    return S3Access(
        endpoint=endpoint,
        region=region,
        access_key_id=frozen.access_key,
        secret_access_key=frozen.secret_key,
        session_token=frozen.token,
    )
