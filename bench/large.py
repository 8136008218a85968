"""One large file: deployed, and beside it what two cores hash and what `cp` writes."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from bench.data import cold
from bench.home import Home
from bench.measure import Figure, Sizes, alternate, median, python_profile, run, say, spread

_BLOCK = 4 << 20
_HASH = """
import hashlib, sys
path, start, left = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "rb", buffering=0) as file:
    file.seek(start)
    hasher, buffer = hashlib.sha256(), bytearray(1 << 20)
    while left:
        count = file.readinto(memoryview(buffer)[:min(left, len(buffer))])
        hasher.update(memoryview(buffer)[:count])
        left -= count
"""


def measure(home: Home, sizes: Sizes) -> list[Figure]:
    """Return the figure of the large file."""
    size = sizes.large
    say(f"large: one file of {show(size)}")
    data = make_file(home.scratch / "large", size)
    time.sleep(2.5)
    file, copy = data / "large.bin", home.scratch / "copy.bin"

    def deploy(_: int) -> float:
        _cold(home, size)
        return home.kaos("train", "deploy", "-d", data).seconds

    def hash_halves(_: int) -> float:
        half = size // 2
        shell = " & ".join(
            f'"$0" -c "$1" "$2" {start} {count}' for start, count in ((0, half), (half, size - half))
        )
        return run(["sh", "-c", f"{shell} & wait", sys.executable, _HASH, file]).seconds

    def hash_one(_: int) -> float:
        return run([sys.executable, "-c", _HASH, file, "0", str(size)]).seconds

    def cp(_: int) -> float:
        copy.unlink(missing_ok=True)
        os.sync()
        return run(["cp", file, copy]).seconds

    seconds = alternate(
        {"kaos": deploy, "sha256, two cores": hash_halves, "cp": cp, "sha256, one core": hash_one},
        sizes.large_runs,
    )
    speeds = {name: [size / value for value in values] for name, values in seconds.items()}
    figure = median(speeds["kaos"])
    peer = min(("sha256, two cores", "cp"), key=lambda name: median(speeds[name]))
    ratio = figure / median(speeds[peer])
    why = ""
    if ratio < 0.8:
        one = median(speeds["sha256, one core"])
        why = f"One core hashes {_speed(one)}; a file's SHA-256 cannot be shared out among cores.\n\n"
        command = ["train", "deploy", "-d", str(data)]
        why += python_profile(command, home.env, prepare=lambda: _cold(home, size))
    copy.unlink()
    _cold(home, size)
    shutil.rmtree(data)
    others = ", ".join(f"{name} {_speed(median(found))}" for name, found in speeds.items() if name != "kaos")
    return [
        Figure(
            f"one file of {show(size)}, first deploy, same machine",
            "80% of the lower of two cores' SHA-256 and `cp`",
            _speed(figure),
            others,
            f"{ratio:.0%} of {peer}",
            ratio >= 0.8,
            "; ".join(f"{name} {spread(values)}" for name, values in seconds.items()),
            why,
        )
    ]


def _cold(home: Home, size: int) -> None:
    """Let the next deploy be the first one; there is no room to keep what it left, as `Home.trash` does."""
    cold(home, size)
    shutil.rmtree(home.scratch / "trash", ignore_errors=True)
    os.sync()


def make_file(directory: Path, size: int) -> Path:
    """Write one file of random bytes into the new directory."""
    directory.mkdir()
    with (directory / "large.bin").open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(os.urandom(min(_BLOCK, size - start)))
    return directory


def show(size: int) -> str:
    """Return a size as a person says it."""
    return f"{size >> 30} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"


def _speed(bytes_a_second: float) -> str:
    return f"{bytes_a_second / 1e6:.0f} MB/s"
