"""From what a task read and made to the classes of the openlineage provider.

Imported by an operator when the provider asks, and by nothing else: the provider may not be there.
"""

from __future__ import annotations

import attrs
from airflow.providers.openlineage.extractors.base import OperatorLineage
from openlineage.client.event_v2 import Dataset as OLDataset
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    DatasetFacet,
    JobFacet,
    RunFacet,
    dataset_type_dataset,
    dataset_version_dataset,
    input_statistics_input_dataset,
    output_statistics_output_dataset,
    source_code_location_job,
)

from kaos.openlineage import FACET, PRODUCER, Dataset, Traced
from kaos_operators.hook import configured_store


def lineage(traced: Traced) -> OperatorLineage[OLDataset, RunFacet | JobFacet]:
    """Return what the provider makes events of."""
    return OperatorLineage(
        inputs=[_input(dataset) for dataset in traced.inputs],
        outputs=[_output(dataset) for dataset in traced.outputs],
        run_facets=_facet(traced),
        job_facets=_code(traced),
    )


def _input(dataset: Dataset) -> InputDataset:
    found = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
        size=dataset.size, fileCount=dataset.files, producer=PRODUCER
    )
    return InputDataset(
        namespace=dataset.namespace,
        name=dataset.name,
        facets=_facets(dataset),
        inputFacets={"inputStatistics": found} if dataset.statistics else {},
    )


def _output(dataset: Dataset) -> OutputDataset:
    found = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        size=dataset.size, fileCount=dataset.files, producer=PRODUCER
    )
    return OutputDataset(
        namespace=dataset.namespace,
        name=dataset.name,
        facets=_facets(dataset),
        outputFacets={"outputStatistics": found} if dataset.statistics else {},
    )


def _facets(dataset: Dataset) -> dict[str, DatasetFacet]:
    facets: dict[str, DatasetFacet] = {
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(
            datasetType=dataset.kind, producer=PRODUCER
        )
    }
    if dataset.version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion=dataset.version, producer=PRODUCER
        )
    return facets


def _code(traced: Traced) -> dict[str, RunFacet | JobFacet]:
    """Return where the code is: the list of its files, which is an object of the store."""
    if traced.code is None:
        return {}
    url = f"{configured_store().url.rstrip('/')}/objects/{traced.code[:2]}/{traced.code}"
    return {
        "sourceCodeLocation": source_code_location_job.SourceCodeLocationJobFacet(
            type="kaos", url=url, version=traced.code, producer=PRODUCER
        )
    }


def _facet(traced: Traced) -> dict[str, RunFacet | JobFacet]:
    """Return our own facet, with what is known of the task as its fields."""
    if traced.about is None:
        return {}
    known = traced.about.plain()
    names = {name: attrs.field(kw_only=True) for name in known}
    body = {"_get_schema": staticmethod(lambda: FACET)}
    kind = attrs.make_class("KaosRunFacet", names, bases=(RunFacet,), class_body=body)
    return {"kaos": kind(producer=PRODUCER, **known)}
