"""Airflow operators over the core of kaos, for the generated DAGs and for anybody's own."""

from kaos_operators.bundle import BundleIngestOperator
from kaos_operators.image import ImageBuildOperator
from kaos_operators.model import RegisterModelOperator
from kaos_operators.train import PlanTrialsOperator, TrainOperator

__all__ = [
    "BundleIngestOperator",
    "ImageBuildOperator",
    "PlanTrialsOperator",
    "RegisterModelOperator",
    "TrainOperator",
]
