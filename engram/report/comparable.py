"""Whether runs may stand in one ranking: same data, same tasks, same shares of them, seeds aside.

Two runs are comparable when
1. the data are the same: equal digest of the data set;
2. the split settings are the same: caps, label ratio, partition, validation share, tasks, and the workers
   with what they override of the data (`split_settings`);
3. where their seeds are equal, their split digests are equal too. With different seeds the splits differ by
   the seed alone, which a mean over seeds is there to average.
Everything else (algorithm, model, training, aggregation, evaluation place) is what a leaderboard compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engram.errors import ConfigurationError
from engram.report.record import Record

RECORD = "record.json"
NOT_SET = "not set"
"""How a setting that an experiment does not have is shown."""


@dataclass(frozen=True)
class Run:
    """A run directory and what is in it."""

    path: Path
    record: Record

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.spec.get("seed", 0))

    @property
    def spec(self) -> Mapping[str, Any]:
        """`spec` of the resolved job."""
        spec = self.record.job.get("spec")
        return spec if isinstance(spec, Mapping) else {}


def load_record(run_dir: Path) -> Record:
    """Read the record of a run directory (or of a path to a record file).

    Raises ConfigurationError when there is none or it cannot be understood.
    """
    path = run_dir if run_dir.is_file() else run_dir / RECORD
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}",
            file=str(path),
            remedy="give a run directory, the one that `engram run` printed",
        ) from error
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            f"is no record that this version of engram reads: {first['msg']}",
            field=".".join(map(str, first["loc"])),
            file=str(path),
            remedy="run the job again, or use the version of engram that made it",
        ) from error


def split_settings(run: Run) -> dict[str, Any]:
    """Return what decides the split beside seed and data set, by the path of the field below spec."""
    dataset, settings = run.spec.get("dataset", {}), dict[str, Any]()
    for key in ("partition", "labelRatio", "samplesPerClass", "testSamplesPerClass", "validationShare"):
        settings.update(flatten(dataset.get(key), f"dataset.{key}"))
    settings.update(flatten(run.spec.get("tasks"), "tasks"))
    for group in run.spec.get("workers", []):
        name = f"workers[{group.get('name')}]"
        settings[f"{name}.replicas"] = group.get("replicas")
        for key, value in (group.get("dataset") or {}).items():
            if key == "labelRatio":
                settings[f"{name}.dataset.{key}"] = value
    return {path: value for path, value in settings.items() if value not in (None, [], {})}


def flatten(value: Any, path: str) -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted path; lists of named things by `path[name]`."""
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for key, inner in value.items():
            found.update(flatten(inner, f"{path}.{key}" if path else str(key)))
        return found
    if (
        isinstance(value, list)
        and value
        and all(isinstance(item, Mapping) and "name" in item for item in value)
    ):
        found = {}
        for item in value:
            rest = {key: inner for key, inner in item.items() if key != "name"}
            found.update(flatten(rest, f"{path}[{item['name']}]"))
        return found
    return {path: value}


def differences(first: Run, other: Run) -> list[str]:
    """Return in words what keeps two runs out of one ranking; empty when they are comparable."""
    found: list[str] = []
    left, right = first.record.dataset, other.record.dataset
    if left.sha256 != right.sha256:
        if left.name != right.name:
            found.append(f"the data set ({left.name} and {right.name})")
        else:
            found.append(f"the content of data set {left.name} ({left.sha256[:12]} and {right.sha256[:12]})")
    mine, theirs = split_settings(first), split_settings(other)
    for path in sorted(set(mine) | set(theirs)):
        if mine.get(path) != theirs.get(path):
            found.append(f"spec.{path} ({show(mine.get(path))} and {show(theirs.get(path))})")
    same_seed = first.seed == other.seed
    if not found and same_seed and first.record.split.digest != other.record.split.digest:
        digests = f"{first.record.split.digest[:12]} and {other.record.split.digest[:12]}"
        found.append(f"the split digest at equal seed {first.seed} ({digests})")
    return found


def comparable_sets(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the runs in sets within which all are comparable, in the order of their first members."""
    sets: list[list[Run]] = []
    for run in runs:
        home = next((members for members in sets if not any(differences(m, run) for m in members)), None)
        if home is None:
            sets.append([run])
        else:
            home.append(run)
    return sets


def require_comparable(runs: Sequence[Run]) -> None:
    """Raise ConfigurationError when the runs may not be ranked together; it says which differ in what."""
    for index, run in enumerate(runs):
        for other in runs[index + 1 :]:
            found = differences(run, other)
            if found:
                raise ConfigurationError(
                    f"{run.path} and {other.path} must not be ranked together: they differ in "
                    + "; ".join(found),
                    remedy="compare runs on the same data and the same task split (seeds may differ)",
                )


def show(value: Any) -> str:
    """Return a setting as it would stand in a job file."""
    return value if isinstance(value, str) else NOT_SET if value is None else json.dumps(value)
