"""From a run's record to the report document: every number that HTML, Markdown, JSON and CSV show.

The document is plain JSON (`report.json`, schema `engram.report/v1`) and a pure function of the record: the
renderers only format it, so no two of them can disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engram.metrics.catalogue import explain, why_undefined
from engram.metrics.matrix import AccuracyMatrix, from_history
from engram.metrics.measures import measure, task_accuracy
from engram.report.formats import number, plural, share
from engram.report.record import Record
from engram.report.tables import (
    fault_table,
    label_table,
    phase_table,
    round_table,
    task_table,
    worker_table,
)
from engram.report.telemetry import Telemetry, merged

SCHEMA = "engram.report/v1"
STATES = {
    "failed": "This run failed",
    "interrupted": "This run was interrupted",
    "running": "This run is not over",
}


def build_document(
    record: Record, telemetry: Telemetry | None = None, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the report of a run; it may be complete, failed, interrupted or still running.

    Args:
        record: what every number but those of the machines comes from.
        telemetry: what a Prometheus saw of the run; None: nobody asked one, and the section is absent.
        notes: what a reader must know of how the report was made.
    """
    matrix = from_history(record.classes, record.history)
    measures = measure(matrix)
    labels = label_table(record)
    return {
        "schema": SCHEMA,
        "name": str(record.job.get("metadata", {}).get("name", "")),
        "status": record.status,
        "summary": _summary(record, measures),
        "message": record.message,
        "started": record.started,
        "completed": record.completed,
        "progress": _progress(record),
        "metrics": measures,
        "explained": explain(measures, matrix),
        "undefined": _undefined(measures, matrix),
        "matrix": matrix.dump(),
        "task_accuracy": _task_accuracy(matrix),
        "tasks": task_table(record, matrix, measures),
        "rounds": round_table(record),
        "time_and_traffic": phase_table(record),
        "workers": worker_table(record),
        "labels": labels,
        "cost": record.cost.model_dump(mode="json"),
        "faults": fault_table(record),
        "notes": [*_notes(record, labels, measures), *notes],
        "setting": _setting(record),
        "run_again": run_again(record),
        **({"telemetry": merged(telemetry, record)} if telemetry is not None else {}),
    }


def run_again(record: Record) -> str:
    """Return the one command that repeats this run, to be typed inside its directory."""
    transport, batched = record.environment.transport, record.environment.batched
    options = (f" --transport {transport}" if transport else "") + (" --batched" if batched else "")
    return f"engram run job.yaml --out again{options}"


def _progress(record: Record) -> dict[str, int]:
    return {
        "tasks_finished": len(record.history.tasks),
        "tasks": len(record.classes),
        "rounds_finished": len(record.history.rounds),
    }


def _summary(record: Record, measures: dict[str, Any]) -> str:
    """Return what the run was and what came of it, in plain sentences."""
    spec = record.job.get("spec", {})
    algorithm = spec.get("algorithm", {}).get("name", "")
    classes = sum(len(task) for task in record.classes)
    done = record.status == "complete"
    text = (
        f"{plural(len(record.workers), 'worker')} {'learned' if done else 'set out to learn'} "
        f"{plural(classes, 'class', 'classes')} of {record.dataset.name} in "
        f"{plural(len(record.classes), 'task')} with {algorithm}."
    )
    if measures["final_accuracy"] is None:
        return text
    reached = "In the end" if done else f"After {plural(len(record.history.tasks), 'task')}"
    text += f" {reached} the model gets {share(measures['final_accuracy'])} of the test images right"
    lost = measures["forget_rate"]
    if lost is None:
        return text + "."
    verb = "has lost" if lost >= 0 else "has gained"
    return text + f"; an old class {verb} {number(100 * abs(lost))} points on average since its best."


def _undefined(measures: dict[str, Any], matrix: AccuracyMatrix) -> dict[str, str]:
    """Return the reason for every scalar that is null, so that nobody reads it as zero."""
    found = {
        key: why_undefined(key, matrix)
        for key, value in measures.items()
        if value is None and not key.endswith("_by_task")
    }
    if measures["intransigence_by_task"] is None:
        found["intransigence_by_task"] = why_undefined("intransigence", matrix)
    return found


def _task_accuracy(matrix: AccuracyMatrix) -> list[list[float | None]]:
    """Return R as a square: row t - 1, column j - 1; None where it was not measured."""
    tasks = range(1, matrix.tasks + 1)
    return [[task_accuracy(matrix, after, task) for task in tasks] for after in tasks]


def _notes(record: Record, labels: dict[str, Any], measures: dict[str, Any]) -> list[str]:
    notes: list[str] = []
    done, planned = len(record.history.tasks), len(record.classes)
    if record.status != "complete":
        covered = f"the figures cover the {done} of {planned} tasks that were finished"
        notes.append(f"{STATES[record.status]}: {covered if done else 'no task was finished'}.")
    held = labels["exemplars"]["share"]
    if held is not None and held > 0.5:
        notes.append(
            f"The exemplar budget can hold {held:.0%} of all labels: this run does not test forgetting, "
            "because most of what could be forgotten is kept."
        )
    if measures["classes_without_test"]:
        names = ", ".join(map(str, measures["classes_without_test"]))
        notes.append(f"Classes without test samples, left out of every measure: {names}.")
    return notes + [note for note in record.notes if note not in notes]


def _setting(record: Record) -> dict[str, Any]:
    return {
        "job": record.job,
        "job_digest": record.job_digest,
        "dataset": record.dataset.model_dump(mode="json"),
        "split_digest": record.split.digest,
        "split_tasks": record.split.tasks,
        "environment": record.environment.model_dump(mode="json"),
    }
