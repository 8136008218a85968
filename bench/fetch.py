"""Fetch the files of a manifest: kaos into a store, other libraries into a directory; run as a program."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Get = Callable[[str], Awaitable[bytes]]

AT_ONCE = 16


def kaos(manifest: Path, target: Path, endpoint: str | None) -> None:
    """Do what the operator does: into the store at `target`, verified."""
    from bench.servers import KEY, SECRET
    from kaos.manifest import parse
    from kaos.store import open_file_store
    from kaos.transfer.download import Network, S3Access, download

    s3 = S3Access(endpoint, access_key_id=KEY, secret_access_key=SECRET) if endpoint else None
    objects = open_file_store(target / "store").objects
    network = Network(("127.0.0.0/8",), longest_wait=5)
    result = download(parse(manifest.read_bytes()), objects, target / "work", network=network, s3=s3)
    objects.put(result.tree.encoded)
    objects.put(result.origins)


@asynccontextmanager
async def aiohttp(_: str) -> AsyncIterator[Get]:
    """Yield a function that gets a file with aiohttp."""
    from aiohttp import ClientSession, TCPConnector

    async with ClientSession(connector=TCPConnector(limit=AT_ONCE), auto_decompress=False) as session:

        async def get(url: str) -> bytes:
            async with session.get(url) as response:
                response.raise_for_status()
                return await response.read()

        yield get


@asynccontextmanager
async def obstore(base: str) -> AsyncIterator[Get]:
    """Yield a function that gets a file with obstore."""
    from obstore.store import HTTPStore

    store = HTTPStore(base, client_options={"allow_http": True})

    async def get(url: str) -> bytes:
        response = await store.get_async(url[len(base) + 1 :])
        return bytes(await response.bytes_async())

    yield get


@asynccontextmanager
async def pyreqwest(_: str) -> AsyncIterator[Get]:
    """Yield a function that gets a file with pyreqwest."""
    from pyreqwest.client import ClientBuilder

    async with ClientBuilder().error_for_status(True).build() as client:

        async def get(url: str) -> bytes:
            response = await client.get(url).build().send()
            return bytes(await response.bytes())

        yield get


LIBRARIES = {"aiohttp": aiohttp, "obstore": obstore, "pyreqwest": pyreqwest}


async def fetch_all(library: str, manifest: Path, target: Path) -> None:
    """Get all files, sixteen at a time: hash each, write it beside its place and move it there."""
    rows = [json.loads(line) for line in manifest.read_bytes().splitlines()]
    for parent in {(target / row["path"]).parent for row in rows}:
        parent.mkdir(parents=True, exist_ok=True)

    async def fetch(get: Get) -> None:
        while rows:
            row = rows.pop()
            content = await get(row["url"])
            place = f"{target}/{row['path']}"
            hashlib.sha256(content).hexdigest()
            with open(f"{place}.part", "wb", buffering=0) as file:  # noqa: PTH123 (10,000 of these)
                file.write(content)
            os.rename(f"{place}.part", place)  # noqa: PTH104

    async with LIBRARIES[library]("/".join(rows[0]["url"].split("/", 3)[:3])) as get:
        await asyncio.gather(*(fetch(get) for _ in range(AT_ONCE)))


if __name__ == "__main__":
    who, manifest, target, *endpoint = sys.argv[1:]
    if who == "kaos":
        kaos(Path(manifest), Path(target), endpoint[0] if endpoint else None)
    else:
        asyncio.run(fetch_all(who, Path(manifest), Path(target)))
