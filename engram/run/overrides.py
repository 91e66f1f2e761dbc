"""`--set PATH=V` and `--vary PATH=V1,V2`: change a job file's values without editing it.

Paths start below `spec` and are checked against the types of `engram.spec`, so that a misspelt path is an
error before anything starts. Values are YAML scalars or flow values, parsed exactly as a job file is.
"""

from __future__ import annotations

import copy
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from engram.errors import ConfigurationError
from engram.spec import JobSpec
from engram.spec.loader import load_yaml

OPENING, CLOSING, QUOTES = "[{", "]}", "'\""


@dataclass(frozen=True)
class Assignment:
    """One `--set` or `--vary`: a path below spec and its values (exactly one for `--set`)."""

    path: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def dotted(self) -> str:
        """The path as the user writes it."""
        return ".".join(self.path)


def parse_assignment(text: str, option: str, *, several: bool) -> Assignment:
    """Parse `PATH=V` (or `PATH=V1,V2` where `several`) of the command-line option `option`.

    Raises ConfigurationError for a missing `=`, an unknown path, an empty list or a value that is no YAML.
    """
    dotted, equals, right = text.partition("=")
    if not equals or not dotted.strip():
        form = "V1,V2" if several else "V"
        raise ConfigurationError(
            f"{text!r} assigns nothing", field=option, remedy=f"write {option} PATH={form}"
        )
    path = tuple(dotted.strip().split("."))
    check_path(path, option)
    pieces = split_values(right) if several else [right.strip()]
    if not any(pieces):
        raise ConfigurationError(
            f"{dotted}= has no value", field=option, remedy=f"write {option} {dotted}=V (null for no value)"
        )
    if not all(pieces):
        raise ConfigurationError(
            f"{text!r} has an empty value between commas", field=option, remedy="write null for no value"
        )
    values = tuple(_parse_value(piece, option, dotted) for piece in pieces)
    for index, value in enumerate(values):
        if any(type(value) is type(other) and value == other for other in values[:index]):
            raise ConfigurationError(
                f"{dotted} has the value {pieces[index]} twice", field=option, remedy="name each value once"
            )
    return Assignment(path, values)


def split_values(text: str) -> list[str]:
    """Split at commas that are outside brackets, braces and quotes; the pieces are stripped."""
    pieces, depth, quote, start = [], 0, "", 0
    for position, character in enumerate(text):
        before = text[start:position].rstrip()[-1:]
        if quote:
            if character == quote and not (quote == '"' and before == "\\"):
                quote = ""
        elif character in QUOTES and (before in OPENING + ",:" or before == character):
            quote = character
        elif character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
        elif character == "," and depth <= 0:
            pieces.append(text[start:position].strip())
            start = position + 1
    pieces.append(text[start:].strip())
    return pieces


def check_path(path: Sequence[str], option: str) -> None:
    """Raise ConfigurationError unless `path` names a field below spec, as the file spells it.

    Inside `parameters`, volumes, resources and pod templates any key is a path: their own validation follows.
    """
    dotted = ".".join(path)
    if path[0] == "spec" and len(path) > 1:
        remedy = f"paths start below spec: write {'.'.join(path[1:])}"
        raise ConfigurationError(f"unknown path {dotted}", field=option, remedy=remedy)
    annotation: Any = JobSpec
    for depth, key in enumerate(path):
        model, keyed = _model_of(annotation)
        if keyed and model is not None:
            annotation = model  # `key` is the name, or the number, of a list's item
            continue
        if model is None:
            if _is_free(annotation) and key:
                return
            raise ConfigurationError(
                f"unknown path {dotted}: {'.'.join(path[:depth])} is a single value", field=option
            )
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        if key not in fields:
            raise ConfigurationError(
                f"unknown path {dotted}", field=option, remedy=_remedy(path, depth, fields)
            )
        annotation = fields[key].annotation


def set_path(
    mapping: Mapping[str, Any], path: Sequence[str], value: Any, option: str = "--set"
) -> dict[str, Any]:
    """Return a copy of the job file `mapping` with `value` at `path` below its spec.

    Items of `workers` are addressed by their name (or by number from 0), as in `workers.edge.replicas`.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(mapping))
    node: Any = changed
    steps = ("spec", *path)
    for depth, key in enumerate(steps[:-1]):
        if isinstance(node, list):
            node = _item(node, key, path, option)
            continue
        below = node.get(key)
        if below is None:
            below = [{"name": "edge"}] if steps[: depth + 1] == ("spec", "workers") else {}
            node[key] = below
        if not isinstance(below, dict | list):
            raise ConfigurationError(
                f"{'.'.join(steps[: depth + 1])} is no mapping in the file",
                field=option,
                remedy="correct the file",
            )
        node = below
    if isinstance(node, list):
        raise ConfigurationError(
            f"{'.'.join(path)} names a whole worker group", field=option, remedy="name a field of it"
        )
    node[steps[-1]] = value
    return changed


def check_distinct(assignments: Iterable[tuple[str, Assignment]]) -> None:
    """Raise ConfigurationError when two assignments name the same path, or one lies within another's."""
    seen: list[tuple[str, Assignment]] = []
    for option, assignment in assignments:
        for other_option, other in seen:
            shorter = min(len(assignment.path), len(other.path))
            if assignment.path[:shorter] != other.path[:shorter]:
                continue
            if assignment.path == other.path:
                problem = f"{assignment.dotted} is given twice ({other_option} and {option})"
                remedy = "name each path once, with all its values"
            else:
                problem = f"{assignment.dotted} and {other.dotted} overlap"
                remedy = "name one of them"
            raise ConfigurationError(problem, field=option, remedy=remedy)
        seen.append((option, assignment))


def _parse_value(text: str, option: str, dotted: str) -> Any:
    """Parse one YAML scalar or flow value."""
    try:
        loaded = load_yaml(f"value: {text}\n", option)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"the value {text!r} of {dotted} is not YAML", field=option, remedy="quote it"
        ) from error
    return loaded["value"]


def _item(items: list[Any], key: str, path: Sequence[str], option: str) -> Any:
    """Return the item of a list-map that is called `key`, or number `key`."""
    for item in items:
        if isinstance(item, dict) and item.get("name") == key:
            return item
    if key.isdigit() and int(key) < len(items) and isinstance(items[int(key)], dict):
        return items[int(key)]
    names = ", ".join(str(item.get("name")) for item in items if isinstance(item, dict))
    raise ConfigurationError(
        f"unknown path {'.'.join(path)}: no item {key}", field=option, remedy=f"the file has: {names}"
    )


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the model inside an annotation, and whether it is the item of a list."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _model_of(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        found = [_model_of(part) for part in typing.get_args(annotation) if part is not type(None)]
        return next(((model, keyed) for model, keyed in found if model is not None), (None, False))
    if origin is list:
        return _model_of(typing.get_args(annotation)[0])[0], True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    return None, False


def _is_free(annotation: Any) -> bool:
    """Tell whether any key may stand below: parameters and Kubernetes' own objects."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _is_free(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return any(_is_free(part) for part in typing.get_args(annotation))
    return origin is dict


def _remedy(path: Sequence[str], depth: int, fields: Mapping[str, Any]) -> str:
    """Say what the user may have meant instead of path[depth]."""
    prefix = "".join(f"{key}." for key in path[:depth])
    close = difflib.get_close_matches(path[depth], fields, n=1)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return f"known here: {', '.join(prefix + name for name in sorted(fields))}"
