"""A run read back from its report: what a leaderboard needs of a record, made of `report.json` alone.

On a cluster the ConfigMap of a job keeps its report and not its record, which may be large. The report has
the accuracy matrix, the setting and the cost; rounds, which no leaderboard looks at, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engram.errors import ConfigurationError
from engram.federation.history import Counts, History, TaskRow
from engram.metrics.matrix import AccuracyMatrix
from engram.report.document import SCHEMA
from engram.report.record import Record

REPORT = "report.json"


def reread(path: Path) -> Record:
    """Return the record of the report at `path`: a directory with a report.json, or such a file.

    Its measures are those of the report, number for number; it has no rounds. Raises ConfigurationError when
    there is none, or it is of another version.
    """
    file = path if path.is_file() else path / REPORT
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", file=str(file)) from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("is no JSON", file=str(file), remedy="fetch the report again") from error
    try:
        return record_of(document)
    except ConfigurationError as error:
        raise error.within(str(file)) from error


def record_of(document: Any) -> Record:
    """Return the record of a report document. Raises ConfigurationError for what is none."""
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        raise ConfigurationError(
            f"is no report of the schema {SCHEMA}", remedy="use the version that made it"
        )
    try:
        return _record(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise ConfigurationError(
            f"is no report that this version reads: {' '.join(said.split())[:200]}",
            remedy="use the version that made it",
        ) from error


def _record(document: Mapping[str, Any]) -> Record:
    matrix, setting = AccuracyMatrix.parse(document["matrix"]), document["setting"]
    finished = [list(task) for task in matrix.classes]
    tasks = setting["split_tasks"]
    # Joint upfront trains all classes as one task; any other run trains those of its split.
    planned = finished if len(finished) == document["progress"]["tasks"] else tasks
    return Record.model_validate(
        {
            "schema": "engram.record/v1",
            "status": document["status"],
            "message": document["message"],
            "job": setting["job"],
            "job_digest": setting["job_digest"],
            "classes": planned,
            "dataset": setting["dataset"],
            "split": {
                "digest": setting["split_digest"],
                "tasks": tasks,
                "test_counts": dict(matrix.counts[-1]) if matrix.counts else {},
                "labelled": {},
                "unlabelled": {},
            },
            "environment": setting["environment"],
            "workers": [
                {key: row[key] for key in ("name", "group", "device", "samples", "restarts")}
                for row in document["workers"]
            ],
            "history": _history(matrix),
            "cost": document["cost"],
            "started": document["started"],
            "completed": document["completed"],
            "notes": [],
        }
    )


def _history(matrix: AccuracyMatrix) -> History:
    """Return tasks whose counts give the matrix again."""
    rows = [
        TaskRow(
            task=task,
            classes=list(matrix.classes[task - 1]),
            started=0.0,
            seconds={},
            counts=_counts(matrix, task),
            workers={},
        )
        for task in range(1, matrix.tasks + 1)
    ]
    return History(tasks=rows, initial=_initial(matrix))


def _counts(matrix: AccuracyMatrix, task: int) -> Counts:
    accuracy, total = matrix.accuracy[task - 1], dict(matrix.counts[task - 1])
    right = {label: round((accuracy[label] or 0.0) * number) for label, number in total.items()}
    unseen: dict[int, int] = {}
    for later in range(task + 1, matrix.tasks + 1):
        share = matrix.unseen.get((task, later))
        if share is not None:
            unseen |= _spread(matrix, later, share)
            total |= _samples(matrix, later)
    return Counts(right=right, total=total, right_unseen=unseen)


def _initial(matrix: AccuracyMatrix) -> Counts | None:
    if matrix.initial is None:
        return None
    right: dict[int, int] = {}
    total: dict[int, int] = {}
    for task, share in enumerate(matrix.initial, start=1):
        if share is not None:
            right |= _spread(matrix, task, share)
            total |= _samples(matrix, task)
    return Counts(right=right, total=total)


def _samples(matrix: AccuracyMatrix, task: int) -> dict[int, int]:
    """Return the test samples of the classes of a task."""
    return {label: matrix.counts[-1][label] for label in matrix.classes[task - 1]}


def _spread(matrix: AccuracyMatrix, task: int, share: float) -> dict[int, int]:
    """Return right predictions of a task's classes whose sum gives `share`: by task is all that is known."""
    samples = _samples(matrix, task)
    left = round(share * sum(samples.values()))
    found: dict[int, int] = {}
    for label, number in samples.items():
        found[label] = min(left, number)
        left -= found[label]
    return found
