"""The table: on the terminal, and as docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import airflow
import psutil

from bench.measure import Figure
from kaos import __version__

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_COLUMNS = ("what", "goal", "figure", "peer", "ratio", "reached")


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table."""
    rows = [
        (
            one.what,
            one.goal,
            one.figure,
            one.peer,
            one.ratio,
            {True: "yes", False: "**no**", None: ""}[one.reached],
        )
        for one in figures
    ]
    lines = [_COLUMNS, tuple("---" for _ in _COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def document(figures: Sequence[Figure], busy: float) -> str:
    """Return docs/benchmarks.md.

    :param busy: the machine's load before the first measurement
    """
    parts = [_HEADER, f"Measured {machine(busy)}.", table(figures), _HOW]
    missed = [one for one in figures if one.reached is False]
    if missed:
        parts.append("## What stands in the way")
        for one in missed:
            parts.append(
                f"### {one.what}\n\n{one.figure}; the goal is {one.goal}.\n\n{_block(one.why)}".rstrip()
            )
    notes = [one for one in figures if one.reached and one.why]
    if notes:
        parts.append("## Where the time goes")
        parts += [f"### {one.what}\n\n{_block(one.why)}" for one in notes]
    single = "\n".join(f"- {one.what}: {one.runs}" for one in figures if one.runs)
    parts.append(f"## The single runs\n\n{single}")
    return "\n\n".join(parts) + "\n"


def machine(busy: float) -> str:
    """Return when and on what this was measured, in a few words."""
    memory = psutil.virtual_memory().total / (1 << 30)
    return (
        f"on {time.strftime('%-d %B %Y')}: {_cpu()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}, "
        f"Airflow {airflow.__version__}, kaos {__version__}; load before the first run {busy:.1f}"
    )


def _block(text: str) -> str:
    return f"```\n{text}\n```" if text else ""


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


_HEADER = """# Benchmarks

`make bench` measures kaos beside its peers and writes this page. `python -m bench --quick` tries it with
small sizes, `python -m bench latency` does one part (see `--help`). It starts a server of its own in a
temporary directory, needs 25 GB of disk there and 50 minutes, and wants the machine for itself. Peers that
are not installed are left out, and named: nginx, curl and aria2 are programs of the system (`apt install
nginx-light curl aria2`), pyreqwest, and py-spy for profiles, are on PyPI."""

_HOW = """## How it is measured

- Whole commands, from before the process starts until it is gone, by the wall clock. Peers run in turn with
  kaos (A B A B) on the same files; figures are medians where nothing else is said. What was written is on
  disk before the next run starts.
- *Same machine* is the default for `kaos up`: the client writes straight into the server's store. *Over HTTP*
  is the same server with `KAOS_TRANSFER=http` in the client's environment, as from another machine.
- `dvc` is the newest of PyPI in an environment of its own, its cache empty before every first `dvc add`.
- Laying data out is the call that the tasks make (`SharedCheckouts.get`). The first run hard-links verified
  files, later ones check that nothing has changed them since.
- *What two cores hash* is two processes with half of the file each, *cp* a copy on the same disk.
- Latency is from before the start of `kaos train deploy` until the script's own clock in its first line.
  Beside it is a DAG of the same shape whose tasks do nothing, triggered by one request to Airflow's REST API,
  until the mapped task's function runs.
- The fan-out is a job of trials whose script is `exit 0`, from before `kaos train deploy` until the job has
  succeeded, beside a DAG that maps as many tasks that do nothing, with the same cap, in the same Airflow. How
  many ran at once is from the moments, in each trial's record, before its script began and after it was gone.
- Endpoints are asked by `wrk` (not measured where it is missing) over kept connections, directly and through
  the gateway in turn, with the sample picture of the template mnist. MLflow and BentoML are the newest of
  PyPI, each in an environment of its own, one process, the same pickle; they are sent 784 pixels as JSON.
- Memory is the peak of the resident set: of the client beyond that of the same command on a small bundle, of
  the API server beyond what it had before.
- Files by manifest come from an nginx (two workers, sendfile, its files open) or a SeaweedFS on loopback.
  kaos is a process with the engine that the operator uses, from the start of Python on; the manifest pins
  sizes and SHA-256. It keeps what it stored verified, by digest; curl, aria2 and s5cmd hash nothing; aiohttp,
  obstore and pyreqwest are scripts that hash each file, write it beside its place and move it. After each
  run, outside of the time, every file is compared with its SHA-256. All but s5cmd have 16 transfers at once.
- The bad line is a proxy before that nginx: 20 ms before each answer; 1% of the answers are 503, 1% end in
  the middle of the body, 1% are reset there. For the large files it also resets half of all connections after
  64 to 128 MiB. curl has `--retry 20 --retry-all-errors --retry-delay 1`."""
