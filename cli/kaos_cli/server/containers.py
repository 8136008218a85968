"""The containers that a local server's jobs and endpoints left or still run in."""

from __future__ import annotations

import shutil

from kaos.errors import ContainerEngineError


def remove_containers(instance: str) -> int:
    """End and remove the containers of an instance, of whichever engine; return how many there were."""
    from kaos.runtime.container.engine import ENGINES, engine_named
    from kaos.runtime.container.runtime import LABEL

    count = 0
    for name in ENGINES:
        if shutil.which(name) is None:
            continue
        engine = engine_named(name)
        try:
            found = engine.find({f"{LABEL}.instance": instance})
            for container in found:
                engine.remove(container)
        except ContainerEngineError:  # an engine that is ill keeps nobody from stopping the server
            continue
        count += len(found)
    return count
