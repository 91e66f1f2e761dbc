"""Every typed field of spec against the real API server: what the schema says is what the server enforces.

The cases are made from the schema itself, so a new field is tested without a line here. What the server
refuses our own parser must refuse too, or a job that runs by `engram run` would not apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from engram.errors import ConfigurationError
from engram.spec import parse_job
from engram.spec.crd import build_schema
from engram.spec.names import API_VERSION, KIND
from tests.cluster.api import Api, ApiError

pytestmark = pytest.mark.control

Schema = dict[str, Any]
Path = tuple[str, ...]

SPEC = build_schema()["properties"]["spec"]

COMPANIONS: dict[str, Schema] = {
    "tasks.count": {"dataset": {"name": "package.module:Class"}},
    "tasks.classesPerTask": {"dataset": {"name": "package.module:Class"}},
    "tasks.classes": {"tasks": {"classOrder": "listed", "count": 1, "classesPerTask": 1}},
    "tasks.classes.[]": {"tasks": {"classOrder": "listed", "count": 1, "classesPerTask": 1}},
    "aggregation.stragglerFactor": {"aggregation": {"quorum": "75%"}},
    "protocol": {"tasks": {"count": 1}},
    "aggregator.expose.type": {"aggregator": {"nodeName": "node-1"}},
    "aggregator.expose.port": {"aggregator": {"expose": {"type": "NodePort"}}},
    "aggregator.checkpoint.storageClassName": {"aggregator": {"checkpoint": {"size": "1Gi"}}},
}
"""What must stand beside a field for the rules that span fields."""

BY_RULE = (
    ("aggregation.buffer.size", 10000, "write at most the number of workers"),
    ("aggregator.checkpoint.size", "x" * 32, "size is no quantity"),
    ("report.prometheus.url", "x" * 2048, "write http://HOST:PORT"),
    ("tasks.classOrder", "listed", "classOrder listed needs classes"),
    ("workers.[].dataset.labelRatio", 0, "every group has dataset.labelRatio 0"),
)
"""Values that the schema allows and a rule refuses."""


class Case(NamedTuple):
    """A value for one field, and what the server says to it."""

    value: Any
    refusal: str
    """Part of the message; empty: it is taken."""


def fields(schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Schema]]:
    """Yield every schema below `schema`; `[]` stands for an item of a list."""
    yield path, schema
    for key, below in schema.get("properties", {}).items():
        yield from fields(below, (*path, key))
    if "items" in schema:
        yield from fields(schema["items"], (*path, "[]"))


FIELDS = {".".join(path): (path, schema) for path, schema in fields(SPEC)}


def cases(schema: Schema) -> Iterator[Case]:
    """Yield values at and beyond every bound of a field."""
    yield from _types(schema)
    for choice in schema.get("enum", ()):
        yield Case(choice, "")
    if "enum" in schema:
        yield Case("nonsense", 'Unsupported value: "nonsense": supported values: ')
    if schema.get("type") in ("integer", "number"):
        yield from _bounds(schema)
    if schema.get("type") == "string" and "enum" not in schema:
        yield from _lengths(schema)
    if "maxItems" in schema:
        most = schema["maxItems"]
        yield Case(_items(schema, most + 1), f"Too many: {most + 1}: must have at most {most} items")
        if most < 100:
            yield Case(_items(schema, most), "")
    if schema.get("minItems"):
        yield Case([], f"should have at least {schema['minItems']} items")
    if "properties" in schema:
        yield Case({"unknownField": 1}, 'unknown field "')


def _items(schema: Schema, number: int) -> list[Any]:
    """Return so many different items of a list."""
    kind = schema["items"]["type"]
    if kind == "object":
        return [{"name": f"g{index}"} for index in range(number)]
    return [index if kind == "integer" else f"x{index}" for index in range(number)]


def _types(schema: Schema) -> Iterator[Case]:
    """Yield values of other types; text for a number is refused like any other."""
    if schema.get("x-kubernetes-int-or-string"):
        yield Case(1.5, 'must be of type integer,string: "number"')
        yield Case(0, "should be greater than or equal to 1")
        yield Case("101%", "should match '^(100|[1-9][0-9]?)%$'")
        yield Case("80%", "")
        yield Case(2, "")
        return
    kind = schema["type"]
    wrong: dict[str, tuple[Any, ...]] = {
        "string": (5, True),
        "integer": ("5", 1.5, True),
        "number": ("5", True),
        "boolean": ("true", 1),
        "object": ("text", [1]),
        "array": ("text", 5),
    }
    for value in wrong[kind]:
        yield Case(value, f"must be of type {kind}: ")
    if kind == "boolean":
        yield Case(True, "")
        yield Case(False, "")
    if kind == "object":
        yield Case({}, "")


def _bounds(schema: Schema) -> Iterator[Case]:
    """Yield the outermost numbers, and those just outside."""
    step = 1 if schema["type"] == "integer" else 1e-6
    for bound, sign, words in (("minimum", -1, "greater"), ("maximum", 1, "less")):
        edge = schema[bound]
        if schema.get(f"exclusive{bound.capitalize()}"):
            yield Case(edge, f"should be {words} than ")
            yield Case(edge - sign * step, "")
        else:
            yield Case(edge, "")
            yield Case(edge + sign * step, f"should be {words} than or equal to ")


def _lengths(schema: Schema) -> Iterator[Case]:
    """Yield the longest and shortest texts, and those just outside."""
    most = schema["maxLength"]
    yield Case(("a" if "pattern" in schema else "x") * most, "")
    yield Case("x" * (most + 1), f"Too long: may not be more than {most} bytes")
    if schema.get("minLength"):
        yield Case("", f"should be at least {schema['minLength']} chars long")
    if "pattern" in schema:
        yield Case("No-Match", f"should match '{schema['pattern']}'")


def put(holder: Any, path: Path, value: Any) -> Any:
    """Return `holder` (None: nothing yet) with `value` at `path`."""
    if not path:
        return value
    if path[0] == "[]":
        return [put(holder[0] if holder else None, path[1:], value)]
    kept = dict(holder or {})
    kept[path[0]] = put(kept.get(path[0]), path[1:], value)
    return kept


def document(path: Path, value: Any) -> dict[str, Any]:
    """Return a job in which the field at `path` has `value`, and its companions are right."""
    head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "digits", "namespace": "default"}}
    return {**head, "spec": put(COMPANIONS.get(".".join(path)), path, value)}


def place(path: Path) -> str:
    """Return how the server writes `path`."""
    return ".".join(("spec", *path)).replace(".[]", "[0]")


def name_of(name: str) -> str:
    return f"spec.{name}".rstrip(".")


def refusal_of(api: Api, job: dict[str, Any]) -> str:
    """Return why the server refuses a job; empty: it does not."""
    try:
        api.create(job, dry_run=True)
    except ApiError as error:
        return error.message
    return ""


@pytest.mark.parametrize("name", FIELDS, ids=name_of)
def test_a_field_takes_what_its_schema_says_and_nothing_else(api: Api, crd: str, name: str) -> None:
    path, schema = FIELDS[name]
    for value, refusal in cases(schema):
        job = document(path, value)
        rule = next((text for field, bad, text in BY_RULE if (field, bad) == (name, value)), "")
        found = refusal_of(api, job)
        if refusal or rule:
            assert (refusal or rule) in found, value
            assert rule or place(path) in found, value
            with pytest.raises(ConfigurationError, match="spec" if rule else re.escape(place(path))):
                parse_job(job)
        else:
            assert found == "", value


def test_every_field_has_a_case_that_is_refused_and_one_that_is_taken() -> None:
    for name, (_, schema) in FIELDS.items():
        refusals = [refusal for _, refusal in cases(schema)]
        assert any(refusals), name
        assert schema.get("type") == "array" or not all(refusals), name
