"""The rows of the results: of a finished run, from and to the JSON file."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.fcil.cells import Cell, Key
from engram.metrics.matrix import from_history
from engram.metrics.measures import measure
from engram.report.record import Record


@dataclass(frozen=True)
class Row:
    """The figures of one run; shares are 0..1."""

    benchmark: str
    algorithm: str
    """The variant's name: an algorithm with its parameters."""
    label_ratio: float
    seed: int
    final_accuracy: float
    average_incremental_accuracy: float
    forget_rate: float | None
    """None where there is one task only, as in joint upfront."""
    newest_task_accuracy: float
    """Right after it was learned, mean over tasks: does it still learn?"""
    cpu_seconds: float | None
    bytes: int
    """Both ways, of all workers."""
    split: str
    """Digest of who holds what and when classes appear."""
    job: str
    code: str
    matrix: str
    """Digest of the accuracy matrix: equal for runs that were equal bit for bit."""
    cpu: str
    """The processor: another one gives other last digits and other times."""

    @property
    def key(self) -> Key:
        """What a row is found by."""
        return self.benchmark, self.algorithm, self.label_ratio, self.seed


def row_of(cell: Cell, record: Record, code: str) -> Row:
    """Return the row of a finished run."""
    matrix = from_history(record.classes, record.history)
    measures = measure(matrix)
    return Row(
        benchmark=cell.benchmark.name,
        algorithm=cell.variant.name,
        label_ratio=cell.ratio,
        seed=cell.seed,
        final_accuracy=measures["accuracy"],
        average_incremental_accuracy=measures["average_incremental_accuracy"],
        forget_rate=measures["forget_rate"],
        newest_task_accuracy=statistics.fmean(measures["newest_task_accuracy_by_task"]),
        cpu_seconds=record.cost.cpu_seconds,
        bytes=record.cost.bytes_down + record.cost.bytes_up,
        split=record.split.digest[:16],
        job=cell.digest(),
        code=code,
        matrix=_digest(matrix.dump()),
        cpu=record.environment.cpu,
    )


def load(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return what a file of results says beside its rows, and the rows; nothing where there is no file.

    Raises SystemExit for rows with other fields.
    """
    if not path.exists():
        return {}, []
    document = json.loads(path.read_text(encoding="utf-8"))
    try:
        return document, [Row(**row) for row in document.pop("rows")]
    except TypeError as error:
        raise SystemExit(f"{path} holds rows of another version of this benchmark: {error}") from error


def save(path: Path, facts: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Write the rows in a fixed order, one a line, so that a change of one is a change of one line."""
    lines = [json.dumps(asdict(row)) for row in sorted(rows, key=lambda row: row.key)]
    head = json.dumps(dict(facts), indent=1, ensure_ascii=False)
    body = ",\n  ".join(lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head[:-2]},\n "rows": [\n  {body}\n ]\n}}\n', encoding="utf-8")


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
