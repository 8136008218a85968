"""The published schema of OpenLineage, read back from the client's classes.

OpenLineage's own generator wrote these classes from the JSON schema of the specification, with every field's
type and what is required; no package index has the file itself. Here they become JSON schema again.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import types
import typing
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import attr
import jsonschema
from openlineage.client import generated
from openlineage.client.event_v2 import RunEvent

from kaos.openlineage import FACET

ROOT = Path(__file__).parent.parent
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
_FORMATS = {
    "eventTime": "date-time",
    "runId": "uuid",
    "producer": "uri",
    "_producer": "uri",
    "_schemaURL": "uri",
}
# The client fills these in, so that its classes do not ask for them; the specification does.
_REQUIRED = ("producer", "schemaURL", "_producer", "_schemaURL")

formats = jsonschema.FormatChecker(formats=["uuid"])


@formats.checks("date-time", raises=ValueError)
def _is_moment(text: object) -> bool:
    return datetime.fromisoformat(str(text)).tzinfo is not None and "T" in str(text)


@formats.checks("uri", raises=ValueError)
def _is_uri(text: object) -> bool:
    return bool(urlparse(str(text)).scheme)


def check_event(event: dict[str, Any]) -> None:
    """Check an event, and each facet in it by the schema that it names.

    :raises jsonschema.ValidationError: it is not what the specification says
    """
    _check(event, schema_of(RunEvent))
    for facet in facets(event):
        _check(facet, facet_schema(facet["_schemaURL"]))


def facets(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Iterate over all facets of an event."""
    for holder in (event["run"], event["job"], *event["inputs"], *event["outputs"]):
        for kind in ("facets", "inputFacets", "outputFacets"):
            yield from holder.get(kind, {}).values()


def facet_schema(url: str) -> dict[str, Any]:
    """Return the schema of a facet, by its address."""
    if url == FACET:
        schema: dict[str, Any] = json.loads((ROOT / "docs/openlineage/KaosRunFacet.json").read_text())
        allowed = {**schema["properties"], "_producer": {"type": "string"}, "_schemaURL": {"const": FACET}}
        return {**schema, "properties": allowed}
    return schema_of(_classes()[url])


def schema_of(kind: type) -> dict[str, Any]:
    """Return the JSON schema of one of the client's classes."""
    hints = typing.get_type_hints(kind)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for field in attr.fields(kind):
        properties[field.name] = _schema(hints[field.name])
        if field.name in _FORMATS:
            properties[field.name]["format"] = _FORMATS[field.name]
        if field.default is attr.NOTHING or field.name in _REQUIRED:
            required.append(field.name)
    return {"type": "object", "properties": properties, "required": required}


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin in (typing.Union, types.UnionType):  # what is not known is left out, and never null
        return {"anyOf": [_schema(each) for each in arguments if each is not type(None)]}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [each.value for each in hint]}
    if isinstance(hint, type) and attr.has(hint):
        return schema_of(hint)
    assert hint is Any, hint
    return {}


def _classes() -> dict[str, type]:
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(generated.__path__):
        loaded = importlib.import_module(f"{generated.__name__}.{module.name}")
        for _, kind in inspect.getmembers(loaded, inspect.isclass):
            if attr.has(kind) and "_get_schema" in vars(kind):
                found[kind._get_schema()] = kind
    return found


def _check(value: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema, format_checker=formats).validate(value)
