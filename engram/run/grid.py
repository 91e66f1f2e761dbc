"""A grid of runs (what Ianvs calls test cases): the cartesian product of every `--vary`, validated whole.

Command-line text and a parsed job file in, cells out; only dotted paths are imported. `cells` runs them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engram.errors import ConfigurationError
from engram.run.overrides import Assignment, check_distinct, parse_assignment, set_path
from engram.spec import FederatedIncrementalJob
from engram.spec.algorithms import ALGORITHMS
from engram.spec.base import Spec
from engram.spec.dotted import is_dotted, load_dotted
from engram.spec.loader import parse_job
from engram.spec.parameters import AGGREGATIONS, MODELS

LONGEST_NAME = 120
"""Characters of a cell's directory name; longer ones are cut and end in a digest."""

MOST_CELLS = 10_000

SECTIONS: dict[str, Mapping[str, type[Spec]]] = {
    "algorithm": ALGORITHMS,
    "aggregation": AGGREGATIONS,
    "model": MODELS,
}
"""Parts of the spec whose parameters depend on their name."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    name: str
    """Directory name, made of the values."""
    values: dict[str, Any]
    """Varied path -> value, without parameters that the cell's algorithm does not know."""
    job: FederatedIncrementalJob


@dataclass(frozen=True)
class Grid:
    """All cells, in the order of the options (the last `--vary` changes fastest)."""

    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    """What was dropped or merged; the user must see it."""


def apply_sets(mapping: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Return the job file with every `--set PATH=V` applied."""
    assignments = [parse_assignment(text, "--set", several=False) for text in sets]
    check_distinct([("--set", assignment) for assignment in assignments])
    changed = dict(mapping)
    for assignment in assignments:
        changed = set_path(changed, assignment.path, assignment.values[0], "--set")
    return changed


def expand(mapping: Mapping[str, Any], sets: Sequence[str], varies: Sequence[str], file: str) -> Grid:
    """Return the grid of the job file `mapping`, every cell parsed and validated.

    Raises ConfigurationError for a bad option, and for the first cell whose job is invalid, naming the cell.
    """
    assignments = [parse_assignment(text, "--vary", several=True) for text in varies]
    set_paths = [("--set", parse_assignment(text, "--set", several=False)) for text in sets]
    check_distinct([*set_paths, *(("--vary", assignment) for assignment in assignments)])
    base = apply_sets(mapping, sets)
    size = 1
    for assignment in assignments:
        size *= len(assignment.values)
    if size > MOST_CELLS:
        raise ConfigurationError(
            f"the grid has {size} cells", field="--vary", remedy=f"vary less: at most {MOST_CELLS}"
        )
    labels = _labels([assignment.path for assignment in assignments])
    cells: dict[str, Cell] = {}
    notes: dict[str, None] = {}
    taken: dict[str, str] = {}
    for combination in itertools.product(*(assignment.values for assignment in assignments)):
        values = dict(zip((assignment.dotted for assignment in assignments), combination, strict=True))
        changed = base
        for assignment, value in zip(assignments, combination, strict=True):
            changed = set_path(changed, assignment.path, value, "--vary")
        changed, dropped = _drop_foreign(changed, base, assignments)
        for path, owner in dropped:
            values.pop(path, None)
            notes[f"{path} is dropped for {owner}, which does not know it"] = None
        key = json.dumps(values, sort_keys=True)
        if key in cells:
            notes[f"{describe(values)} occurs more than once in the grid and runs once"] = None
            continue
        name = _unique(_cell_name(labels, values), key, taken)
        cells[key] = Cell(name, values, _parse(changed, file, values))
    return Grid(tuple(cells.values()), tuple(notes))


def _parse(mapping: Mapping[str, Any], file: str, values: Mapping[str, Any]) -> FederatedIncrementalJob:
    """Parse a cell's job; an error names the cell's values."""
    try:
        return parse_job(mapping, file)
    except ConfigurationError as error:
        where = f"{error.file or file} with {describe(values)}"
        raise type(error)(error.problem, field=error.field, file=where, remedy=error.remedy) from error


def _drop_foreign(
    mapping: dict[str, Any], base: Mapping[str, Any], assignments: Sequence[Assignment]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Drop parameters that another name of the grid (or of the file) knows and this cell's name lacks.

    Returns the mapping and (dropped path, name that lacks it). A parameter that none of them knows stays, so
    that validation refuses it.
    """
    dropped: list[tuple[str, str]] = []
    for section, known in SECTIONS.items():
        varied = next((item for item in assignments if item.path == (section, "name")), None)
        block = mapping.get("spec", {}).get(section)
        if varied is None or not isinstance(block, dict) or not isinstance(block.get("parameters"), dict):
            continue
        name, keys = block["name"], list(block["parameters"])
        file_block = (base.get("spec") or {}).get(section)
        names = {
            *map(str, varied.values),
            str(file_block.get("name")) if isinstance(file_block, dict) else "",
        }
        own = _keys(section, known, str(name), keys)
        elsewhere = {key for other in names for key in _keys(section, known, other, keys)}
        for key in keys:
            if key in elsewhere and key not in own:
                del block["parameters"][key]
                dropped.append((f"{section}.parameters.{key}", name))
    return mapping, dropped


def _keys(section: str, known: Mapping[str, type[Spec]], name: str, given: Sequence[str]) -> set[str]:
    """Return the parameters that `name` knows, as the file spells them.

    A class of the user's own may say what it takes by an attribute `Parameters`; without one it is taken to
    know all that is `given`.
    """
    parameters = known.get(name)
    if parameters is None and is_dotted(name):
        found = getattr(load_dotted(name, f"spec.{section}.name"), "Parameters", None)
        if not (isinstance(found, type) and issubclass(found, Spec)):
            return set(given)
        parameters = found
    if parameters is None:
        return set()
    return {field.alias or key for key, field in parameters.model_fields.items()}


def _labels(paths: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """Return the shortest telling name of each varied path: its last word, or what a `name` names."""
    short = {}
    for path in paths:
        short[".".join(path)] = path[-2] if path[-1] == "name" and len(path) > 1 else path[-1]
    words = list(short.values())
    return {path: word if words.count(word) == 1 else path for path, word in short.items()}


def _cell_name(labels: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """Return `algorithm=replay,seed=0`: every value by the short name of its path, fit for a file system."""
    parts = [f"{labels[path]}={_show(value)}" for path, value in values.items()]
    name = re.sub(r"[^A-Za-z0-9._=,+-]+", "_", ",".join(parts)).strip("_,") or "cell"
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:10]
        name = f"{name[: LONGEST_NAME - 11]}-{digest}"
    return name


def _show(value: Any) -> str:
    """Return a value as it stands in a directory name: `4+8` for a list, `method-iid` for a mapping."""
    if isinstance(value, dict):
        return "+".join(f"{key}-{_show(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return "+".join(map(_show, value))
    return value if isinstance(value, str) else json.dumps(value)


def _unique(name: str, key: str, taken: dict[str, str]) -> str:
    """Return `name`, or a longer one when another cell's values already look like it (case ignored)."""
    unique, number = name, 1
    while taken.setdefault(unique.lower(), key) != key:
        number += 1
        unique = f"{name}-{number}"
    return unique


def describe(values: Mapping[str, Any]) -> str:
    """Return the values for a message."""
    return ", ".join(f"{path}={json.dumps(value)}" for path, value in values.items())
