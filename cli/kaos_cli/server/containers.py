"""The containers that a local server's jobs left or still run in."""

from __future__ import annotations

from kaos.errors import ContainerEngineError


def remove_containers(instance: str) -> int:
    """End and remove the containers of an instance; return how many there were."""
    from kaos.runtime.container.engine import detect
    from kaos.runtime.container.runtime import LABEL

    engine = detect()
    if engine is None:
        return 0
    try:
        found = engine.find({f"{LABEL}.instance": instance})
        for name in found:
            engine.remove(name)
    except ContainerEngineError:  # an engine that is ill keeps nobody from stopping the server
        return 0
    return len(found)
