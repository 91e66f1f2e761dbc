"""A leaderboard as a value: runs grouped over seeds, ranked, with paired differences to the first row.

Grouping, means and pairing are pure; `compare` reads and writes the files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engram.metrics.matrix import from_history
from engram.metrics.measures import measure
from engram.report.comparable import NOT_SET, Run, flatten, show
from engram.report.rank import COLUMNS, ranked

SCHEMA = "engram.leaderboard/v1"

UNDECISIVE = ("seed", "suspend", "managedBy", "report", "runPolicy", "imagePullSecrets", "aggregator")
"""Parts of spec that make no other experiment: a group of runs over seeds may differ in them."""

UNDECISIVE_IN_GROUP = (
    "image", "placement", "gpus", "resources", "runAsUser", "podTemplate", "state", "dataset.path",
    "dataset.volume",
)  # fmt: skip

IDENTITY = ("algorithm.name", "dataset.name")
"""Shown on every leaderboard, whether they vary or not."""


@dataclass(frozen=True)
class Statistic:
    """Mean over seeds; `error` is the standard error sd/sqrt(n) with n - 1 in sd, None for n = 1."""

    mean: float | None
    error: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Statistic:
        """Return the statistic of the values that are defined."""
        defined = [value for value in values if value is not None]
        n = len(defined)
        if not n:
            return cls(None, None, 0)
        mean = math.fsum(defined) / n
        if n == 1:
            return cls(mean, None, 1)
        variance = math.fsum((value - mean) ** 2 for value in defined) / (n - 1)
        return cls(mean, math.sqrt(variance / n), n)


@dataclass(frozen=True)
class LeaderboardRow:
    """One experiment: all its seeds."""

    settings: dict[str, str]
    """The paths that vary between the rows (and `IDENTITY`) with this row's values."""
    values: dict[str, Statistic]
    """By the keys of `rank.COLUMNS`."""
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    """Run directories as they were given, in the order of `seeds`."""
    differences: dict[str, Statistic] = field(default_factory=dict)
    """This row minus the first-ranked one, over the seeds that both have; empty for the first row."""
    accuracy_by_task: tuple[Statistic, ...] = ()

    @property
    def label(self) -> str:
        """A short name: the algorithm, and whatever else varies."""
        rest = [
            f"{heading(path)} {value}"
            for path, value in self.settings.items()
            if path not in IDENTITY and value != NOT_SET
        ]
        return ", ".join([self.settings["algorithm.name"], *rest])


@dataclass(frozen=True)
class Leaderboard:
    """The whole comparison."""

    rows: tuple[LeaderboardRow, ...]
    rank: tuple[tuple[str, str], ...]
    facts: dict[str, Any]
    """What all rows share: data set, its digest, tasks, workers."""
    notes: tuple[str, ...] = ()
    unfinished: tuple[tuple[str, str], ...] = ()
    """(run directory, status) of runs that are not complete and so take no part."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Columns of settings, in order."""
        return tuple(self.rows[0].settings) if self.rows else ()

    @property
    def shown_paths(self) -> tuple[str, ...]:
        """Those worth a column to people: the data set's name only where it differs."""
        names = {row.settings["dataset.name"] for row in self.rows}
        return tuple(path for path in self.paths if path != "dataset.name" or len(names) > 1)

    def dump(self) -> dict[str, Any]:
        """Return the leaderboard as JSON-able data (schema `engram.leaderboard/v1`)."""
        return {
            "schema": SCHEMA,
            "rank": [{"metric": metric, "direction": direction} for metric, direction in self.rank],
            "facts": self.facts,
            "rows": [
                {
                    "rank": place,
                    "label": row.label,
                    "settings": row.settings,
                    "seeds": list(row.seeds),
                    "runs": list(row.runs),
                    "values": {key: vars(value) for key, value in row.values.items()},
                    "difference_to_first": {key: vars(value) for key, value in row.differences.items()},
                    "accuracy_by_task": [vars(value) for value in row.accuracy_by_task],
                }
                for place, row in enumerate(self.rows, start=1)
            ],
            "notes": list(self.notes),
            "unfinished": [{"run": run, "status": status} for run, status in self.unfinished],
        }


def heading(path: str) -> str:
    """Return the short name of a setting's path: `algorithm` for algorithm.name, else the last part."""
    parent, _, last = path.rpartition(".")
    return parent if last == "name" else last


def figures(run: Run, reference: Run | None = None) -> dict[str, float | None]:
    """Return the measured columns of one run by the keys of `rank.COLUMNS`: shares 0..1, MB, seconds.

    `reference` is a joint run on the same split, for intransigence (its mean over tasks); a run that learns
    all of them at once has none.
    """
    matrix = from_history(run.record.classes, run.record.history)
    if reference is not None and len(reference.record.classes) == len(run.record.classes):
        joint = measure(from_history(reference.record.classes, reference.record.history))
        matrix = replace(matrix, reference=tuple(joint["newest_task_accuracy_by_task"]))
    measures = measure(matrix)
    newest = measures["newest_task_accuracy_by_task"]
    cost = run.record.cost
    found: dict[str, float | None] = {
        "newest_task_accuracy": newest[-1] if newest else None,
        "intransigence": Statistic.of(measures["intransigence_by_task"] or ()).mean,
        "megabytes_down": cost.bytes_down / 1e6,
        "megabytes_up": cost.bytes_up / 1e6,
        "cpu_seconds": cost.cpu_seconds,
        "seconds": cost.seconds,
    }
    return {c.key: found[c.key] if c.key in found else measures[c.key] for c in COLUMNS}


def references(runs: Sequence[Run]) -> dict[str, Run]:
    """Return the joint runs (data of all tasks so far, not upfront) by what another run must share with them.

    That is seed and every setting but the algorithm's.
    """
    return {
        _beside_algorithm(run): run
        for run in runs
        if run.spec.get("algorithm", {}).get("name") == "joint"
        and len(run.record.classes) == len(run.record.split.tasks) > 1
    }


def build(runs: Sequence[Run], rank: tuple[tuple[str, str], ...]) -> Leaderboard:
    """Group complete, comparable runs over their seeds and rank the groups."""
    finished = [run for run in runs if run.record.status == "complete"]
    notes: list[str] = []
    groups: dict[str, dict[int, Run]] = {}
    for run in finished:
        members = groups.setdefault(json.dumps(_experiment(run), sort_keys=True), {})
        if run.seed in members:
            notes.append(_repeated(members[run.seed], run))
        else:
            members[run.seed] = run
    ordered = [[members[seed] for seed in sorted(members)] for members in groups.values()]
    rows = _rows(ordered, rank, references(finished))
    seeds = {row.seeds for row in rows}
    if len(seeds) > 1:
        notes.append(
            "The rows do not all have the same seeds; differences to the first row are over the seeds "
            "that both have."
        )
    versions = sorted({f"engram {_made_with(run)}" for run in finished})
    if len(versions) > 1:
        notes.append(f"The runs were made with different versions: {'; '.join(versions)}.")
    return Leaderboard(
        rows=tuple(rows),
        rank=rank,
        facts=_facts(finished[0]) if finished else {},
        notes=tuple(notes),
        unfinished=tuple((str(run.path), run.record.status) for run in runs if run not in finished),
    )


def _rows(
    groups: Sequence[Sequence[Run]], rank: tuple[tuple[str, str], ...], joint: Mapping[str, Run]
) -> list[LeaderboardRow]:
    settings = _varying([_experiment(members[0]) for members in groups])
    measured = [
        [
            figures(run, None if run in joint.values() else joint.get(_beside_algorithm(run)))
            for run in members
        ]
        for members in groups
    ]
    curves = [[_curve(run) for run in members] for members in groups]
    rows = [
        LeaderboardRow(
            settings=settings[index],
            values={c.key: Statistic.of([run[c.key] for run in measured[index]]) for c in COLUMNS},
            seeds=tuple(run.seed for run in members),
            runs=tuple(str(run.path) for run in members),
            accuracy_by_task=tuple(Statistic.of(values) for values in zip(*curves[index], strict=False)),
        )
        for index, members in enumerate(groups)
    ]
    order = ranked(
        range(len(rows)), rank, lambda index, key: rows[index].values[key].mean, lambda i: rows[i].label
    )
    if not order:
        return []
    best = order[0]
    return [
        rows[best],
        *(
            replace(
                rows[index], differences=_paired(rows[index], measured[index], rows[best], measured[best])
            )
            for index in order[1:]
        ),
    ]


def _paired(
    row: LeaderboardRow,
    mine: Sequence[dict[str, float | None]],
    first: LeaderboardRow,
    theirs: Sequence[dict[str, float | None]],
) -> dict[str, Statistic]:
    """Return the mean of the differences row - first over shared seeds, by column."""
    left, right = dict(zip(row.seeds, mine, strict=True)), dict(zip(first.seeds, theirs, strict=True))
    shared = [seed for seed in row.seeds if seed in right]
    found: dict[str, Statistic] = {}
    for column in COLUMNS:
        pairs = [(left[seed][column.key], right[seed][column.key]) for seed in shared]
        found[column.key] = Statistic.of([a - b for a, b in pairs if a is not None and b is not None])
    return found


def _curve(run: Run) -> list[float | None]:
    curve: list[float | None] = measure(from_history(run.record.classes, run.record.history))[
        "accuracy_by_task"
    ]
    return curve


def _experiment(run: Run) -> dict[str, Any]:
    """Return what makes this experiment, by path below spec: all but the seed and what decides nothing."""
    leaves = flatten({key: value for key, value in run.spec.items() if key not in UNDECISIVE}, "")
    return {
        path: value
        for path, value in leaves.items()
        if value not in (None, [], {}, "")
        and not any(
            path.startswith("workers[") and (path.partition("].")[2] + ".").startswith(f"{key}.")
            for key in UNDECISIVE_IN_GROUP
        )
        and not path.startswith(("dataset.path", "dataset.volume"))
    }


def _beside_algorithm(run: Run) -> str:
    settings = {path: value for path, value in _experiment(run).items() if not path.startswith("algorithm.")}
    return json.dumps([run.seed, settings], sort_keys=True)


def _varying(experiments: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return for each experiment the settings in which they differ, `IDENTITY` first.

    A parameter of the algorithm counts only where it differs between experiments of one algorithm: that
    icarl has exemplars and finetune has none is what their names say.
    """
    paths = sorted({path for experiment in experiments for path in experiment})
    vary = [path for path in paths if path not in IDENTITY and _differs(path, experiments)]
    return [{path: show(experiment.get(path)) for path in (*IDENTITY, *vary)} for experiment in experiments]


def _differs(path: str, experiments: Sequence[dict[str, Any]]) -> bool:
    together = "algorithm.name" if path.startswith("algorithm.parameters") else None
    values: dict[Any, set[str]] = {}
    for experiment in experiments:
        group = experiment.get(together) if together else None
        values.setdefault(group, set()).add(json.dumps(experiment.get(path)))
    return any(len(found) > 1 for found in values.values())


def _repeated(kept: Run, other: Run) -> str:
    same = from_history(kept.record.classes, kept.record.history) == from_history(
        other.record.classes, other.record.history
    )
    verdict = "with the same accuracy matrix" if same else "BUT WITH ANOTHER ACCURACY MATRIX"
    return f"{other.path} repeats {kept.path} (same job, same seed) {verdict}; it is counted once."


def _made_with(run: Run) -> str:
    environment = run.record.environment
    return f"{environment.engram} with torch {environment.torch}"


def _facts(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "dataset": record.dataset.name,
        "dataset_sha256": record.dataset.sha256,
        "tasks": len(record.split.tasks),
        "classes": sum(len(task) for task in record.split.tasks),
        "workers": len(record.workers),
        "train_samples": record.dataset.train_samples,
        "test_samples": sum(record.split.test_counts.values()),
    }
