"""pydantic's errors and unknown keys in words that a user can act on.

pydantic says `Input should be a valid integer, unable to parse string as an integer`; we say which field of
which file, what stands there, and what to write. The schema that the CRD is made of knows types, bounds and
choices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from engram.spec.dotted import is_dotted
from engram.spec.problems import Problem, closest, did_you_mean, shown
from engram.spec.schema import INT_OR_STRING, PRESERVE, Schema, at, schema_of

Path: TypeAlias = tuple[str | int, ...]

SYNONYMS: dict[str, str] = {
    "rounds": "spec.training.roundsPerTask",
    "epochs": "spec.training.localEpochs",
    "steps": "spec.training.localSteps",
    "lr": "spec.training.optimizer.learningRate",
    "labels": "spec.dataset.labelRatio",
    "classorder": "spec.tasks.classOrder",
    "participants": "spec.workers[].replicas",
    "clients": "spec.workers[].replicas",
    "nodes": "spec.workers[].replicas",
    "gpu": "spec.workers[].gpus.count",
    "exemplars": "spec.algorithm.parameters.exemplarsPerWorker",
    "exemplarsperworker": "spec.algorithm.parameters.exemplarsPerWorker",
    "memory": "spec.algorithm.parameters.exemplarsPerWorker",
    "temperature": "spec.algorithm.parameters.temperature",
    "mu": "spec.algorithm.parameters.mu",
    "device": "spec.workers[].gpus.count",
}
"""Words of other tools (Sedna, Flower, PyTorch) -> where we have the same thing."""


def path_text(path: Path) -> str:
    """Return a path as a user reads it: `spec.workers[1].replicas`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def unknown_fields(value: Any, schema: Schema, root: Schema, path: Path = ()) -> Iterator[Problem]:
    """Yield a problem for every key of `value` that `schema` lacks; its right place is sought in `root`."""
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from unknown_fields(item, schema["items"], root, (*path, index))
    properties = schema.get("properties")
    if not isinstance(value, Mapping) or properties is None:
        return
    for key, inner in value.items():
        if key in properties:
            yield from unknown_fields(inner, properties[key], root, (*path, key))
        elif not schema.get(PRESERVE):
            remedy = _where_it_belongs(str(key), list(properties), root, path)
            yield Problem(path_text((*path, str(key))), "unknown field", remedy)


def without_nulls(value: Any, schema: Schema) -> Any:
    """Return `value` without the keys that are null where null has no meaning.

    The API server does the same before it sets defaults: `dataset:` with nothing below it is the default.
    """
    if isinstance(value, list):
        return [without_nulls(item, schema["items"]) for item in value] if "items" in schema else value
    properties = schema.get("properties")
    if not isinstance(value, Mapping) or properties is None:
        return value
    kept: dict[str, Any] = {}
    for key, inner in value.items():
        below = properties.get(key)
        if below is not None and inner is None and not below.get("nullable"):
            continue
        kept[key] = inner if below is None else without_nulls(inner, below)
    return kept


def invalid_values(error: ValidationError, schema: Schema, prefix: Path = ()) -> Iterator[Problem]:
    """Yield one problem for each place that pydantic complains about, unknown fields aside."""
    seen: set[str] = set()
    for details in error.errors(include_url=False, include_context=True):
        if details["type"] == "extra_forbidden":
            continue
        path, below = _resolve(details["loc"], schema)
        field = path_text((*prefix, *path))
        if field in seen:
            continue
        seen.add(field)
        yield _word(field, details["type"], details["input"], below or {})


def unknown_name(field: str, name: str, known: Sequence[str], what: str, dotted: str) -> Problem | None:
    """Return the problem with a name that is neither built in nor a dotted path of the form `dotted`."""
    if name in known or is_dotted(name):
        return None
    if ":" in name or "." in name:
        return Problem(
            field,
            f"{name!r} is neither {what} of engram nor a dotted path",
            f"write one of: {', '.join(known)}; or {dotted}, such as my_package.my_module:MyName",
        )
    near = closest(name, known)
    every = f"write one of: {', '.join(known)}; or {dotted} of your own"
    remedy = f"did you mean {near}? {every}" if near else every
    return Problem(field, f"{name!r} is not {what} of engram", remedy)


def _resolve(location: Sequence[str | int], schema: Schema) -> tuple[Path, Schema | None]:
    """Return the path of pydantic's location without the names of union members that it appends."""
    path: list[str | int] = []
    below: Schema | None = schema
    for step in location:
        deeper = at(below, (step,)) if below is not None else None
        if deeper is None and below is not None and (below.get(INT_OR_STRING) or "properties" not in below):
            break
        path.append(step)
        below = deeper
    return tuple(path), below


def _word(field: str, kind: str, value: Any, schema: Schema) -> Problem:
    """Return what is wrong with `value` at `field`, in words."""
    wanted = wanted_words(schema)
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"):
        size = "small" if kind.startswith("greater") else "large"
        return Problem(field, f"{shown(value)} is too {size}", f"write {wanted}")
    if kind == "missing":
        return Problem(field, "is missing", f"write {wanted}")
    if kind == "string_pattern_mismatch":
        return Problem(
            field, f"{shown(value)} does not match {schema.get('pattern')}", schema.get("description", "")
        )
    if kind == "string_too_long":
        return Problem(field, f"has {len(value)} characters", f"write at most {schema.get('maxLength')}")
    if kind in ("too_long", "too_short"):
        bounds = f"{schema.get('minItems', 0)} to {schema.get('maxItems', 'any number of')} items"
        return Problem(field, f"has {len(value)} items", f"write {bounds}")
    if kind == "string_too_short":
        return Problem(field, "is empty", f"write {schema.get('description', wanted)}")
    if "enum" in schema:
        return Problem(field, f"{shown(value)} is not known here", _choices(str(value), schema["enum"]))
    problem = f"{shown(value)} is not {_kind_words(schema)}"
    return Problem(field, problem, f"write {_hint(value, schema, wanted)}")


def _choices(value: str, choices: Sequence[str]) -> str:
    """Return the remedy for a value that is no choice: all of them, the likely one first."""
    near = closest(value, choices)
    every = f"write one of: {', '.join(choices)}"
    return f"did you mean {near}? {every}" if near else every


def wanted_words(schema: Schema) -> str:
    """Return in words what `schema` accepts, such as `a whole number from 1 to 1000`."""
    if "enum" in schema:
        return f"one of: {', '.join(str(choice) for choice in schema['enum'])}"
    if schema.get(INT_OR_STRING):
        return "a whole number from 1, or a percentage such as 80%"
    words = _kind_words(schema)
    return words + bounds_words(schema) if schema.get("type") in ("integer", "number") else words


def _kind_words(schema: Schema) -> str:
    """Return the type that `schema` accepts, in words and without bounds."""
    if schema.get(INT_OR_STRING):
        return "a number or a percentage"
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "array": "a list",
        "object": "a mapping",
    }
    return words.get(str(schema.get("type")), "text")


def bounds_words(schema: Schema) -> str:
    """Return the bounds of a number in words."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None and not above and not below:
        return f" from {_number(low)} to {_number(high)}"
    words = []
    if low is not None:
        words.append(f"above {_number(low)}" if above else f"at least {_number(low)}")
    if high is not None:
        words.append(f"below {_number(high)}" if below else f"at most {_number(high)}")
    return f" {' and '.join(words)}" if words else ""


def _number(value: float) -> str:
    """Return a bound without a needless fraction."""
    return str(int(value)) if float(value).is_integer() else str(value)


def _hint(value: Any, schema: Schema, wanted: str) -> str:
    """Return what to write instead of `value`, spelled out where the slip is plain."""
    kind = schema.get("type")
    if (
        isinstance(value, str)
        and kind in ("integer", "number")
        and re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", value)
    ):
        return f"{value} without quotes"
    if isinstance(value, str) and kind == "boolean":
        return "true or false without quotes"
    if kind == "string" and isinstance(value, bool):
        return f"it in quotes: YAML reads yes, no, on, off, y and n as {'true' if value else 'false'}"
    if kind == "string" and isinstance(value, int | float):
        return f'"{value}" in quotes'
    if kind == "array" and not isinstance(value, Mapping):
        return "a list: [A, B], or one item a line after a hyphen"
    if kind == "array":
        return "a hyphen before the first key of each item"
    if kind == "object":
        keys = list(schema.get("properties", ()))
        return (
            f"its keys below it, indented: {', '.join(keys)}"
            if keys
            else "keys and values below it, indented"
        )
    return wanted


def _where_it_belongs(key: str, siblings: list[str], root: Schema, path: Path) -> str:
    """Say which field was meant: a sibling that is spelled alike, or one elsewhere in the job."""
    near = closest(key, siblings, cutoff=0.7)
    if near is not None:
        return f"did you mean {near}?"
    synonym = SYNONYMS.get(key.lower().replace("_", ""))
    elsewhere = [place for place in _places(root, "") if place != path_text((*path, key))]
    names = {place.rsplit(".", 1)[-1]: place for place in reversed(elsewhere)}
    exact = closest(key, names, cutoff=1.0)
    if exact is not None and exact in names and len(exact) == len(key):
        return f"did you mean {names[exact]}?"
    if synonym is not None:
        return f"did you mean {synonym}?"
    far = closest(key, names, cutoff=0.8)
    if far is not None:
        return f"did you mean {names[far]}?"
    near = closest(key, siblings)
    return f"did you mean {near}?" if near else did_you_mean(key, siblings)


def _places(schema: Schema, prefix: str) -> Iterator[str]:
    """Yield the path of every field of a schema, breadth first by depth of its branch."""
    properties = schema.get("properties", {})
    for key in properties:
        yield f"{prefix}.{key}" if prefix else key
    for key, below in properties.items():
        place = f"{prefix}.{key}" if prefix else key
        yield from _places(below, place)
        if "items" in below:
            yield from _places(below["items"], f"{place}[]")


def check_model(value: Mapping[str, Any], model: type[BaseModel], prefix: Path) -> list[Problem]:
    """Return all problems of `value` (parameters) against its own type, fields named below `prefix`."""
    schema = schema_of(model)
    problems = list(unknown_fields(value, schema, schema, prefix))
    try:
        model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problems.extend(invalid_values(error, schema, prefix))
    return problems
