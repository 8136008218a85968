"""Data manifests, and what they gave."""

from __future__ import annotations

from kaos.catalog.records import Records
from kaos.digest import shortest_prefix
from kaos.job import JobDocument, ManifestPin
from kaos.lineage import ResolvedManifest
from kaos.manifest import parse as parse_manifest
from kaos.names import check_bundle
from kaos.schema.job import DownloadProgress


class Manifests(Records):
    """The data manifests of one workspace."""

    def commit_manifest(self, name: str, content: bytes, user: str) -> ManifestPin:
        """Record a data manifest; the first to submit it is its author.

        :raises InvalidManifestError: it cannot be used; nothing was recorded
        """
        with self.store.uses.hold():
            return self._record_manifest(name, content, user)

    def _record_manifest(self, name: str, content: bytes, user: str) -> ManifestPin:
        manifest = parse_manifest(content)
        new = ManifestPin(
            name=check_bundle(name),
            digest=manifest.digest,
            content=self.store.objects.put(content),
            files=len(manifest.entries),
            size=manifest.size,
            author=user,
        )

        def record(old: bytes | None) -> bytes:
            author = ManifestPin.parse(old).author if old else user
            return new.model_copy(update={"author": author}).encode()

        return ManifestPin.parse(self._swap(f"{self._at}/manifests/{new.digest}", record))

    def manifest(self, digest: str) -> ManifestPin | None:
        """Return the committed manifest with this full digest, or None."""
        ref = self.store.refs.get(f"{self._at}/manifests/{digest}")
        return ManifestPin.parse(ref.value) if ref else None

    def shown_manifest(self, pin: ManifestPin) -> str:
        """Return a manifest as a person sees it: ``/features:c6062``."""
        digests = [name.rpartition("/")[2] for name in self.store.refs.names(f"{self._at}/manifests")]
        return f"/{pin.name}:{shortest_prefix(pin.digest, digests)}"

    def origins(self, manifest: str) -> bytes:
        """Return what the URLs of a manifest gave the last time, JSON lines; empty before the first time."""
        ref = self.store.refs.get(f"{self._at}/origins/{manifest}")
        return self.store.objects.get(ref.value.decode()) if ref else b""

    def resolve_manifest(self, job_id: str, resolved: ResolvedManifest) -> ResolvedManifest:
        """Record what a job's manifest gave, once: the first stays, and is returned."""
        name = f"{self._at}/resolved/{job_id}"
        if self.store.refs.create(name, resolved.encode()):
            self._swap(f"{self._at}/origins/{resolved.manifest}", lambda _: resolved.origins.encode())
            return resolved
        return self.resolved(job_id) or resolved

    def resolved(self, job_id: str) -> ResolvedManifest | None:
        """Return what a job's manifest gave, or None while it is not downloaded."""
        ref = self.store.refs.get(f"{self._at}/resolved/{job_id}")
        return ResolvedManifest.parse(ref.value) if ref else None

    def with_data(self, document: JobDocument) -> JobDocument:
        """Return a job with its data, if its manifest is downloaded by now."""
        if document.data is not None:
            return document
        resolved = self.resolved(document.job_id)
        return document.model_copy(update={"data": resolved.data}) if resolved else document

    def set_progress(self, job_id: str, progress: DownloadProgress | None) -> None:
        """Record how far a job's download is; None when it has ended."""
        name = f"{self._at}/progress/{job_id}"
        if progress is None:
            self.store.refs.delete(name)
        else:
            self._swap(name, lambda _: progress.encode())

    def progress(self, job_id: str) -> DownloadProgress | None:
        """Return how far a job's download is, or None if there is none."""
        ref = self.store.refs.get(f"{self._at}/progress/{job_id}")
        return DownloadProgress.parse(ref.value) if ref else None
