"""The accuracy matrix: the one value that every measure of a class-incremental run derives from.

`engram metrics` reads it from a file, a run writes it as `matrix.json`, the live status and the report make
it from the run's history; so a number is computed in one way everywhere. The file format is in
`engram.metrics.format`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.federation.history import Counts, History


@dataclass(frozen=True)
class AccuracyMatrix:
    """Accuracy of the global model by task and class; T = `len(classes)`. Lists are in learning order.

    Attributes:
        classes: label ids of each task, K_1 ... K_T; no class is in two tasks.
        counts: counts[t-1][c] = test samples n_c that the evaluation after task t had of class c, for all
            classes of tasks 1..t.
        accuracy: accuracy[t-1][c] = a[t][c], the share of right predictions, 0..1, over seen classes, for
            all classes of tasks 1..t; None where the class had no test samples.
        initial: initial[j-1] = b[j], accuracy of the freshly initialised model on task j, if evaluated.
        unseen: unseen[t, j] = R[t][j] with j > t: accuracy on a task that is still to come, where evaluated.
        reference: reference[t-1] = a*_t, accuracy on task t of a joint reference run, if there was one.
    """

    classes: tuple[tuple[int, ...], ...]
    counts: tuple[Mapping[int, int], ...]
    accuracy: tuple[Mapping[int, float | None], ...]
    initial: tuple[float | None, ...] | None = None
    unseen: Mapping[tuple[int, int], float] = field(default_factory=dict)
    reference: tuple[float | None, ...] | None = None

    @property
    def tasks(self) -> int:
        """T, the number of tasks that were trained and evaluated."""
        return len(self.classes)

    def seen(self, task: int) -> tuple[int, ...]:
        """Return the classes of tasks 1..`task` in learning order."""
        return tuple(label for classes in self.classes[:task] for label in classes)

    @classmethod
    def load(cls, path: Path) -> AccuracyMatrix:
        """Read a matrix file. Raises ConfigurationError that names file and field."""
        from engram.metrics.format import load_matrix

        return load_matrix(path)

    @classmethod
    def parse(cls, document: Any, file: str = "") -> AccuracyMatrix:
        """Check and take over a decoded matrix file. Raises ConfigurationError that names file and field."""
        from engram.metrics.format import parse_matrix

        return parse_matrix(document, file)

    def dump(self) -> dict[str, Any]:
        """Return the matrix in the file's format; `parse(json.loads(json.dumps(m.dump())))` equals `m`."""
        from engram.metrics.format import dump_matrix

        return dump_matrix(self)


def from_history(classes: Sequence[Sequence[int]], history: History) -> AccuracyMatrix:
    """Return the matrix of the tasks that `history` has finished; `classes` are those of all trained tasks.

    A run that was interrupted in task t gives a matrix of tasks 1..t-1. Classes without test samples have
    count 0 and no accuracy.
    """
    rows = sorted(history.tasks, key=lambda row: row.task)
    done = tuple(tuple(task) for task in classes[: len(rows)])
    counts: list[dict[int, int]] = []
    accuracy: list[dict[int, float | None]] = []
    unseen: dict[tuple[int, int], float] = {}
    for number, row in enumerate(rows, start=1):
        known = [label for task in done[:number] for label in task]
        counts.append({label: row.counts.total.get(label, 0) for label in known})
        accuracy.append({label: _share(row.counts.right, row.counts.total, [label]) for label in known})
        for later in range(number + 1, len(done) + 1):
            value = _unseen_share(row.counts, done[later - 1])
            if value is not None:
                unseen[number, later] = value
    initial = None
    if history.initial is not None:
        every = {**history.initial.right_unseen, **history.initial.right}
        initial = tuple(_share(every, history.initial.total, task) for task in done)
    return AccuracyMatrix(done, tuple(counts), tuple(accuracy), initial, unseen)


def _share(right: Mapping[int, int], total: Mapping[int, int], labels: Sequence[int]) -> float | None:
    samples = sum(total.get(label, 0) for label in labels)
    return sum(right.get(label, 0) for label in labels) / samples if samples else None


def _unseen_share(counts: Counts, labels: Sequence[int]) -> float | None:
    """Return R[t][j] of a task not yet seen; None unless every class with test samples was evaluated."""
    tested = [label for label in labels if counts.total.get(label, 0)]
    if not tested or any(label not in counts.right_unseen for label in tested):
        return None
    return _share(counts.right_unseen, counts.total, tested)
