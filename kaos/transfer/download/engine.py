"""Many transfers at once in one thread: libcurl's multi interface over poll.

The address that a connection really goes to is checked in the call with which libcurl asks for the socket:
whatever a name resolves to by then, and wherever a redirect leads.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote, urlsplit

import pycurl

from kaos._version import __version__
from kaos.store import Objects
from kaos.transfer.download.addresses import AddressPolicy
from kaos.transfer.download.network import Network
from kaos.transfer.download.pending import Pending
from kaos.transfer.download.retry import wait
from kaos.transfer.download.s3 import NotSignedError, S3Access, Signer
from kaos.transfer.download.transfer import Attempt, Failure, Gave, Transfer

Ended = tuple[Transfer, Gave | Failure]

_BUFFER = 256 << 10
_REDIRECTS = 10
_PROGRESS = 1 << 20
"""Bytes that make an attempt worth another one, however many there were."""
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_HEADERS = ["Accept-Encoding: identity"]  # the file as it is: its digest is that of these bytes
_TRANSIENT = frozenset(
    {
        pycurl.E_COULDNT_RESOLVE_HOST,
        pycurl.E_COULDNT_RESOLVE_PROXY,
        pycurl.E_COULDNT_CONNECT,
        pycurl.E_PARTIAL_FILE,
        pycurl.E_OPERATION_TIMEDOUT,
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_GOT_NOTHING,
        pycurl.E_SEND_ERROR,
        pycurl.E_RECV_ERROR,
    }
)


@dataclass(frozen=True)
class Lane:
    """What an engine may do; it can be sent to another process.

    :param policy: which addresses may be reached; None for a place that the administrator chose, such as S3,
        from which no redirect is followed
    :param s3: for what is fetched from S3
    :param connections: most of them at the same time
    :param per_host: most of them to one host
    """

    network: Network
    policy: AddressPolicy | None
    s3: S3Access | None
    connections: int
    per_host: int


class Engine:
    """One thread's share of the transfers."""

    def __init__(self, pending: Pending, objects: Objects, lane: Lane) -> None:
        self.retries = 0
        self._received = 0
        self._pending = pending
        self._objects = objects
        self._lane = lane
        self._sign = Signer(lane.s3).sign if lane.s3 else str
        self._poll = select.poll()
        self._timer: float | None = None
        self._busy: Counter[str] = Counter()
        self._slots: dict[pycurl.Curl, _Slot] = {}
        self._free: list[_Slot] = []
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, lane.connections)

    @property
    def received(self) -> int:
        """Return the bytes that have arrived."""
        return self._received + sum(
            slot.attempt.received for slot in list(self._slots.values()) if slot.running
        )

    def run(self, ended: deque[Ended], stop: threading.Event) -> None:
        """Do transfers until all have ended, or `stop` is set; put each that ends into `ended`.

        :raises OSError: the disk does not take the files
        """
        try:
            while not stop.is_set() and not self._pending.done:
                self._start(ended)
                self._turn()
                self._reap(ended)
        finally:
            for slot in self._slots.values():
                if slot.running:
                    slot.attempt.transfer.part.pause()
                    self._multi.remove_handle(slot.curl)
                slot.curl.close()
            self._multi.close()

    def _start(self, ended: deque[Ended]) -> None:
        while len(self._slots) - len(self._free) < self._lane.connections:
            transfer = self._pending.take(self._busy, self._lane.per_host)
            if transfer is None:
                return
            try:
                url = self._sign(transfer.url)
            except NotSignedError as error:
                ended.append((transfer, Failure(str(error))))
                self._pending.close_one()
                continue
            slot = self._free.pop() if self._free else self._slot()
            slot.begin(transfer, url)
            self._busy[transfer.host] += 1
            self._multi.add_handle(slot.curl)

    def _turn(self) -> None:
        """Wait until something can go on, and let curl go on with it."""
        until = min(0.2, self._pending.due())
        if self._timer is not None:
            until = min(until, self._timer - time.monotonic())
        for descriptor, events in self._poll.poll(max(until, 0) * 1000):
            # An error or a hang-up is found out by reading.
            writable = pycurl.CSELECT_OUT if events & select.POLLOUT else 0
            readable = pycurl.CSELECT_IN if events & ~select.POLLOUT else 0
            self._multi.socket_action(descriptor, readable | writable)
        if self._timer is not None and self._timer <= time.monotonic():
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _reap(self, ended: deque[Ended]) -> None:
        more = 1
        while more:
            more, done, failed = self._multi.info_read()
            for curl in done:
                self._end(self._slots[curl], None, ended)
            for curl, code, message in failed:
                self._end(self._slots[curl], self._slots[curl].trouble(code, message), ended)

    def _end(self, slot: _Slot, trouble: Failure | None, ended: deque[Ended]) -> None:
        attempt, transfer = slot.attempt, slot.attempt.transfer
        slot.running = False
        self._multi.remove_handle(slot.curl)
        self._free.append(slot)
        self._busy[transfer.host] -= 1
        answer = attempt.end(self._objects, trouble)
        self._received += attempt.received
        if isinstance(answer, Failure) and answer.transient:
            transfer.attempts = 1 if transfer.gained(_PROGRESS) else transfer.attempts + 1
            limits = self._lane.network.backoff, self._lane.network.longest_wait
            if answer.after:
                self._pending.pause(transfer.host, min(answer.after, limits[1]))
            if transfer.attempts < self._lane.network.attempts:
                self.retries += 1
                self._pending.again(transfer, wait(transfer.attempts, *limits, answer.after))
                return
        ended.append((transfer, answer))
        self._pending.close_one()

    def _watch(self, what: int, descriptor: int, multi: object, data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._poll.unregister(descriptor)
            return
        readable = select.POLLIN if what & pycurl.POLL_IN else 0
        self._poll.register(descriptor, readable | (select.POLLOUT if what & pycurl.POLL_OUT else 0))

    def _set_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _slot(self) -> _Slot:
        slot = _Slot(self._lane.network, self._lane.policy)
        self._slots[slot.curl] = slot
        return slot


class _Slot:
    """A curl handle, used for one attempt after the other."""

    def __init__(self, network: Network, policy: AddressPolicy | None) -> None:
        self.attempt: Attempt
        self.running = False
        self.lines: list[bytes] = []
        self.curl = curl = pycurl.Curl()
        self._plain = True
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.USERAGENT, f"kaos/{__version__}")
        curl.setopt(pycurl.HTTPHEADER, _HEADERS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(network.connect_timeout * 1000))
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 100)
        curl.setopt(pycurl.LOW_SPEED_TIME, max(1, int(network.stall_timeout)))
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER)
        curl.setopt(pycurl.CAINFO, network.certificates)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.MAXREDIRS, _REDIRECTS)
        curl.setopt(pycurl.HEADERFUNCTION, self.lines.append)  # called ten times a file
        curl.setopt(pycurl.WRITEFUNCTION, self._write, use_memoryview=True)
        curl.setopt(pycurl.NOPROXY, "")
        curl.setopt(pycurl.PROXY, "")  # not even that of the environment: only it would see the address
        if policy is None:
            return
        curl.setopt(pycurl.FOLLOWLOCATION, 1)
        if network.proxy:
            curl.setopt(pycurl.PROXY, network.proxy)
        else:
            curl.setopt(pycurl.OPENSOCKETFUNCTION, partial(self._open, policy))

    def begin(self, transfer: Transfer, url: str) -> None:
        """Make the next request of a transfer."""
        self.lines.clear()
        self.attempt = Attempt(transfer, self.lines)
        self.running = True
        self.curl.setopt(pycurl.URL, _wire(url))
        # What was asked for over TLS must not come without: a redirect cannot take that away.
        plain = 0 if url.startswith("https:") else pycurl.PROTO_HTTP
        self.curl.setopt(pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTPS | plain)
        headers = self.attempt.request()
        if headers or not self._plain:
            self.curl.setopt(pycurl.HTTPHEADER, _HEADERS + headers)
            self._plain = not headers

    def trouble(self, code: int, message: str) -> Failure:
        """Return what a code of curl means for the file."""
        if self.attempt.refused is not None:
            hop = urlsplit(self.curl.getinfo(pycurl.EFFECTIVE_URL)).hostname
            allow = "[kaos] manifest_allowed_networks does not allow"
            return Failure(f"{hop} leads to {self.attempt.refused}, which {allow}")
        if code == pycurl.E_TOO_MANY_REDIRECTS:
            return Failure(f"it is redirected more than {_REDIRECTS} times")
        if code == pycurl.E_UNSUPPORTED_PROTOCOL and "HTTP/0.9" not in message:  # that is no HTTP at all
            target = str(
                self.curl.getinfo(pycurl.REDIRECT_URL) or self.curl.getinfo(pycurl.EFFECTIVE_URL) or ""
            )
            return Failure(
                f"it is redirected to {target.partition(':')[0]}://, which is not allowed: {message}"
            )
        return Failure(message or f"curl error {code}", code in _TRANSIENT)

    def _write(self, chunk: memoryview) -> int | None:
        return self.attempt.write(chunk)

    def _open(
        self, policy: AddressPolicy, purpose: int, address: tuple[int, int, int, tuple[str, int]]
    ) -> _Socket | int:
        """Return a socket for an address, if it may be connected to; an exception in here refuses it too."""
        family, kind, protocol, (host, *_) = address
        why = policy.refusal(host) if family in (socket.AF_INET, socket.AF_INET6) else "no internet address"
        if why is not None:
            self.attempt.refused = f"{host} ({why})"
            return int(pycurl.SOCKET_BAD)
        return _Socket(family, kind, protocol)


class _Socket:
    """A socket for pycurl, which copies the descriptor: this one is closed when pycurl lets go of it."""

    def __init__(self, family: int, kind: int, protocol: int) -> None:
        self._socket = socket.socket(family, kind, protocol)
        self.fileno = self._socket.fileno

    def __del__(self) -> None:
        self._socket.close()


def _wire(url: str) -> str:
    """Return the URL as it is sent: spaces and all but ASCII percent-encoded, the host's name as in DNS."""
    if url.isascii() and " " not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc
    if not host.isascii():
        host = host.encode("idna").decode()
    return quote(parts._replace(netloc=host).geturl(), safe=_PRINTABLE)
