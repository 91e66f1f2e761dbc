"""What a real API server finds wrong with a value, worked out from the schema of the CRD itself.

Not by the types that the operator builds statuses with: they take more than the API server does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from engram.spec.crd import build_schema

TYPES: Mapping[type, str] = {dict: "object", list: "array", str: "string", int: "integer", bool: "boolean"}
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[-+]\d\d:\d\d)", re.ASCII)


def status_problems(status: Mapping[str, Any]) -> list[str]:
    """What is wrong with a status as it is sent."""
    sent = json.loads(json.dumps(status))
    return list(_problems(sent, build_schema()["properties"]["status"], "status"))


def _problems(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    kind = schema["type"]
    if TYPES.get(type(value)) != kind:
        yield f"{path}: {value!r} is no {kind}"
    elif kind == "object":
        yield from (f"{path}.{key}: is missing" for key in schema.get("required", ()) if key not in value)
        for key, below in value.items():
            if key in schema["properties"]:
                yield from _problems(below, schema["properties"][key], f"{path}.{key}")
            else:
                yield f"{path}.{key}: is not known"
    elif kind == "array":
        yield from _of_list(value, schema, path)
    elif kind == "string":
        yield from _of_text(value, schema, path)
    elif kind == "integer" and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value} is out of bounds"


def _of_list(value: list[Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if len(value) > schema.get("maxItems", len(value)):
        yield f"{path}: {len(value)} items"
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys:
        names = [tuple(item.get(key) for key in keys) for item in value]
        yield from (f"{path}: {name} comes twice" for name in set(names) if names.count(name) > 1)
    for number, item in enumerate(value):
        yield from _problems(item, schema["items"], f"{path}[{number}]")


def _of_text(value: str, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} letters"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and re.search(schema["pattern"].replace("$", r"\Z"), value) is None:
        yield f"{path}: {value!r} does not match"
    if schema.get("format") == "date-time" and not _is_time(value):
        yield f"{path}: {value!r} is no time"
    if value.encode(errors="replace").decode() != value:
        yield f"{path}: {value!r} is no UTF-8"


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return DATE_TIME.fullmatch(text) is not None
