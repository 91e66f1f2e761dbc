"""The job that an import writes, while it grows: every value is checked against the type of its field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from engram.importing.ledger import Entry, Reading
from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import API_VERSION, KIND
from engram.spec.problems import Problem
from engram.spec.schema import schema_of
from engram.spec.wording import invalid_values


@dataclass(frozen=True)
class Assumption:
    """A field that the input does not decide, and why it is as it is."""

    field: str
    why: str


@dataclass(frozen=True)
class Imported:
    """What an import comes to: a job, and the account of how it relates to the input."""

    job: Mapping[str, Any]
    """The job file's content."""
    entries: tuple[Entry, ...]
    """What became of every value of the input, in its order."""
    assumed: tuple[Assumption, ...]
    options: tuple[str, ...] = ()
    """Options of `engram run` that belong to it: `--vary`, a grid, and `--rank`, a leaderboard's order."""

    @property
    def mapped(self) -> tuple[Entry, ...]:
        """The entries of what went somewhere."""
        return tuple(entry for entry in self.entries if entry.target)

    @property
    def left(self) -> tuple[Entry, ...]:
        """The entries of what has no counterpart."""
        return tuple(entry for entry in self.entries if not entry.target)

    def origin(self, field: str) -> Entry | None:
        """Return the entry of the value that the job's `field` was made of, None where nothing was."""
        held = [
            entry
            for entry in self.mapped
            if field == entry.target or field.startswith((f"{entry.target}.", f"{entry.target}["))
        ]
        return max(held, key=lambda entry: len(entry.target), default=None)


class Draft:
    """A job under construction; fields are named as in the file, `spec.training.batchSize`."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self.assumed: list[Assumption] = []

    def put(self, field: str, value: Any) -> None:
        """Set `field`, whatever stood there."""
        keys = field.split(".")
        node = self._values
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = value

    def get(self, field: str) -> Any:
        """Return the value of `field`, None where nothing set it."""
        node: Any = self._values
        for key in field.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def fill(self, field: str, value: Any, reading: Reading, remark: str = "") -> None:
        """Set `field` to what was made of `reading` and enter that.

        Raises ConfigurationError naming the place of `reading` when the field cannot have this value.
        """
        check_value(field, value, reading)
        self.put(field, value)
        reading.becomes(field, remark)

    def assume(self, field: str, value: Any, why: str) -> None:
        """Set `field` to what the input does not say."""
        self.put(field, value)
        self.assumed.append(Assumption(f"{field}: {json.dumps(value)}", why))

    def note(self, field: str, why: str) -> None:
        """Say of a field that keeps its default what the reader must know."""
        self.assumed.append(Assumption(field, why))

    def document(self) -> dict[str, Any]:
        """Return the job file's content, its fields in the order of the reference."""
        values = {"apiVersion": API_VERSION, "kind": KIND, **self._values}
        ordered: dict[str, Any] = _ordered(values, schema_of(FederatedIncrementalJob))
        return ordered


def check_value(field: str, value: Any, reading: Reading) -> None:
    """Raise ConfigurationError naming `reading` unless the job's `field` can have `value`."""
    problem = _problem(field, value)
    if problem is not None:
        raise reading.error(f"{problem.problem} for {field}", problem.remedy)


def accepts(field: str, value: Any) -> bool:
    """Tell whether the job's `field` can have `value`."""
    return _problem(field, value) is None


def _problem(field: str, value: Any) -> Problem | None:
    """Return what is wrong with `value` as the value of `field` alone."""
    draft = Draft()
    draft.put("metadata.name", "draft")
    draft.put(field, value)
    try:
        FederatedIncrementalJob.model_validate_json(json.dumps(draft.document()), strict=True)
    except ValidationError as error:
        return next(invalid_values(error, schema_of(FederatedIncrementalJob)), None)
    return None


def _ordered(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return `value` with the keys of every mapping of ours in the order of its type."""
    if isinstance(value, list):
        return [_ordered(item, schema.get("items", {})) for item in value]
    properties = schema.get("properties")
    if not isinstance(value, Mapping) or properties is None:
        return value
    known = [key for key in properties if key in value]
    others = [key for key in value if key not in properties]
    return {key: _ordered(value[key], properties.get(key, {})) for key in (*known, *others)}
