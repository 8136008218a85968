"""Metrics and learning curves of models in a store, from the ``metrics/*.jsonl`` among their files."""

from __future__ import annotations

from collections import deque
from itertools import chain

from kaos.bundle import File, Tree
from kaos.curves import MOST_METRICS, Latest, Sampler, is_live_file, lines_of
from kaos.store import Objects

Points = list[tuple[float, float]]

_TAIL = 1 << 20
_FILES = 50


def live_files(model: Tree) -> list[File]:
    """Return the files of live metrics among a model's, by path."""
    return [file for file in model.files if is_live_file(file.path)][:_FILES]


def last_metrics(model: Tree, objects: Objects) -> dict[str, float]:
    """Return the newest value of each metric in a model's live metrics; of a file the last MiB counts."""
    latest = Latest()
    for file in live_files(model):
        for line in lines_of([_tail(objects, file)], skip=file.size > _TAIL):
            latest.add(line)
    return latest.metrics


def curves(model: Tree, objects: Objects, most: int) -> dict[str, Points]:
    """Return step and value by metric, fewer than twice `most` points each, by step."""
    found: dict[str, Sampler] = {}
    for line in chain.from_iterable(lines_of(objects.read(file.digest)) for file in live_files(model)):
        for name, value in line.metrics.items():
            if name in found or len(found) < MOST_METRICS:
                found.setdefault(name, Sampler(most)).add(line.step, value)
    return {name: sampler.points for name, sampler in found.items()}


def _tail(objects: Objects, file: File) -> bytes:
    """Return the last MiB of a file, all of which is verified."""
    kept: deque[bytes] = deque()
    size = 0
    for chunk in objects.read(file.digest):
        kept.append(chunk)
        size += len(chunk)
        while size - len(kept[0]) >= _TAIL:
            size -= len(kept.popleft())
    return b"".join(kept)[-_TAIL:]
