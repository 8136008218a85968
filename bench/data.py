"""Many small files: deployed, deployed again unchanged, laid out for a run; `dvc` beside it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from bench.dvc import Dvc
from bench.home import KAOS, Home, client_environment
from bench.measure import Figure, Sizes, alternate, median, python_profile, run, say, spread
from bench.wire import Relay
from kaos.bundle import Tree
from kaos.store import open_file_store
from kaos.transfer.checkout import SharedCheckouts

FILE = 10 << 10
_A_DIRECTORY = 100
_WAYS = {"direct": "same machine", "http": "over HTTP"}


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figures of small files."""
    say(f"data: {sizes.files:,} files of 10 KiB")
    data = make_files(home.scratch / "small", sizes.files)
    dvc = Dvc.install(home.scratch / "dvc")
    time.sleep(2.5)  # files this young are not trusted to be unchanged
    figures = _first(home, data, dvc, sizes)
    figures += _unchanged(home, data, dvc, sizes)
    figures.append(_nothing_sent(home, data))
    figures += _laid_out(home, data, dvc, sizes)
    shutil.rmtree(data)
    shutil.rmtree(dvc.directory)
    shutil.rmtree(home.scratch / "trash")
    os.sync()
    return figures


def cold(home: Home, size: int) -> None:
    """Let the next deploy of files of this size be the first one."""
    home.new_workspace(f"first-{time.time_ns()}")
    home.forget_objects(size)
    os.sync()


def make_files(directory: Path, count: int) -> Path:
    """Write `count` files of random bytes, a hundred in each directory."""
    for number in range(count):
        path = directory / f"{number // _A_DIRECTORY:04d}" / f"{number:06d}.bin"
        if number % _A_DIRECTORY == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(FILE))
    return directory


def _first(home: Home, data: Path, dvc: Dvc, sizes: Sizes) -> list[Figure]:
    def deploy(way: str) -> float:
        cold(home, FILE)
        return home.kaos("train", "deploy", "-d", data, http=way == "http").seconds

    seconds = alternate(
        {
            "direct": lambda _: deploy("direct"),
            "dvc add": lambda _: dvc.first_add(data),
            "http": lambda _: deploy("http"),
        },
        sizes.runs,
    )
    peer = median(seconds["dvc add"])
    figures = []
    for way, where in _WAYS.items():
        ratio = peer / median(seconds[way])
        why = ""
        if ratio < 3:
            env = {**home.env, "KAOS_TRANSFER": way}
            command = ["train", "deploy", "-d", str(data)]
            why = python_profile(command, env, prepare=lambda: cold(home, FILE))
        figures.append(
            Figure(
                f"{sizes.files:,} files of 10 KiB, first deploy, {where}",
                "3x faster than `dvc add`",
                f"{median(seconds[way]):.2f} s",
                f"dvc {dvc.version}: {peer:.2f} s",
                f"{ratio:.1f}x",
                ratio >= 3,
                f"{spread(seconds[way])}; dvc {spread(seconds['dvc add'])}",
                why,
            )
        )
    return figures


def _unchanged(home: Home, data: Path, dvc: Dvc, sizes: Sizes) -> list[Figure]:
    home.new_workspace("unchanged")
    for http in (False, True):
        home.kaos("train", "deploy", "-d", data, http=http)
    seconds = alternate(
        {
            "kaos --version": lambda _: home.kaos("--version").seconds,
            "direct": lambda _: home.kaos("train", "deploy", "-d", data).seconds,
            "http": lambda _: home.kaos("train", "deploy", "-d", data, http=True).seconds,
            "dvc add": lambda _: dvc.add_again(),
        },
        max(sizes.runs, 5),
    )
    start, peer = median(seconds["kaos --version"]), median(seconds["dvc add"])
    figures = []
    for way, where in _WAYS.items():
        beyond = median(seconds[way]) - start
        why = python_profile(["train", "deploy", "-d", str(data)], home.env) if beyond > 0.3 else ""
        figures.append(
            Figure(
                f"the same, deployed again unchanged, {where}",
                f"0.3 s beyond the CLI's start ({start:.2f} s)",
                f"{beyond:.2f} s beyond",
                f"dvc: {peer:.2f} s in all",
                f"{peer / median(seconds[way]):.1f}x in all",
                beyond <= 0.3,
                spread(seconds[way]) + " in all",
                why,
            )
        )
    return figures


def _nothing_sent(home: Home, data: Path) -> Figure:
    """Deploy the unchanged data through a relay that counts, and compare the store before and after."""
    relay = Relay(home.url)
    state = home.scratch / "relayed"
    env = {**client_environment(state), "KAOS_TRANSFER": "http"}
    try:
        token = json.loads((home.state / "client.json").read_text())["token"]
        run([KAOS, "init", "-e", relay.url, "-t", token], env=env)
        run([KAOS, "workspace", "set", "-n", "unchanged"], env=env)
        run([KAOS, "train", "deploy", "-d", data], env=env)
        relay.sent, before = 0, _stored(home.objects)
        run([KAOS, "train", "deploy", "-d", data], env=env)
        sent, new = relay.sent, len(_stored(home.objects) - before)
    finally:
        relay.close()
    return Figure(
        "the same, bytes sent",
        "no byte of the data",
        f"{sent:,} bytes of requests, {new} objects stored",
        # Three or four requests with their headers and the token: less than one of the files.
        reached=sent < FILE and new == 0,
        runs="all that the client wrote to its sockets, counted by a relay before the server",
    )


def _stored(objects: Path) -> set[str]:
    return {name for _, _, names in os.walk(objects) for name in names}


def _laid_out(home: Home, data: Path, dvc: Dvc, sizes: Sizes) -> list[Figure]:
    """Time the call that the operators make, on the server's store, in directories of its own."""
    digest = json.loads(home.kaos("train", "deploy", "-d", data, "-o", "json").stdout)["data_digest"]
    objects = open_file_store(home.state / "store").objects
    tree = Tree.decode(objects.get(digest))
    shared = home.scratch / "trees"

    def lay_out(number: int) -> float:
        if (shared / str(number)).exists():
            time.sleep(2.5)  # files this young are not trusted to be unchanged
        start = time.perf_counter()
        SharedCheckouts(shared / str(number)).get(objects, tree)
        return time.perf_counter() - start

    seconds = alternate(
        {
            "first run": lay_out,
            "second run": lay_out,
            "later run": lay_out,
            "dvc checkout": lambda _: dvc.checkout(),
        },
        sizes.runs,
    )
    peer = median(seconds.pop("dvc checkout"))
    shared.rename(home.trash() / "trees")
    return [
        Figure(
            f"the same, laid out for a run: {name}",
            "0.5 s",
            f"{median(values):.2f} s",
            f"`dvc checkout`: {peer:.2f} s",
            f"{peer / median(values):.1f}x",
            median(values) <= 0.5,
            spread(values),
        )
        for name, values in seconds.items()
    ]
