"""Fetch the files of a manifest: `kaos` into a store, `aiohttp` into a directory; run as a program."""

from __future__ import annotations

import sys
from pathlib import Path


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
    objects.put(result.lineage)


def aiohttp(manifest: Path, target: Path) -> None:
    """Do the same with aiohttp, sixteen at a time: hash each file, write it beside its place, move it."""
    import asyncio
    import hashlib
    import json
    import os

    import aiohttp as library

    async def fetch(session: library.ClientSession, rows: list[dict[str, str]]) -> None:
        while rows:
            row = rows.pop()
            place = f"{target}/{row['path']}"
            async with session.get(row["url"]) as response:
                response.raise_for_status()
                hasher = hashlib.sha256()
                with open(f"{place}.part", "wb", buffering=0) as file:  # noqa: PTH123 (10,000 of these)
                    async for chunk in response.content.iter_chunked(1 << 18):
                        hasher.update(chunk)
                        file.write(chunk)
            hasher.hexdigest()
            os.rename(f"{place}.part", place)  # noqa: PTH104

    async def fetch_all() -> None:
        rows = [json.loads(line) for line in manifest.read_bytes().splitlines()]
        for parent in {(target / row["path"]).parent for row in rows}:
            parent.mkdir(parents=True, exist_ok=True)
        connector = library.TCPConnector(limit=16)
        async with library.ClientSession(connector=connector, auto_decompress=False) as session:
            await asyncio.gather(*(fetch(session, rows) for _ in range(16)))

    asyncio.run(fetch_all())


if __name__ == "__main__":
    who, manifest, target, *endpoint = sys.argv[1:]
    if who == "kaos":
        kaos(Path(manifest), Path(target), endpoint[0] if endpoint else None)
    else:
        aiohttp(Path(manifest), Path(target))
