"""One remote file on its way: what is asked, what the answer is worth, and how the bytes are judged."""

from __future__ import annotations

import base64
import binascii
import http
import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from kaos.manifest import ManifestEntry
from kaos.store import Objects
from kaos.transfer.download.memory import Seen
from kaos.transfer.download.part import Part
from kaos.transfer.download.retry import STATUSES, retry_after

_STATUS = re.compile(rb"(?:^|\n\r?\n)HTTP/[0-9.]+ +([0-9]{3})")
_HEADERS = re.compile(
    rb"^(content-encoding|content-length|content-range|content-md5|date|etag|last-modified|retry-after"
    rb"|transfer-encoding|x-amz-bucket-region|x-amz-server-side-encryption"
    rb"|x-amz-server-side-encryption-customer-algorithm)[ \t]*:[ \t]*(.*?)\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_COMPRESSED = re.compile(r"\.(br|bz2|gz|svgz|tgz|xz|z|zst)", re.IGNORECASE)
_S3_CODE = re.compile(rb"<Code>(\w{1,60})</Code>")
_DROPPED = 256 << 10
"""Bytes of an error page that are read to keep the connection."""
_PAGE = 4 << 10
"""Bytes of an error page of S3 in which its code is looked for."""


class Gave(NamedTuple):
    """A file that is in the store.

    :param fetched: bytes of it came; else the server said that it has not changed
    """

    sha256: str
    size: int
    etag: str | None
    modified: str | None
    fetched: bool


class Failure(NamedTuple):
    """Why there is no file.

    :param transient: another try may do
    :param after: seconds that the server asks to wait
    """

    reason: str
    transient: bool = False
    after: float = 0.0


@dataclass
class Transfer:
    """A remote file that lines of the manifest want.

    :param entries: the lines; all give this URL, and the same SHA-256 and size if any
    :param known: what the URL gave before, if the store still has it: to ask only whether it changed
    :param part: what has arrived of it
    :param attempts: tries that failed and brought nothing new
    :param furthest: most bytes that were here of a version that can be gone on with
    """

    entries: list[ManifestEntry]
    known: Seen | None
    part: Part
    attempts: int = 0
    furthest: int = 0

    def gained(self, least: int) -> bool:
        """Tell whether an attempt that failed has brought the file on by so many bytes.

        Bytes alone are no gain: a server may send the same ones again and again, and never the rest.
        """
        if self.part.validator is None or self.part.size < self.furthest + least:
            return False
        self.furthest = self.part.size
        return True

    @property
    def url(self) -> str:
        """Return the URL as the manifest gives it."""
        return self.entries[0].url

    @cached_property
    def host(self) -> str:
        """Return scheme, host and port, which share a number of connections."""
        return "/".join(self.url.split("/", 3)[:3])


@dataclass(slots=True)
class Attempt:
    """One request for a transfer, and its answer.

    :param offset: bytes that are here already and not asked for
    :param lines: the header lines as they come, those of redirects before the last ones
    """

    transfer: Transfer
    lines: list[bytes]
    offset: int = 0
    received: int = 0
    refused: str | None = None
    error: OSError | None = None
    _headers: dict[str, str] = field(default_factory=dict)
    _page: bytes = b""
    _answer: Gave | Failure | None = None
    _judged: bool = False

    def __post_init__(self) -> None:
        self.offset = self.transfer.part.resume()

    def request(self) -> list[str]:
        """Return the headers to send: for the rest of a file, or for one that is here if it has changed."""
        part, known = self.transfer.part, self.transfer.known
        if self.offset:
            return [f"Range: bytes={self.offset}-", f"If-Range: {part.validator}"]
        headers = []
        if known is not None and known.etag:
            headers.append(f"If-None-Match: {known.etag}")
        if known is not None and known.modified:
            headers.append(f"If-Modified-Since: {known.modified}")
        return headers

    def write(self, chunk: memoryview) -> int | None:
        """Take a piece of the body, and return -1 if no more of it is wanted."""
        if not self._judged:
            self._judge()
        self.received += len(chunk)
        if self._answer is not None:
            if len(self._page) < _PAGE and self.transfer.url.startswith("s3://"):
                self._page += chunk[:_PAGE]
            return -1 if self.received > _DROPPED else None
        part, wanted = self.transfer.part, self.transfer.entries[0].size
        try:
            part.write(chunk)
        except OSError as error:  # curl calls this: an exception would not get through
            self.error = error
            return -1
        if wanted is not None and part.size > wanted:
            self._answer = Failure(f"it has more than the {wanted} bytes that the manifest says")
            return -1
        return None

    def end(self, objects: Objects, trouble: Failure | None) -> Gave | Failure:
        """Judge the whole, and store the file if it is right.

        :param trouble: what went wrong on the way, if the answer did not come to its end
        :raises OSError: the disk did not take it
        """
        if self.error is not None:
            raise self.error
        if self._answer is None and trouble is None and not self._judged:
            self._judge()
        answer = self._answer or trouble or self._finish(objects)
        if code := _S3_CODE.search(self._page):
            answer = self._explained(answer, code[1].decode())
        part = self.transfer.part
        if isinstance(answer, Failure) and answer.transient:
            part.pause()
        elif part.size:
            part.discard()
        return answer

    def _judge(self) -> None:
        self._judged = True
        head = b"".join(self.lines)
        status, start = 0, 0
        for found in _STATUS.finditer(head):  # more than one after redirects
            status, start = int(found[1]), found.end()
        for name, value in _HEADERS.findall(head, start):
            self._headers[name.lower().decode()] = value.decode("latin-1")
        self._answer = self._verdict(status)

    def _verdict(self, status: int) -> Gave | Failure | None:
        known, part, headers = self.transfer.known, self.transfer.part, self._headers
        if status == 304 and known is not None and not self.offset:
            etag, modified = headers.get("etag", known.etag), headers.get("last-modified", known.modified)
            return Gave(known.sha256, known.size, etag, modified, fetched=False)
        if status == 200:
            length = headers.get("content-length", "")
            total = int(length) if length.isdigit() and "transfer-encoding" not in headers else None
            part.begin(self._validator(), total, self._md5())
            return self._other_size(total) or self._encoded()
        if status == 206 and self.offset:
            found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
            etag = headers.get("etag")
            same = etag is None or (part.validator or "").startswith('"') is False or etag == part.validator
            if found and int(found[1]) == self.offset and same and part.total in (None, int(found[3])):
                part.total = int(found[3])
                return self._other_size(part.total)
            part.discard()
            return Failure("the server sent another part than was asked for", transient=True)
        if status == 416 and self.offset:
            part.discard()
            return Failure("the server no longer has the rest of what it began to send", transient=True)
        after = retry_after(headers.get("retry-after")) if status in STATUSES else 0.0
        return Failure(f"the server answered {_phrase(status)}", status in STATUSES, after)

    def _encoded(self) -> Failure | None:
        """Refuse a body that the server has compressed although it was asked not to.

        Not where the manifest says what these bytes have to be, where a compressed file was meant, nor in S3,
        where an object's bytes are the object, whatever its encoding is noted as.
        """
        encoding = self._headers.get("content-encoding", "identity").lower()
        if encoding in ("", "identity") or self.transfer.entries[0].sha256 is not None:
            return None
        url = self.transfer.url
        if url.startswith("s3://") or _COMPRESSED.fullmatch(PurePosixPath(urlsplit(url).path).suffix):
            return None
        return Failure(
            f"the server sends it compressed ({encoding}); its sha256 in the manifest would allow it"
        )

    def _explained(self, answer: Gave | Failure, code: str) -> Gave | Failure:
        """Add what S3 says about its status."""
        if not isinstance(answer, Failure):
            return answer
        region = self._headers.get("x-amz-bucket-region")
        place = f", the bucket is in {region}" if region else ""
        return answer._replace(reason=f"{answer.reason} ({code}{place})")

    def _other_size(self, total: int | None) -> Failure | None:
        wanted = self.transfer.entries[0].size
        if total is None or wanted is None or total == wanted:
            return None
        return Failure(f"it has {total} bytes, the manifest says {wanted}")

    def _validator(self) -> str | None:
        """Return what names exactly this version of the file (RFC 9110, 8.8), or None."""
        etag, modified = self._headers.get("etag"), self._headers.get("last-modified")
        if etag:
            return etag if etag.startswith('"') else None
        try:
            date = parsedate_to_datetime(self._headers["date"])
            # Changed in the second in which it was sent, it may change again and keep the date.
            settled = modified and (date - parsedate_to_datetime(modified)).total_seconds() >= 1
        except (KeyError, ValueError, TypeError):
            return None
        return modified if settled else None

    def _md5(self) -> str | None:
        """Return the MD5 that the server says the file has, in hexadecimal."""
        given = self._headers.get("content-md5")
        if given:
            try:
                return base64.b64decode(given, validate=True).hex() or None
            except binascii.Error:
                return None
        if self.transfer.url.startswith("s3://"):
            # S3's ETag is the MD5, but for uploads in parts (with a dash) and keys that S3 does not have.
            encrypted = self._headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
            theirs = "x-amz-server-side-encryption-customer-algorithm" in self._headers
            found = _MD5_ETAG.fullmatch(self._headers.get("etag", ""))
            return found[1] if found and not encrypted and not theirs else None
        return None

    def _finish(self, objects: Objects) -> Gave | Failure:
        part, entry = self.transfer.part, self.transfer.entries[0]
        if part.total is not None and part.size != part.total:
            return Failure(f"{part.size} of {part.total} bytes came", transient=True)
        if entry.size is not None and part.size != entry.size:
            return Failure(f"it has {part.size} bytes, the manifest says {entry.size}")
        size = part.size
        version = (self._headers.get("etag"), self._headers.get("last-modified"))
        sha256, md5 = part.digests()
        if md5 is not None and md5 != part.md5_wanted:
            wanted = part.md5_wanted
            part.discard()
            return Failure(f"the {size} bytes have the MD5 {md5}, the server says {wanted}", transient=True)
        if entry.sha256 is not None and sha256 != entry.sha256:
            # Put together from two answers it may be wrong although the file is right: once more, in one.
            part.discard()
            return Failure(f"its SHA-256 is {sha256}, the manifest says {entry.sha256}", bool(self.offset))
        part.store(objects, sha256)
        return Gave(sha256, size, *version, fetched=True)


def _phrase(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
