"""Bundles and the objects they consist of."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from kaos.job import BundlePin, ManifestPin
from kaos.value import Value

BundleKind = Literal["source", "data"]


class ObjectsMissing(Value):
    """Ask which objects the server lacks: size in bytes by digest. The answer has the same shape."""

    objects: dict[str, int]


class Bundle(Value):
    """A committed bundle, as it is recorded."""

    kind: BundleKind
    pin: BundlePin
    created_at: datetime


class CommittedBundle(Bundle):
    """A committed bundle, and how a person sees it.

    :param shown: such as ``/mnist:e23a2``
    """

    shown: str


class CommittedManifest(Value):
    """A committed data manifest, and how a person sees it.

    :param shown: such as ``/features:c6062``
    """

    pin: ManifestPin
    shown: str


class UploadState(Value):
    """How much of a large file has arrived, in bytes."""

    offset: int


class ObjectsFetch(Value):
    """The objects of a tree to send, by digest."""

    digests: list[str]


class VerifyReport(Value):
    """What is wrong in the store.

    :param checked: number of objects read whole
    :param damaged: a sentence per damaged or missing object, with the bundles' files that need it
    """

    checked: int
    damaged: list[str]
