"""Reproducible machine learning: version, compose, trace. This package knows neither Airflow nor the web."""

from kaos._version import __version__

__all__ = ["__version__"]
