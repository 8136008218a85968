"""Answers about lineage."""

from __future__ import annotations

from pydantic import Field

from kaos.value import Value


class LineageRow(Value):
    """Something that has a part in the answer.

    :param kind: ``source``, ``data``, ``model``, ``endpoint``, ...
    :param name: what a person calls it, and what can be asked about next
    :param digest: of its content, if it has any; the whole id of a job
    :param detail: the most telling of it
    :param live: of an endpoint: it takes requests now
    :param workspace: that it is in
    """

    kind: str
    name: str
    digest: str = ""
    detail: str = ""
    live: bool = False
    workspace: str


class FoundFile(Value):
    """A file that was asked about, where it is.

    :param holder: the bundle or the model, as `LineageRow.name`
    :param path: in it; the URL, of a line of a manifest
    :param workspace: that it is in
    """

    kind: str
    holder: str
    path: str
    workspace: str


class LineageAnswer(Value):
    """What had a part in something, or what came of it.

    :param what: what was asked about, in words
    :param found: the nodes that the question is about
    :param files: where the file is that the question is about
    :param rows: the answer, as many as were asked for
    :param counts: how many of each kind there are in all
    :param damaged: records that could not be read, a sentence each
    """

    what: str
    found: list[LineageRow]
    files: list[FoundFile] = Field(default_factory=list)
    rows: list[LineageRow]
    counts: dict[str, int]
    damaged: list[str] = Field(default_factory=list)


class Difference(Value):
    """Something in which two models differ.

    :param of: ``source``, ``data``, ``hyperparams``, ``packages``, ``run``, ``metrics`` or ``model``
    :param what: the file, parameter, package or metric
    :param one: what the first has; None if it has no such thing
    :param other: what the second has
    """

    of: str
    what: str
    one: str | None
    other: str | None


class ModelDifference(Value):
    """How two models came to be different.

    :param same: parts in which they do not differ
    """

    one: str
    other: str
    differences: list[Difference]
    same: list[str]


class Rebuilt(Value):
    """What a server has again after it read a store.

    :param dags: DAGs that were published
    :param jobs: jobs that are listed from their records
    :param started: jobs that had not ended, and were started
    :param endpoints: endpoints that are to run
    :param damaged: records that could not be read, a sentence each
    """

    workspaces: list[str]
    dags: list[str]
    jobs: int
    models: int
    started: list[str]
    endpoints: list[str]
    damaged: list[str]
