"""Download the files of a data manifest into a store, fast and whole, and pin what arrived.

Use from an operator::

    manifest = parse(content)                      # kaos.manifest; InvalidManifestError names all bad lines
    result = download(
        manifest,
        store.objects,
        work=Path("/var/lib/kaos/work/downloads"),     # same file system as the store; kept between jobs
        network=Network(allowed_networks=("10.1.0.0/16",)),
        s3=S3Access(region="eu-central-1", access_key_id="...", secret_access_key="..."),
        run=job_id,                                    # a retry of the same job goes on where it was killed
        refresh=False,
        progress=lambda now: log.info("%s", now),      # a Progress, five times a second at most
    )
    tree_digest = store.objects.put(result.tree.encoded)
    origins_digest = store.objects.put(result.origins)

Errors: DownloadFailedError with all lines that failed, SourceUnavailableError (a subclass) if every one of
them may work later, OSError if the disk does not take the files. An exception of any kind, also one that
`progress` raises, ends all transfers before it reaches the caller; what arrived until then is kept and not
asked for again.
"""

from kaos.transfer.download.fetch import Downloaded, Fetched, download
from kaos.transfer.download.network import Network
from kaos.transfer.download.progress import Progress
from kaos.transfer.download.s3 import S3Access

__all__ = ["Downloaded", "Fetched", "Network", "Progress", "S3Access", "download"]
