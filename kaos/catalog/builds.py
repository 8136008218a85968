"""Environments and images that source bundles were built to."""

from __future__ import annotations

from kaos.catalog.records import Records
from kaos.lineage import ImageRecord


class Builds(Records):
    """The builds of one workspace."""

    def set_build_log(self, job_id: str, digest: str) -> None:
        """Record the log of a job's build, an object in the store."""
        self._swap(f"{self._at}/builds/{job_id}", lambda _: digest.encode())

    def build_log(self, job_id: str) -> bytes | None:
        """Return the log of a job's build, or None while there is none."""
        digest = self.build_log_digest(job_id)
        return self.store.objects.get(digest) if digest else None

    def build_log_digest(self, job_id: str) -> str | None:
        """Return the digest of the log of a job's build, or None while there is none."""
        ref = self.store.refs.get(f"{self._at}/builds/{job_id}")
        return ref.value.decode() if ref else None

    def set_image(self, source: str, digest: str) -> None:
        """Record what was built from the source bundle with this digest."""
        self._swap(f"{self._at}/images/{source}", lambda _: digest.encode())

    def image(self, source: str) -> str | None:
        """Return the digest of what was last built from a source bundle, or None."""
        ref = self.store.refs.get(f"{self._at}/images/{source}")
        return ref.value.decode() if ref else None

    def set_container_image(self, source: str, record: ImageRecord) -> None:
        """Record the image that was built from the source bundle with this digest."""
        self._swap(f"{self._at}/containers/{source}", lambda _: record.encode())

    def container_image(self, source: str) -> ImageRecord | None:
        """Return the image that was last built from a source bundle, or None."""
        ref = self.store.refs.get(f"{self._at}/containers/{source}")
        return ImageRecord.parse(ref.value) if ref else None

    def built(self, source: str, runtime: str) -> str | None:
        """Return the digest of what was last built from a source bundle for a runtime, or None."""
        if runtime == "process":
            return self.image(source)
        record = self.container_image(source)
        return record.id if record else None
