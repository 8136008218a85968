"""Airflow operators over the core of kaos, for the generated DAGs and for anybody's own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaos_operators.bundle import BundleIngestOperator
    from kaos_operators.collection import CollectOperator
    from kaos_operators.image import ImageBuildOperator
    from kaos_operators.manifest import ManifestDownloadOperator
    from kaos_operators.model import RegisterModelOperator
    from kaos_operators.promote import ApproveOperator, GateOperator, PromoteOperator
    from kaos_operators.schedule import PinInputsOperator, WatchDataOperator
    from kaos_operators.serve import (
        BuildServeOperator,
        LaunchOperator,
        ProbeOperator,
        RegisterEndpointOperator,
        RouteOperator,
    )
    from kaos_operators.train import PlanTrialsOperator, TrainOperator

__all__ = [
    "ApproveOperator",
    "BuildServeOperator",
    "BundleIngestOperator",
    "CollectOperator",
    "GateOperator",
    "ImageBuildOperator",
    "LaunchOperator",
    "ManifestDownloadOperator",
    "PinInputsOperator",
    "PlanTrialsOperator",
    "ProbeOperator",
    "PromoteOperator",
    "RegisterEndpointOperator",
    "RegisterModelOperator",
    "RouteOperator",
    "TrainOperator",
    "WatchDataOperator",
]

_MODULES = {
    "ApproveOperator": "promote",
    "BuildServeOperator": "serve",
    "BundleIngestOperator": "bundle",
    "CollectOperator": "collection",
    "GateOperator": "promote",
    "ImageBuildOperator": "image",
    "ManifestDownloadOperator": "manifest",
    "LaunchOperator": "serve",
    "PinInputsOperator": "schedule",
    "PlanTrialsOperator": "train",
    "ProbeOperator": "serve",
    "PromoteOperator": "promote",
    "RegisterEndpointOperator": "serve",
    "RegisterModelOperator": "model",
    "RouteOperator": "serve",
    "TrainOperator": "train",
    "WatchDataOperator": "schedule",
}


def __getattr__(name: str) -> object:
    # Airflow imports this package for the provider's information before it is itself ready to be imported.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
