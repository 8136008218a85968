"""Everything that has a name in a store: workspaces with their bundles, inputs, jobs, outcomes and models.

The refs, below ``workspaces/<workspace>/``::

    workspace                       the Workspace
    definitions/<name>              a Definition
    inputs                          the current Inputs; changes by compare-and-swap
    bundles/<kind>/<digest>         a Bundle as it was committed
    trees/<digest>                  a tree that members of the workspace may read (a bundle's or a model's);
                                    empty, or the Note of its removal
    manifests/<digest>              a ManifestPin as it was committed
    origins/<manifest digest>       digest of what its URLs gave the last time
    jobs/<job_id>                   digest of the JobDocument
    resolved/<job_id>               a ResolvedManifest, once a job's manifest is downloaded
    progress/<job_id>               how far that download is; gone when it has ended
    trials/<job_id>/<index>         the TrialRecord of the trial's last try
    live/<job_id>/<index>           the LiveTrial of a trial that runs; without meaning once it has ended
    memo/<digest>                   the trial that was made of this environment, code, data and parameters
    failures/<job_id>/<index>       empty; a trial that failed, for counting them
    builds/<job_id>                 digest of the build's log
    images/<source digest>          digest of the environment that was last built from a source bundle
    containers/<source digest>      the ImageRecord of what was last built from it for containers
    outcomes/<job_id>               a JobOutcome, once the job has ended
    models/<model_id>/<job>-<trial> digest of a ModelRecord; the same model may come out of several jobs
    removed/...                     what retention removed, see kaos.removals
"""

from __future__ import annotations

from kaos.catalog.trials import Made
from kaos.catalog.workspace import Catalog, WorkspaceCatalog

__all__ = ["Catalog", "Made", "WorkspaceCatalog"]
