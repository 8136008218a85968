"""Bundles, and the objects they consist of: up, down, and verified."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from kaos.bundle import Tree
from kaos.catalog import WorkspaceCatalog
from kaos.documents import documents
from kaos.errors import CorruptObjectError, InvalidInputError, UnknownNameError
from kaos.manifest import LARGEST as LARGEST_MANIFEST
from kaos.schema.bundle import (
    Bundle,
    BundleKind,
    CommittedBundle,
    CommittedManifest,
    ObjectsFetch,
    ObjectsMissing,
    UploadState,
    VerifyReport,
)
from kaos.source import SERVE_SCRIPT, TRAIN_SCRIPT, check_source
from kaos.store import Objects, Store
from kaos.store.base import CHUNK
from kaos.store.verify import verify_store
from kaos.transfer.pack import Packed, read_pack, write_pack
from kaos.transfer.upload import PartialUploads
from kaos_operators.hook import configured_store, work_directory
from kaos_plugin.auth import Deployable, Readable, Uploadable, User, catalog
from kaos_plugin.streams import NO_COMPRESSION, body_blocks

router = APIRouter(tags=["bundles"])

log = logging.getLogger(__name__)
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256, 64 hexadecimal characters")]
_LARGEST_TREE = 256 << 20
_PACK = {"requestBody": {"content": {"application/octet-stream": {}}, "required": True}}


@router.post("/workspaces/{workspace}/objects/missing")
def missing_objects(workspace: Uploadable, body: ObjectsMissing) -> ObjectsMissing:
    """Return those of the objects that the store lacks."""
    lacking = workspace.store.objects.missing(body.objects)
    return ObjectsMissing(objects={digest: body.objects[digest] for digest in lacking})


@router.post("/workspaces/{workspace}/objects", openapi_extra=_PACK)
async def upload_objects(workspace: Uploadable, request: Request) -> UploadState:
    """Store the objects of a pack as it arrives, each whole or not at all; return their bytes."""

    def store() -> int:
        objects = workspace.store.objects
        return sum(_take(packed, objects) for packed in read_pack(body_blocks(request)))

    return UploadState(offset=await run_in_threadpool(store))


@router.get("/workspaces/{workspace}/uploads/{digest}")
def upload_state(workspace: Uploadable, digest: Digest, user: User) -> UploadState:
    """Return how much of a large object has arrived."""
    return UploadState(offset=_uploads(user).offset(digest))


@router.put("/workspaces/{workspace}/uploads/{digest}", openapi_extra=_PACK)
async def upload_part(
    workspace: Uploadable,
    digest: Digest,
    user: User,
    request: Request,
    offset: Annotated[int, Query(ge=0, description="how much the server has, in bytes")],
    size: Annotated[int, Query(ge=0, description="of the whole object, in bytes")],
) -> UploadState:
    """Append to a large object; when it is whole it is verified and stored."""

    def store() -> int:
        return _uploads(user).append(digest, offset, size, body_blocks(request), workspace.store.objects)

    return UploadState(offset=await run_in_threadpool(store))


@router.put("/workspaces/{workspace}/bundles/{kind}/{digest}", openapi_extra=_PACK)
async def commit_bundle(
    workspace: Deployable,
    kind: BundleKind,
    digest: Digest,
    user: User,
    request: Request,
    name: Annotated[str, Query(description="of the bundle's directory")],
    purpose: Annotated[Literal["train", "serve"], Query(description="what a source bundle is for")] = "train",
) -> CommittedBundle:
    """Commit a bundle: the body is its canonical tree, whose objects have arrived."""

    def commit() -> CommittedBundle:
        tree = Tree.decode(_limited(body_blocks(request), _LARGEST_TREE, "A bundle's tree"))
        if tree.digest != digest:
            raise InvalidInputError(f"The tree has the digest {tree.digest[:12]}…, not {digest[:12]}….")
        if kind == "source":
            check_source(tree, SERVE_SCRIPT if purpose == "serve" else TRAIN_SCRIPT)
        return _committed(workspace, workspace.commit_bundle(kind, name, tree, user.get_name()))

    return await run_in_threadpool(commit)


@router.post("/workspaces/{workspace}/manifests", openapi_extra=_PACK)
async def commit_manifest(
    workspace: Deployable,
    user: User,
    request: Request,
    name: Annotated[str, Query(description="of the manifest's directory")],
) -> CommittedManifest:
    """Commit a data manifest: the body is the file; nothing is downloaded yet."""

    def commit() -> CommittedManifest:
        content = _limited(body_blocks(request), LARGEST_MANIFEST, "A manifest")
        pin = workspace.commit_manifest(name, content, user.get_name())
        return CommittedManifest(pin=pin, shown=workspace.shown_manifest(pin))

    return await run_in_threadpool(commit)


@router.get("/workspaces/{workspace}/bundles/{kind}/{digest}")
def get_bundle(workspace: Readable, kind: BundleKind, digest: Digest) -> CommittedBundle:
    """Return a committed bundle, all of whose files are there."""
    bundle = workspace.bundle(kind, digest)
    if bundle is None or not workspace.is_complete(digest):
        raise UnknownNameError(f"{kind} bundle", digest[:12])
    return _committed(workspace, bundle)


@router.get("/workspaces/{workspace}/trees/{digest}")
def get_tree(workspace: Readable, digest: Digest) -> Response:
    """Return the canonical tree of a bundle or a model."""
    return Response(
        workspace.tree(digest).encoded, media_type="application/octet-stream", headers=NO_COMPRESSION
    )


@router.post("/workspaces/{workspace}/trees/{digest}/objects")
def download_objects(workspace: Readable, digest: Digest, body: ObjectsFetch) -> StreamingResponse:
    """Send objects of a tree as a pack, every one verified before its last byte leaves."""
    sizes = workspace.tree(digest).objects
    strange = [wanted for wanted in body.digests if wanted not in sizes]
    if strange:
        raise UnknownNameError("object in this tree", strange[0][:12])
    objects = workspace.store.objects
    packed = (Packed(wanted, sizes[wanted], objects.read(wanted)) for wanted in body.digests)

    def stream() -> Iterator[bytes]:
        try:
            yield from write_pack(packed)
        except CorruptObjectError as error:  # without its end mark the client knows what the pack lacks
            log.error("%s", error)

    return StreamingResponse(stream(), media_type="application/octet-stream", headers=NO_COMPRESSION)


@router.post("/store/verify", status_code=status.HTTP_200_OK)
def verify(user: User) -> VerifyReport:
    """Read every object of the store and name what is damaged, by the bundle and file, or what needs it."""
    store: Store = configured_store()
    names = [found.name for found in catalog().workspaces()]
    checked, problems = verify_store(
        store,
        (pair for name in names for pair in catalog().workspace(name).trees()),
        (pair for name in names for pair in documents(catalog().workspace(name))),
    )
    return VerifyReport(checked=checked, damaged=problems)


def _committed(workspace: WorkspaceCatalog, bundle: Bundle) -> CommittedBundle:
    return CommittedBundle(
        kind=bundle.kind, pin=bundle.pin, created_at=bundle.created_at, shown=workspace.shown(bundle.pin)
    )


def _take(packed: Packed, objects: Objects) -> int:
    try:
        return objects.write(packed.digest, packed.chunks)
    except CorruptObjectError:  # not ours: the client's
        raise InvalidInputError(
            f"What arrived is not the object {packed.digest[:12]}….",
            "Deploy again when nothing writes to the file.",
        ) from None


def _uploads(user: User) -> PartialUploads:
    return PartialUploads(work_directory() / "uploads", owner=user.get_id())


def _limited(blocks: Iterator[bytes], most: int, what: str) -> bytes:
    content = bytearray()
    for block in blocks:
        content += block
        if len(content) > most:
            raise InvalidInputError(f"{what} may have {most // CHUNK} MiB: it has too many files.")
    return bytes(content)
