"""From an ``s3://`` URL to one that can be fetched: obstore signs, the bytes come like all others."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kaos.errors import InvalidInputError
from kaos.manifest import split_s3

if TYPE_CHECKING:
    from obstore.store import RetryConfig, S3Store

_ENDPOINT = re.compile(r"https?://[^/\s]+(/\S*)?")
_RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
"""For the machine's own identity, the only thing that a signature may have to ask for."""
_VALID = timedelta(hours=6)  # a signature has to outlive its transfer's connection only


@dataclass(frozen=True)
class S3Access:
    """Where S3 is, and as whom.

    :param endpoint: ``https://host:port`` of something other than AWS; buckets are the first part of the
        path there. It is the administrator's choice, so that it may be in any network
    :param region: of the buckets
    :param anonymous: sign nothing: for public buckets
    """

    endpoint: str | None = None
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    anonymous: bool = False

    def __post_init__(self) -> None:
        if self.endpoint is not None and not _ENDPOINT.fullmatch(self.endpoint):
            raise InvalidInputError(
                f"The S3 endpoint {self.endpoint!r} is no URL.",
                "Write endpoint_url in the Airflow connection as https://host or http://host:port.",
            )


class NotSignedError(Exception):
    """Say why a URL cannot be signed."""


class Signer:
    """Make URLs that can be fetched.

    :param access: without a key, and not anonymous, obstore finds the machine's own identity
    """

    def __init__(self, access: S3Access) -> None:
        self._access = access
        self._stores: dict[str, S3Store] = {}
        self._missing = ""
        self._lock = threading.Lock()

    def sign(self, url: str) -> str:
        """Return the URL to fetch for an ``s3://`` URL.

        :raises NotSignedError: there are no credentials, or not all of them
        """
        bucket, key = split_s3(url)
        if self._access.anonymous:
            host = self._access.endpoint or f"https://s3.{self._access.region}.amazonaws.com"
            return f"{host.rstrip('/')}/{bucket}/{quote(key)}"
        if self._missing:  # asking again takes time for each of thousands of files
            raise NotSignedError(self._missing)
        import obstore  # 30 ms, for those who use it
        from obstore.exceptions import BaseError

        try:
            with self._lock:
                store = self._stores.get(bucket) or self._stores.setdefault(bucket, self._store(bucket))
            return obstore.sign(store, "GET", key, _VALID)
        except (BaseError, TypeError) as error:  # TypeError: a key that it cannot address
            (first, *_) = str(error).splitlines() or [type(error).__name__]
            why = f"it cannot be signed for S3: {first.removeprefix('Generic S3 error: ')}"
            if self._access.access_key_id is None:
                why = f"there are no S3 credentials, neither in the connection nor of this machine; {why}"
                self._missing = why
            raise NotSignedError(why) from None

    def _store(self, bucket: str) -> S3Store:
        from obstore.store import S3Store

        access = self._access
        given: dict[str, Any] = {
            "endpoint": access.endpoint,
            "access_key_id": access.access_key_id,
            "secret_access_key": access.secret_access_key,
            "session_token": access.session_token,
        }
        allow_http = (access.endpoint or "").startswith("http://")
        return S3Store(
            bucket,
            region=access.region,
            client_options={"allow_http": allow_http},
            retry_config=_RETRIES,
            **{name: value for name, value in given.items() if value is not None},
        )
