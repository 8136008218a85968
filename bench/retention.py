"""Time a collection over a store of many objects: ``python -m bench.retention [OBJECTS]``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kaos.bundle import File, Tree
from kaos.catalog import Catalog
from kaos.collect import Order, collect
from kaos.job import Inputs
from kaos.retention import RetentionPolicy
from kaos.store import Store, open_file_store

_PER_BUNDLE = 10_000


def fill(store: Store, count: int) -> None:
    """Commit bundles of 10,000 small files each; the first is a current input, the others go."""
    workspace = Catalog(store).create_workspace("bench", "ada")
    for start in range(0, count, _PER_BUNDLE):
        contents = [os.urandom(24) for _ in range(min(_PER_BUNDLE, count - start))]
        files = [File(f"{index:05d}", 24, store.objects.put(each)) for index, each in enumerate(contents)]
        pin = workspace.commit_bundle("data", "data", Tree.of(files), "ada").pin
        if start == 0:
            workspace.merge_inputs(Inputs(data=pin))


def main() -> None:
    """Print how long a dry run, a collection of most of it and one that finds nothing take."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as directory:
        store = open_file_store(Path(directory))
        began = time.monotonic()
        fill(store, count)
        print(f"{count} objects written in {time.monotonic() - began:.1f} s, {datetime.now(UTC):%H:%M}")
        policies = {"bench": RetentionPolicy(keep_last=1)}
        for what, dry_run in (("dry run", True), ("collection", False), ("once more", False)):
            order = Order(policies, "bench", lambda *_: False, timedelta(0), dry_run=dry_run)
            began, cpu = time.monotonic(), time.process_time()
            found = collect(store, order)
            seconds, used = time.monotonic() - began, time.process_time() - cpu
            print(f"{what}: {seconds:.2f} s ({used:.2f} s of CPU), {found.discarded.objects} objects go")


if __name__ == "__main__":
    main()
