"""Where everything comes from: the lineage of a workspace, read from the records in its store alone."""

from __future__ import annotations

from kaos.provenance.lineage import Lineage

__all__ = ["Lineage"]
