"""The tables of a report (tasks, rounds, workers, labels, traffic, faults): pure functions of a record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engram.federation.history import RoundRow, TaskRow, WorkerRound
from engram.metrics.matrix import AccuracyMatrix
from engram.metrics.measures import task_accuracy
from engram.metrics.status import weighted_loss
from engram.report.record import Record
from engram.spec.algorithms import ALGORITHMS


def task_table(record: Record, matrix: AccuracyMatrix, measures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each finished task: what it held, how well it was learned and kept, what it cost."""
    names = record.dataset.class_names
    traffic = _bytes_by_task(record)
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(sorted(record.history.tasks, key=lambda row: row.task), start=1):
        down, up = traffic[row.task]
        rows.append(
            {
                "task": number,
                "classes": list(matrix.classes[number - 1]),
                "class_names": [_class_name(names, label) for label in matrix.classes[number - 1]],
                "test_samples": sum(matrix.counts[number - 1][c] for c in matrix.classes[number - 1]),
                "accuracy": measures["accuracy_by_task"][number - 1],
                "newest_task_accuracy": measures["newest_task_accuracy_by_task"][number - 1],
                "final_task_accuracy": task_accuracy(matrix, matrix.tasks, number),
                "forget_rate": measures["forget_rate_by_task"][number - 1],
                "forgetting": measures["forgetting_by_task"][number - 1],
                "seconds": row.seconds.get("total"),
                "bytes_down": down,
                "bytes_up": up,
            }
        )
    return rows


def round_table(record: Record) -> list[dict[str, Any]]:
    """Return one row for each closed round; `number` counts over the whole run."""
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(record.history.rounds, start=1):
        down, up = _traffic(row.workers.values())
        total = sum(row.counts.total.values()) if row.counts else 0
        accepted = [part for part in row.workers.values() if part.outcome == "accepted"]
        rows.append(
            {
                "number": number,
                "task": row.task,
                "round": row.round,
                "accuracy": _round_accuracy(row) if total else None,
                "loss": weighted_loss(row),
                "staleness": _staleness(accepted)[0],
                "samples": sum(part.samples for part in accepted),
                "updates": len(accepted),
                "absent": sorted(name for name, part in row.workers.items() if part.outcome == "absent"),
                "degraded": row.degraded,
                "seconds": row.seconds,
                "bytes_down": down,
                "bytes_up": up,
            }
        )
    return rows


def _round_accuracy(row: RoundRow) -> float | None:
    """Return the micro average over the classes seen; rows of unseen classes are not in `right`."""
    if row.counts is None:
        return None
    seen = [label for label in row.counts.total if label in row.counts.right]
    samples = sum(row.counts.total[label] for label in seen)
    return sum(row.counts.right[label] for label in seen) / samples if samples else None


def phase_table(record: Record) -> dict[str, Any]:
    """Return where the time and the bytes went: seconds by phase over the run, bytes by task."""
    phases: dict[str, float] = {}
    for row in record.history.rounds:
        for phase, seconds in row.seconds.items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    for task in record.history.tasks:
        for phase, seconds in task.seconds.items():
            if phase != "total":
                phases[phase] = phases.get(phase, 0.0) + seconds
    order = ("broadcast", "train", "upload", "aggregate", "consolidate", "evaluate", "checkpoint")
    known = [phase for phase in order if phase in phases]
    return {
        "seconds_by_phase": {phase: phases[phase] for phase in known + sorted(set(phases).difference(known))},
        "bytes_by_task": [
            {"task": task, "down": down, "up": up}
            for task, (down, up) in sorted(_bytes_by_task(record).items())
        ],
    }


def _bytes_by_task(record: Record) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    rows: list[RoundRow | TaskRow] = [*record.history.rounds, *record.history.tasks]
    for row in rows:
        down, up = _traffic(row.workers.values())
        before = found.get(row.task, (0, 0))
        found[row.task] = (before[0] + down, before[1] + up)
    return found


def worker_table(record: Record) -> list[dict[str, Any]]:
    """Return one row for each worker: its data, its part in the rounds, what it cost."""
    rows: list[dict[str, Any]] = []
    for worker in record.workers:
        parts = [row.workers[worker.name] for row in record.history.rounds if worker.name in row.workers]
        ends = [row.workers[worker.name] for row in record.history.tasks if worker.name in row.workers]
        labelled = record.split.labelled.get(worker.name, {})
        unlabelled = record.split.unlabelled.get(worker.name, {})
        down, up = _traffic([*parts, *ends])
        outcomes = [part.outcome for part in parts]
        staleness, most_staleness = _staleness(parts)
        rows.append(
            {
                "name": worker.name,
                "group": worker.group,
                "device": worker.device,
                "samples": worker.samples or sum(labelled.values()) + sum(unlabelled.values()),
                "labelled": sum(labelled.values()),
                "unlabelled": sum(unlabelled.values()),
                "classes": sorted(label for label, count in labelled.items() if count),
                "accepted": outcomes.count("accepted"),
                "abstained": outcomes.count("abstained"),
                "absent": outcomes.count("absent"),
                "staleness": staleness,
                "most_staleness": most_staleness,
                "loss": _latest(parts, "loss"),
                "accuracy": _latest([*parts, *ends], "accuracy"),
                "pseudo_label_accept_ratio": _latest(parts, "pseudo_label_accept_ratio"),
                "pseudo_label_accuracy": _latest(parts, "pseudo_label_accuracy"),
                "steps": int(sum(part.metrics.get("steps", 0) for part in parts)),
                "train_seconds": sum(part.metrics.get("seconds", 0.0) for part in parts),
                "bytes_down": down,
                "bytes_up": up,
                "restarts": worker.restarts,
                "reconnects": record.history.faults.reconnects.get(worker.name, 0),
            }
        )
    return rows


def label_table(record: Record) -> dict[str, Any]:
    """Return labels per class and worker, their evenness, and what part of them exemplars can hold."""
    order = [label for task in record.split.tasks for label in task]
    workers = [worker.name for worker in record.workers]
    counts = {
        name: {str(label): record.split.labelled.get(name, {}).get(label, 0) for label in order}
        for name in workers
    }
    per_worker = [sum(row.values()) for row in counts.values()]
    updates = [
        sum(row.workers[name].outcome == "accepted" for row in record.history.rounds if name in row.workers)
        for name in workers
    ]
    hidden = sum(count for row in record.split.unlabelled.values() for count in row.values())
    return {
        "classes": order,
        "class_names": [_class_name(record.dataset.class_names, label) for label in order],
        "by_worker": counts,
        "by_class": {str(label): sum(row[str(label)] for row in counts.values()) for label in order},
        "labelled": sum(per_worker),
        "unlabelled": hidden,
        "fairness": {"labels": jain(per_worker), "updates": jain(updates)},
        "exemplars": _exemplars(record, per_worker),
    }


def _exemplars(record: Record, labels: Sequence[int]) -> dict[str, Any]:
    """Return the exemplar budget a worker and the share of all labels that such budgets can hold."""
    budget = exemplar_budget(record)
    total = sum(labels)
    if budget is None:
        return {"per_worker": None, "share": None}
    held = sum(min(budget, count) for count in labels)
    return {"per_worker": budget, "share": held / total if total else None}


def exemplar_budget(record: Record) -> int | None:
    """Return the exemplars that each worker may keep; None for an algorithm that keeps none."""
    algorithm = record.job.get("spec", {}).get("algorithm", {})
    parameters = algorithm.get("parameters") or {}
    if "exemplarsPerWorker" in parameters:
        value = parameters["exemplarsPerWorker"]
        return value if isinstance(value, int) else None
    known = ALGORITHMS.get(algorithm.get("name", ""))
    default = known.model_fields.get("exemplars_per_worker") if known else None
    return default.default if default and isinstance(default.default, int) else None


def fault_table(record: Record) -> dict[str, Any]:
    """Return what went wrong and was survived, with a total of each kind."""
    faults = record.history.faults
    absent = sum(part.outcome == "absent" for row in record.history.rounds for part in row.workers.values())
    return {
        "reconnects": sum(faults.reconnects.values()),
        "reconnects_by_worker": faults.reconnects,
        "rejected": sum(faults.rejected.values()),
        "rejected_by_reason": faults.rejected,
        "rounds_degraded": faults.rounds_degraded,
        "updates_absent": absent,
        "resumes": faults.resumes,
        "restarts": sum(worker.restarts for worker in record.workers),
        "notes": faults.notes,
    }


def jain(values: Sequence[float]) -> float | None:
    """Return Jain's fairness index (sum x)^2 / (n sum x^2): 1 = all equal, 1/n = one has everything.

    None without values or when all are 0. Source: Jain, Chiu, Hawe, DEC-TR-301, 1984.
    """
    squares = math.fsum(value * value for value in values)
    return math.fsum(values) ** 2 / (len(values) * squares) if squares else None


def _traffic(parts: Iterable[WorkerRound]) -> tuple[int, int]:
    down = up = 0
    for part in parts:
        down, up = down + part.bytes_down, up + part.bytes_up
    return down, up


def _staleness(parts: Sequence[WorkerRound]) -> tuple[float | None, int | None]:
    """Return how many rounds updates were behind, on average and at most; None where rounds wait for all."""
    behind = [part.metrics["staleness"] for part in parts if "staleness" in part.metrics]
    return (math.fsum(behind) / len(behind), int(max(behind))) if behind else (None, None)


def _latest(parts: Sequence[WorkerRound], key: str) -> float | None:
    return next((part.metrics[key] for part in reversed(parts) if key in part.metrics), None)


def _class_name(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)
