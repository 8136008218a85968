"""From a manifest to a tree in the store: what need not be asked, what is asked, and what comes of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from kaos.bundle import File, Tree
from kaos.errors import DownloadFailedError, SourceUnavailableError
from kaos.manifest import Manifest, ManifestEntry
from kaos.store import FileObjects, Objects
from kaos.transfer.download.addresses import AddressPolicy
from kaos.transfer.download.engine import Ended, Engine, Lane
from kaos.transfer.download.memory import Memory, Seen
from kaos.transfer.download.network import Network
from kaos.transfer.download.part import Part, part_name, sweep
from kaos.transfer.download.pending import Pending
from kaos.transfer.download.progress import Progress
from kaos.transfer.download.s3 import S3Access
from kaos.transfer.download.transfer import Failure, Gave, Transfer
from kaos.transfer.download.worker import WorkerProcess

How = Literal["downloaded", "unchanged", "continued", "stored"]
"""It came now; the server said that it has not changed; this pass had it already when it was killed; the
manifest pins its SHA-256 and the store has it."""

_EVERY = 0.2
_LOOK = 0.05
_MANY = 200
"""Files that are worth the quarter of a second in which processes start."""
_ANYWHERE = Network()


class Fetched(NamedTuple):
    """What a line of the manifest gave: digest, size in bytes, the server's words for its version, and how
    it came.
    """

    path: str
    url: str
    sha256: str
    size: int
    etag: str | None
    modified: str | None
    how: How


@dataclass(frozen=True)
class Downloaded:
    """What a manifest gave.

    :param tree: the files, to be stored as the data bundle
    :param files: what each line gave, by path
    :param progress: the figures of the whole download
    """

    tree: Tree
    files: tuple[Fetched, ...]
    progress: Progress

    @property
    def origins(self) -> bytes:
        """Return which URL gave what: JSON lines by path, the same for the same content."""
        dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
        return "".join(
            dump(
                {
                    "path": file.path,
                    "url": file.url,
                    "sha256": file.sha256,
                    "size": file.size,
                    "etag": file.etag,
                    "last_modified": file.modified,
                }
            )
            + "\n"
            for file in self.files
        ).encode()


def download(
    manifest: Manifest,
    objects: Objects,
    work: Path,
    *,
    network: Network = _ANYWHERE,
    s3: S3Access | None = None,
    run: str = "",
    refresh: bool = False,
    origins: bytes = b"",
    progress: Callable[[Progress], None] = lambda _: None,
) -> Downloaded:
    """Bring all files of a manifest into the store.

    One download of a manifest runs at a time below `work`; another waits for its end and then asks what
    changed.

    :param work: a directory that is kept: what URLs gave, and parts of large files. On the store's file
        system large files are moved, else copied
    :param s3: for ``s3://`` lines; without it they fail
    :param run: who asks, such as a job's id: a `refresh` that was killed goes on if it is the same run
    :param refresh: fetch every file, whether it has changed or not
    :param origins: what an earlier download gave, of whatever worker: what has not changed since is not
        fetched
    :param progress: be told how far it is, five times a second and at the end; in the caller's thread
    :raises DownloadFailedError: lines whose files could not be had, all of them; what could is kept
    :raises SourceUnavailableError: the same, and each of them may work later
    :raises InvalidInputError: an allowed network is none
    :raises OSError: the disk does not take the files
    """
    policy = AddressPolicy(network.allowed_networks)
    with (
        _lock(work / f"{manifest.digest[:32]}.lock"),
        contextlib.closing(Memory(work / "urls.sqlite")) as memory,
    ):
        sweep(work / "parts")
        memory.learn(origins)
        started = memory.begin(manifest.digest, run, refresh=refresh)
        tally = _Tally(manifest, progress)
        transfers = _plan(manifest, objects, memory, work / "parts", tally, started=started, refresh=refresh)
        if s3 is None:
            transfers = _without_s3(transfers, tally)
        tally.engines = list(_engines(transfers, objects, network, policy, s3))
        _run(tally.engines, memory, tally)
        tally.tell(ended=True)
        if tally.failures:
            raise _failed(tally.failures)
        memory.end(manifest.digest)
        files = tuple(sorted(tally.files, key=lambda file: file.path.encode()))
        return Downloaded(
            Tree.of(File(file.path, file.size, file.sha256) for file in files), files, tally.now(ended=True)
        )


class _Tally:
    """What has ended so far."""

    def __init__(self, manifest: Manifest, progress: Callable[[Progress], None]) -> None:
        self.files: list[Fetched] = []
        self.failures: list[tuple[ManifestEntry, Failure]] = []
        self.engines: list[Engine | WorkerProcess] = []
        self._manifest = manifest
        self._progress = progress
        self._start = self._told = time.monotonic()
        self._unchanged = self._present = 0

    def add(self, entries: list[ManifestEntry], gave: Gave | Seen, how: How) -> None:
        for entry in entries:
            self.files.append(
                Fetched(entry.path, entry.url, gave.sha256, gave.size, gave.etag, gave.modified, how)
            )
            self._present += gave.size
            self._unchanged += how != "downloaded"

    def fail(self, entries: list[ManifestEntry], failure: Failure) -> None:
        self.failures += ((entry, failure) for entry in entries)

    def tell(self, *, ended: bool = False) -> None:
        if ended or time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            self._progress(self.now(ended=ended))

    def now(self, *, ended: bool) -> Progress:
        return Progress(
            files=len(self.files),
            total=len(self._manifest.entries),
            received=sum(engine.received for engine in self.engines),
            size=self._manifest.size,
            present=self._present,
            unchanged=self._unchanged,
            failed=len(self.failures),
            retries=sum(engine.retries for engine in self.engines),
            seconds=time.monotonic() - self._start,
            ended=ended,
        )


def _plan(
    manifest: Manifest,
    objects: Objects,
    memory: Memory,
    parts: Path,
    tally: _Tally,
    *,
    started: float,
    refresh: bool,
) -> list[Transfer]:
    """Return what has to be asked; the rest goes into the tally. A file that several lines want is asked for
    once.
    """
    groups: dict[tuple[str, str | None, int | None], list[ManifestEntry]] = {}
    for entry in manifest.entries:
        groups.setdefault((entry.url, entry.sha256, entry.size), []).append(entry)
    known = memory.find(url for url, _, _ in groups)
    begun = {path.stem for path in parts.glob("*.json")}
    transfers: list[Transfer] = []
    for (url, sha256, size), entries in groups.items():
        seen = known.get(url)
        if seen is not None and (sha256 not in (None, seen.sha256) or size not in (None, seen.size)):
            seen = None
        if seen is not None and objects.size(seen.sha256) != seen.size:
            seen = None
        if seen is not None and seen.seen >= started:
            tally.add(entries, seen, "continued")
            continue
        if sha256 is not None and not refresh:
            stored = objects.size(sha256)
            if stored is not None and size in (None, stored):
                tally.add(entries, Seen(url, sha256, stored, None, None, 0), "stored")
                continue
        transfers.append(
            Transfer(entries, None if refresh else seen, Part(parts, url, left=part_name(url) in begun))
        )
    return transfers


def _without_s3(transfers: list[Transfer], tally: _Tally) -> list[Transfer]:
    for transfer in transfers:
        if transfer.url.startswith("s3://"):
            tally.fail(transfer.entries, Failure("no S3 connection is set up"))
    return [transfer for transfer in transfers if not transfer.url.startswith("s3://")]


def _engines(
    transfers: list[Transfer], objects: Objects, network: Network, policy: AddressPolicy, s3: S3Access | None
) -> Iterator[Engine | WorkerProcess]:
    """Yield the shares: of what a manifest may name, and, with connections of their own, of S3."""
    signed = [transfer for transfer in transfers if transfer.url.startswith("s3://")]
    others = [transfer for transfer in transfers if not transfer.url.startswith("s3://")]
    if others:
        yield from _share(others, objects, Lane(network, policy, None, network.connections, network.per_host))
    if signed:
        yield from _share(signed, objects, Lane(network, None, s3, network.connections, network.per_host))


def _share(transfers: list[Transfer], objects: Objects, lane: Lane) -> Iterator[Engine | WorkerProcess]:
    """Yield the workers: processes if there are enough files to keep them busy, else threads."""
    workers = max(1, min(lane.network.workers, lane.per_host, lane.connections, len(transfers)))
    if workers > 1 and len(transfers) >= _MANY and isinstance(objects, FileObjects):
        own = replace(lane, connections=lane.connections // workers, per_host=lane.per_host // workers)
        yield Engine(Pending(transfers[::workers]), objects, own)  # while the others start
        for number in range(1, workers):
            yield WorkerProcess(transfers[number::workers], objects, own)
        return
    # None of the threads may take more than its part of a few large files.
    part = -(-len(transfers) // workers)
    connections, per_host = (min(limit // workers, part) for limit in (lane.connections, lane.per_host))
    pending = Pending(transfers)
    for _ in range(workers):
        yield Engine(pending, objects, replace(lane, connections=connections, per_host=per_host))


def _run(engines: list[Engine | WorkerProcess], memory: Memory, tally: _Tally) -> None:
    """Let the engines work, and remember what ends, until they are done or one of them gives up."""
    ended: deque[Ended] = (
        deque()
    )  # looked at now and then: to be woken for each file costs more than the file
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, len(engines)), thread_name_prefix="download") as pool:
        working = [pool.submit(engine.run, ended, stop) for engine in engines]
        try:
            while True:
                done, going = wait(working, timeout=_LOOK, return_when=FIRST_EXCEPTION)
                _take(ended, memory, tally)
                tally.tell()
                if not going or any(future.exception() for future in done):
                    break
        finally:
            stop.set()
    _take(ended, memory, tally)
    for future in working:
        future.result()


def _take(ended: deque[Ended], memory: Memory, tally: _Tally) -> None:
    """Keep what has ended; the files are in the store by then."""
    rows: list[Seen] = []
    while ended:
        transfer, answer = ended.popleft()
        if isinstance(answer, Failure):
            tally.fail(transfer.entries, answer)
        else:
            tally.add(transfer.entries, answer, "downloaded" if answer.fetched else "unchanged")
            version = (answer.etag, answer.modified)
            rows.append(Seen(transfer.url, answer.sha256, answer.size, *version, time.time()))
    if rows:
        memory.remember(rows)


def _failed(failures: list[tuple[ManifestEntry, Failure]]) -> DownloadFailedError:
    failures = sorted(failures, key=lambda failure: failure[0].line)
    lines = [f"line {entry.line}: {_shown(entry.url)}: {failure.reason}" for entry, failure in failures]
    lasting = any(not failure.transient for _, failure in failures)
    return DownloadFailedError(lines) if lasting else SourceUnavailableError(lines)


def _shown(url: str) -> str:
    """Return a URL without its query, in which secrets may be."""
    plain, mark, _ = url.partition("?")
    return plain + ("?…" if mark else "")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
