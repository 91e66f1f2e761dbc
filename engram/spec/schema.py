"""Pydantic types to structural schemas as Kubernetes wants them: one tree, no `$ref`, no `anyOf`.

pydantic describes a type in JSON Schema 2020-12; a CustomResourceDefinition takes a subset of OpenAPI 3.0 in
which everything is inlined, a value that may be null says `nullable`, an exclusive bound is a flag beside the
bound, and nested objects need a default of their own before the defaults inside them apply. The CRD,
the reference page and the wording of errors all read the result.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

Schema: TypeAlias = dict[str, Any]

INT_OR_STRING = "x-kubernetes-int-or-string"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
MUTABLE_MARK = "x-engram-mutable"
"""Ours: stripped before a schema goes into a CRD."""

_DROPPED = {"title", "$defs", "additionalProperties", "const", "anyOf", "$ref", "allOf"}


@functools.cache
def schema_of(model: type[BaseModel]) -> Schema:
    """Return the structural schema of `model`, keys as in the file. Callers must not change it."""
    raw = model.model_json_schema(by_alias=True)
    return _object(raw, raw.get("$defs", {}), model)


def _object(raw: Schema, definitions: dict[str, Schema], model: type[BaseModel]) -> Schema:
    """Return the schema of one of our types, with the defaults that pydantic's own schema leaves out."""
    found = _keywords(raw)
    found["type"] = "object"
    models = _models_by_alias(model)
    properties: Schema = {}
    for alias, (field, inner) in models.items():
        value = _node(raw["properties"][alias], definitions, inner)
        default = _default(field)
        if default is not None and "default" not in value:
            value["default"] = default
        if value.get("default", 0) is None:
            del value["default"]
        properties[alias] = value
    found["properties"] = properties
    return found


def _node(raw: Schema, definitions: dict[str, Schema], model: type[BaseModel] | None) -> Schema:
    """Return the schema of any value; `model` is the type of ours inside it, if there is one."""
    kinds = raw.get("anyOf", [])
    if kinds and not raw.get(INT_OR_STRING):
        inner = next(kind for kind in kinds if kind.get("type") != "null")
        return {**_node(inner, definitions, model), **_keywords(raw), "nullable": True}
    if "$ref" in raw:
        referred = definitions[raw["$ref"].rsplit("/", 1)[1]]
        if model is None:  # an enum
            return {**_keywords(referred), **_keywords(raw)}
        return {**_object(referred, definitions, model), **_keywords(raw)}
    found = _keywords(raw)
    if found.get(INT_OR_STRING):
        found.pop("type", None)
    elif "items" in raw:
        found["items"] = _node(raw["items"], definitions, model)
    elif isinstance(raw.get("additionalProperties"), dict):
        found["additionalProperties"] = _node(raw["additionalProperties"], definitions, model)
    if found.get("type") == "integer":
        found["format"] = "int64"
    return found


def _keywords(raw: Schema) -> Schema:
    """Return the keywords of `raw` that stay, in the spelling of OpenAPI 3.0."""
    found = {key: value for key, value in raw.items() if key not in _DROPPED | {"properties", "items"}}
    if "const" in raw:
        found["enum"] = [raw["const"]]
        found["type"] = "string"
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in raw:
            found[bound] = raw[exclusive]
            found[exclusive] = True
    if found.get(PRESERVE) and found.get("type") not in (None, "object"):
        del found[PRESERVE]
    return found


def _default(field: FieldInfo) -> Any:
    """Return the default that the API server must set, None for none.

    A nested type's default holds those of its fields: the API server judges a default by the CEL rules before
    it sets defaults inside it.
    """
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return None
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return a default as plain data, without nulls."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _models_by_alias(model: type[BaseModel]) -> dict[str, tuple[FieldInfo, type[BaseModel] | None]]:
    """Return each field of `model` by its key in the file, with the type of ours inside it."""
    return {
        field.alias or name: (field, model_inside(field.annotation))
        for name, field in model.model_fields.items()
    }


def model_inside(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic type within `X`, `X | None`, `list[X]` or `Annotated[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = model_inside(part)
        if found is not None:
            return found
    return None


def at(schema: Schema, path: tuple[str | int, ...]) -> Schema | None:
    """Return the schema of the value at `path` (keys and list positions), None where there is none."""
    for step in path:
        below = schema.get("items") if isinstance(step, int) else schema.get("properties", {}).get(step)
        if below is None:
            return None
        schema = below
    return schema
