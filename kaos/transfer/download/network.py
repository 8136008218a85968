"""What may be connected to and how hard to try."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Network:
    """How files are fetched; the defaults are for servers of others.

    :param allowed_networks: CIDRs that may be reached although they are not public
    :param proxy: ``http://host:port`` that everything but S3 goes through. Which addresses may be reached is
        then the proxy's to decide: only it learns them. The environment's proxies are never used
    :param ca_file: certificates to trust instead of the system's
    :param connections: most connections at the same time
    :param per_host: most of them to one host and port
    :param workers: threads, or for many files processes, that share the work
    :param connect_timeout: seconds until a connection has to be there, TLS included
    :param stall_timeout: seconds after which a transfer of less than 100 bytes a second is given up
    :param attempts: tries per file that brought nothing new, before it counts as failed
    :param backoff: seconds, the upper bound of the first wait; it doubles with each attempt
    :param longest_wait: seconds, the upper bound of every wait, also of one that a server asks for
    """

    allowed_networks: tuple[str, ...] = ()
    proxy: str | None = None
    ca_file: Path | None = None
    connections: int = 64
    per_host: int = 16
    workers: int = 2
    connect_timeout: float = 15
    stall_timeout: float = 60
    attempts: int = 6
    backoff: float = 0.5
    longest_wait: float = 60

    @property
    def certificates(self) -> str:
        """Return the file of the certificates to trust."""
        if self.ca_file:
            return str(self.ca_file)
        paths = ssl.get_default_verify_paths()  # those of the system, or of SSL_CERT_FILE
        if paths.cafile and os.path.getsize(paths.cafile):  # noqa: PTH202 (both are strings)
            return paths.cafile
        import certifi  # for systems without any

        return certifi.where()
