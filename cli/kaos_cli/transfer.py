"""Bundles from this machine to the server and back: over HTTP, or straight into a store on this machine."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from kaos.bundle import File, Tree
from kaos.errors import CorruptObjectError, FilesMissingError, InvalidInputError, ServerUnreachableError
from kaos.schema.bundle import BundleKind, CommittedBundle
from kaos.source import check_source
from kaos.store import FileObjects, open_file_store
from kaos.store.base import CHUNK, corrupt
from kaos.transfer.checkout import checkout, make_directories, make_links
from kaos.transfer.pack import Packed, read_pack, write_pack
from kaos.transfer.push import DirectTarget, LocalFile, Target, push
from kaos.transfer.scan import Progress, Scan, Walk, scan
from kaos.transfer.statcache import StatCache
from kaos_cli.client import WorkspaceClient, direct_store
from kaos_cli.config import home

_LARGE = 64 << 20
"""Bytes from which on a file travels alone and can be resumed; smaller ones travel together."""

_PACK = 32 << 20
_ATTEMPTS = 5


def scan_directory(walked: Walk, target: Target | None, progress: Progress) -> Scan:
    """Hash a directory, those files alone that changed since it was last hashed.

    Straight into a store on this machine the files are copied while they are read: once instead of twice.
    """
    digester = target.digester if isinstance(target, DirectTarget) else None
    cache = StatCache.of(walked.root, home() / "cache" / "scan")
    return scan(walked, cache, digester, progress)


def check(walked: Walk, kind: BundleKind) -> None:
    """Refuse a directory that is no bundle of its kind, before anything is read or sent.

    :raises InvalidBundleError: a link leaves it, or it is to be a source bundle and lacks what that must have
    """
    outline = walked.outline
    if kind == "source":
        check_source(outline)


def target_of(client: WorkspaceClient) -> Target:
    """Return the shortest way to the server's store."""
    root = direct_store(client.info)
    if root is None:
        return HttpTarget(client)
    objects = open_file_store(root).objects
    return DirectTarget(objects) if isinstance(objects, FileObjects) else HttpTarget(client)


def submit(
    client: WorkspaceClient,
    kind: BundleKind,
    scanned: Scan,
    target: Target,
    progress: Progress,
    purpose: str = "train",
) -> CommittedBundle:
    """Bring a scanned directory to the server, which keeps what it has, and commit it.

    :param purpose: what a source bundle is for, ``train`` or ``serve``
    """
    known = client.bundle(kind, scanned.tree.digest)
    if known is not None and known.pin.name == scanned.name:
        return known
    for _ in range(_ATTEMPTS - 1):
        push(scanned, target, progress)
        try:
            return client.commit(kind, scanned.name, scanned.tree, purpose)
        except FilesMissingError:  # they were there, and retention has removed them since
            continue
    push(scanned, target, progress)
    return client.commit(kind, scanned.name, scanned.tree, purpose)


class HttpTarget(Target):
    """A server that is reached over HTTP alone."""

    def __init__(self, client: WorkspaceClient) -> None:
        self._client = client

    def missing(self, objects: Mapping[str, int]) -> list[str]:
        """Ask the server what it lacks."""
        return list(self._client.missing(dict(objects)))

    def send(self, files: list[LocalFile], progress: Progress) -> None:
        """Send large files one by one, from where they stopped, and the others together."""
        small = [file for file in files if file.size < _LARGE]
        with ThreadPoolExecutor(max_workers=2) as pool:
            for _ in pool.map(lambda pack: self._send_pack(pack, progress), _packs(small)):
                pass
        for file in files:
            if file.size >= _LARGE:
                self._send_large(file, progress)

    def _send_pack(self, files: list[LocalFile], progress: Progress) -> None:
        self._client.upload_pack(write_pack(Packed(file.digest, file.size, file.chunks()) for file in files))
        progress(sum(file.size for file in files))

    def _send_large(self, file: LocalFile, progress: Progress) -> None:
        sent = 0
        for attempt in range(_ATTEMPTS):
            offset = self._client.uploaded(file.digest)
            progress(offset - sent)
            sent = offset

            def chunks(start: int = offset) -> Iterator[bytes]:
                nonlocal sent
                for chunk in file.chunks(start):
                    yield chunk
                    sent += len(chunk)
                    progress(len(chunk))

            try:
                self._client.upload_part(file.digest, offset, file.size, chunks())
            except ServerUnreachableError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return


def download(
    client: WorkspaceClient, digest: str, destination: Path, *, progress: Progress = lambda _: None
) -> Tree:
    """Write a tree of the server to the new directory `destination`, verified, whole or not at all.

    :raises CorruptObjectError: what arrived is not what its digest says
    """
    tree = client.tree(digest)
    if tree.digest != digest:
        raise corrupt(digest, tree.digest)
    destination.parent.mkdir(parents=True, exist_ok=True)
    root = direct_store(client.info)
    if root is not None:
        checkout(open_file_store(root).objects, tree, destination, writable=True, progress=progress)
        return tree
    scratch = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}")
    try:
        make_directories(tree, scratch)
        files = sorted(tree.files, key=lambda file: file.digest)
        places = {key: list(group) for key, group in groupby(files, key=lambda file: file.digest)}
        try:
            for packed in read_pack(
                client.download_pack(digest, list(places)) if places else iter([bytes(40)])
            ):
                _write(packed, places[packed.digest], scratch, progress)
                del places[packed.digest]
        except InvalidInputError:  # they come in the order that was asked for
            raise _left_out(places) from None
        if places:
            raise _left_out(places)
        make_links(tree, scratch)
        scratch.rename(destination)
    finally:
        if scratch.exists():
            shutil.rmtree(scratch)
    return tree


def _left_out(places: Mapping[str, list[File]]) -> CorruptObjectError:
    path = next(iter(places.values()))[0].path if places else "the end"
    return CorruptObjectError(
        f"{path}: the server did not send it whole.", "Is its store damaged? Look: kaos bundle verify"
    )


def _write(packed: Packed, files: list[File], scratch: Path, progress: Progress) -> None:
    first = scratch / files[0].path
    hasher = hashlib.sha256()
    with first.open("xb", buffering=CHUNK) as out:
        for chunk in packed.chunks:
            hasher.update(chunk)
            out.write(chunk)
            progress(len(chunk))
    if hasher.hexdigest() != packed.digest:
        raise CorruptObjectError(f"{files[0].path} did not arrive as it was sent.", "Try again.")
    for file in files:
        path = scratch / file.path
        if path != first:
            shutil.copyfile(first, path)
            progress(file.size)
        os.chmod(path, 0o755 if file.executable else 0o644)  # noqa: PTH101 (10,000 of these)


def _packs(files: list[LocalFile]) -> Iterator[list[LocalFile]]:
    pack: list[LocalFile] = []
    size = 0
    for file in files:
        pack.append(file)
        size += file.size
        if size >= _PACK:
            yield pack
            pack, size = [], 0
    if pack:
        yield pack
