"""What OpenLineage calls the things of kaos: datasets by name and version, and a facet of our own.

A dataset is what stays the same from job to job, in the namespace ``kaos://<workspace>``, and a digest is a
version of it: ``data/features`` at ``9fd9d…``. docs/decisions/openlineage.md has the reasons. This module
knows the shape of the events alone, and needs no package of OpenLineage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from pydantic import ConfigDict, Field

from kaos import __version__
from kaos.endpoint import ServeDocument
from kaos.job import BundlePin, JobDocument, ManifestPin, ParametersPin
from kaos.lineage import BuildRecord, TrialRecord
from kaos.value import Value

PRODUCER = f"urn:kaos:{__version__}"
EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
VERSION_FACET = "https://openlineage.io/spec/facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
TYPE_FACET = (
    "https://openlineage.io/spec/facets/1-0-1/DatasetTypeDatasetFacet.json#/$defs/DatasetTypeDatasetFacet"
)
INPUT_FACET = (
    "https://openlineage.io/spec/facets/1-0-0/InputStatisticsInputDatasetFacet.json"
    "#/$defs/InputStatisticsInputDatasetFacet"
)
OUTPUT_FACET = (
    "https://openlineage.io/spec/facets/1-0-2/OutputStatisticsOutputDatasetFacet.json"
    "#/$defs/OutputStatisticsOutputDatasetFacet"
)

FILE, MODEL, SERVICE = "FILE", "MODEL", "SERVICE"
"""Types of datasets."""

MOST = 20
"""Trials that an event tells of; an event has to stay small."""


@dataclass(frozen=True)
class Dataset:
    """Something that a job reads or makes.

    :param workspace: whose it is; empty for a directory on a worker
    :param name: that stays the same from job to job, ``data/features``
    :param version: a digest, or a number of a revision; None where a job made several
    :param files: how many, None where it has none
    :param size: their bytes
    """

    workspace: str
    name: str
    kind: str = FILE
    version: str | None = None
    files: int | None = None
    size: int | None = None

    @property
    def namespace(self) -> str:
        """Return the namespace of all datasets of a workspace; of what is in none, that of files."""
        return f"kaos://{self.workspace}" if self.workspace else "file"

    def plain(self, *, made: bool) -> dict[str, Any]:
        """Return the dataset as it is in an event.

        :param made: as an output; else as an input
        """
        facets: dict[str, Any] = {"datasetType": facet(TYPE_FACET, datasetType=self.kind)}
        if self.version is not None:
            facets["version"] = facet(VERSION_FACET, datasetVersion=self.version)
        found: dict[str, Any] = {"namespace": self.namespace, "name": self.name, "facets": facets}
        if self.statistics:
            place, name, url = (
                ("outputFacets", "outputStatistics", OUTPUT_FACET)
                if made
                else ("inputFacets", "inputStatistics", INPUT_FACET)
            )
            found[place] = {name: facet(url, **self.statistics)}
        return found

    @property
    def statistics(self) -> dict[str, int]:
        """Return its size, in the words of OpenLineage."""
        known = {"fileCount": self.files, "size": self.size}
        return {name: value for name, value in known.items() if value is not None}


class TrialFacet(Value):
    """A trial of a job."""

    index: int
    name: str
    model: str | None = Field(default=None, description="SHA-256 of the model's tree")
    params: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float | str] = Field(
        default_factory=dict, description="those that are numbers; NaN and infinities as text"
    )


class KaosRunFacet(Value):
    """What kaos knows of a task's job."""

    model_config = ConfigDict(json_schema_extra={"$schema": "https://json-schema.org/draft/2020-12/schema"})

    workspace: str
    job: str = Field(description="id of the kaos job, 32 hexadecimal digits")
    document: str | None = Field(
        default=None, description="SHA-256 of the job's document, which pins its inputs"
    )
    author: str | None = Field(default=None, description="who deployed it")
    runtime: str | None = Field(default=None, description="process or container")
    kaos: str = Field(default=__version__, description="version of kaos")
    environment: str | None = Field(
        default=None, description="SHA-256 of the environment, or id of the image"
    )
    python: str | None = Field(default=None, description="version of Python in the environment")
    lock: str | None = Field(default=None, description="SHA-256 of the resolved packages")
    image: str | None = Field(default=None, description="what any machine can pull the image by")
    trials: list[TrialFacet] = Field(default_factory=list, description=f"the first {MOST}")
    models: list[str] = Field(default_factory=list, description=f"ids of the first {MOST} models")
    reproduces: str | None = Field(default=None, description="id of the model that the job makes again")
    endpoint: str | None = Field(default=None, description="name of the endpoint")
    revision: int | None = Field(default=None, description="number of the endpoint's revision")

    def plain(self) -> dict[str, Any]:
        """Return what is known, as it is in an event."""
        known = self.model_dump(mode="json", exclude_none=True)
        return {name: value for name, value in known.items() if value != []}


FACET = "urn:kaos:openlineage:1-0-0:KaosRunFacet"
"""Names the schema of `KaosRunFacet`, which is docs/openlineage/KaosRunFacet.json; a test compares."""


@dataclass(frozen=True)
class Traced:
    """What a task read and made.

    :param code: digest of the source bundle's tree
    """

    inputs: list[Dataset] = field(default_factory=list)
    outputs: list[Dataset] = field(default_factory=list)
    about: KaosRunFacet | None = None
    code: str | None = None


def facet(schema: str, **fields: Any) -> dict[str, Any]:
    """Return a facet as it is in an event."""
    return {"_producer": PRODUCER, "_schemaURL": schema, **fields}


def bundle(workspace: str, kind: str, pin: BundlePin | ManifestPin) -> Dataset:
    """Return a bundle, or a manifest.

    :param kind: ``source``, ``data`` or ``manifest``
    """
    return Dataset(workspace, f"{kind}/{pin.name}", FILE, pin.digest, pin.files, pin.size)


def directory(path: str) -> Dataset:
    """Return a directory on a worker, which becomes a bundle."""
    return Dataset("", path)


def parameters(workspace: str, pin: ParametersPin) -> Dataset:
    """Return the hyperparameters of a job."""
    return Dataset(workspace, f"hyperparams/{pin.name}", FILE, pin.digest)


def environment(workspace: str, source: BundlePin, build: BuildRecord) -> Dataset:
    """Return the environment, or the image, that was built of a source bundle."""
    return Dataset(workspace, f"environment/{source.name}", FILE, build.environment)


def model(workspace: str, version: str | None, files: int | None = None, size: int | None = None) -> Dataset:
    """Return the models of a workspace, which the asset ``kaos://<workspace>/model`` is too.

    :param version: digest of the model's tree
    """
    return Dataset(workspace, "model", MODEL, version, files, size)


def endpoint(workspace: str, name: str, revision: int | None) -> Dataset:
    """Return an endpoint."""
    return Dataset(workspace, f"endpoint/{name}", SERVICE, str(revision) if revision is not None else None)


def inputs_of(document: JobDocument) -> list[Dataset]:
    """Return what a job was given: code, data or manifest, hyperparameters."""
    at = document.workspace
    found = [bundle(at, "source", document.source)]
    if document.data is not None:
        found.append(bundle(at, "data", document.data))
    elif document.manifest is not None:
        found.append(bundle(at, "manifest", document.manifest))
    if document.params is not None:
        found.append(parameters(at, document.params))
    return found


def about(document: JobDocument, digest: str, build: BuildRecord | None = None) -> KaosRunFacet:
    """Return what is known of a job.

    :param digest: of its document
    :param build: what it runs in, once that is built
    """
    return KaosRunFacet(
        workspace=document.workspace,
        job=document.job_id,
        document=digest,
        author=document.author,
        runtime=document.runtime,
        reproduces=document.reproduces.model_id if document.reproduces else None,
        **(built(build) if build is not None else {}),
    )


def traced(
    document: JobDocument, digest: str, build: BuildRecord | None = None, *outputs: Dataset, **known: Any
) -> Traced:
    """Return what a task of a job read and made.

    :param digest: of the job's document
    :param build: what the task runs in; None of one that builds it, or needs none
    :param known: further fields of the facet
    """
    inputs = inputs_of(document)
    if build is not None:
        inputs.append(environment(document.workspace, document.source, build))
    about_it = about(document, digest, build).model_copy(update=known)
    return Traced(inputs, list(outputs), about_it, document.source.digest)


def served(document: ServeDocument, digest: str) -> Traced:
    """Return what a revision of an endpoint is made of: its code, and the model that is beside it.

    :param digest: of the revision's document
    """
    at = document.workspace
    inputs = [bundle(at, "source", document.code)]
    if document.model is not None:
        inputs.append(model(at, document.model.digest, document.model.files, document.model.size))
    about = KaosRunFacet(
        workspace=at,
        job=document.job_id,
        document=digest,
        author=document.author,
        runtime=document.runtime,
        models=[document.model.model_id] if document.model is not None else [],
        endpoint=document.endpoint,
        revision=document.revision,
    )
    return Traced(inputs, [], about, document.source.digest)


def trial(record: TrialRecord) -> TrialFacet:
    """Return a trial that has ended."""
    shown = {name: value if isfinite(value) else str(value) for name, value in record.metrics.items()}
    return TrialFacet(
        index=record.index, name=record.name, model=record.model, params=record.params, metrics=shown
    )


def models(workspace: str, found: Sequence[tuple[str, int, int]]) -> list[Dataset]:
    """Return the models that a task made: one dataset, of a version where there is one.

    :param found: digest, files and bytes of each
    """
    if not found:
        return []
    if len({digest for digest, _, _ in found}) == 1:
        return [model(workspace, *found[0])]
    return [model(workspace, None, sum(each[1] for each in found), sum(each[2] for each in found))]


def built(build: BuildRecord) -> dict[str, Any]:
    """Return what is known of an environment or an image, as fields of the facet."""
    return {
        "environment": build.environment,
        "python": build.python or None,
        "lock": build.lock or None,
        "image": (build.image.pinned or f"sha256:{build.image.id}") if build.image else None,
    }
