"""The history while it is written: rows that are open, bytes and seconds that belong to them, faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

from engram.federation.history import Counts, History, Observer, RoundRow, TaskRow, WorkerRound
from engram.federation.messages import ClassCounts, Reject
from engram.federation.validation import finite_metrics

MAX_NOTES = 200
"""Notes on faults that a history keeps; the first ones tell more than the last."""


class Answered(Protocol):
    """What the journal notes of an update or a consolidation."""

    @property
    def samples(self) -> int:
        """The answer's weight; 0: it abstained."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the worker measured."""
        ...


class Journal:
    """Collects what belongs to the open stage; `history` holds what is closed."""

    def __init__(self, history: History, observer: Observer, timer: Callable[[], float] = time.perf_counter):
        self.history = history
        self._observer = observer
        self._timer = timer
        self._opened = 0.0
        self._stage_opened = 0.0
        self._last: float | None = None
        self._seconds: dict[str, float] = {}
        self._bytes: dict[str, list[int]] = {}
        self._counts: Counts | None = None

    # While a stage is open.

    def running(self, now: float) -> None:
        """Let the active time run on to `now`."""
        if self._last is not None:
            self.history.active_seconds += max(0.0, now - self._last)
        self._last = now

    def open(self, now: float) -> None:
        """Start the row of a round, or of the end of a task."""
        self._opened = self._stage_opened = now
        self._seconds, self._bytes, self._counts = {}, {}, None

    def open_evaluation(self, now: float) -> None:
        """Go on with the open row: the workers evaluate."""
        self._stage_opened = now

    def begin(self, now: float) -> None:
        """Note that the orders of the stage that was opened last leave from now on."""
        if self._opened == self._stage_opened:
            self._opened = now
        self._stage_opened = now

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int, *, in_row: bool) -> None:
        """Count bytes for the observer and, when `in_row`, for the open row."""
        if in_row:
            self._bytes.setdefault(worker, [0, 0])[direction == "up"] += size
        self._observer.transferred(worker, direction, size)

    def sent(self, now: float) -> None:
        """Note that an order of the open round has left: until the last one it is broadcast."""
        self._seconds["broadcast"] = max(0.0, now - self._stage_opened)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the seconds that the block takes to a part of the open row."""
        start = self._timer()
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + self._timer() - start

    def answered(self, now: float, part: str, metrics: Sequence[Mapping[str, float]]) -> None:
        """Note that the stage has its answers: the time since it was opened is broadcast, the slowest
        worker's training, as it was reported, and upload (transfer and waiting); `part` alone when nothing
        was reported.
        """
        elapsed = max(0.0, now - self._stage_opened)
        said = [finite_metrics(values).get("seconds") for values in metrics]
        slowest = max((seconds for seconds in said if seconds is not None), default=elapsed)
        self._seconds[part] = min(max(0.0, slowest), elapsed)
        if part == "train":
            rest = elapsed - self._seconds[part]
            self._seconds["broadcast"] = min(self._seconds.get("broadcast", 0.0), rest)
            self._seconds["upload"] = rest - self._seconds["broadcast"]

    def evaluated(self, counts: ClassCounts) -> None:
        """Keep the counts of the open row."""
        self._counts = as_row(counts)

    def seconds_of(self, part: str) -> float:
        """Return the seconds of a part of the open row so far."""
        return self._seconds.get(part, 0.0)

    # When it closes.

    def round_row(
        self, task: int, round: int, workers: Mapping[str, Answered], absent: Sequence[str]
    ) -> RoundRow:
        """Add a closed round to the history; it is announced once it is durable."""
        row = RoundRow(
            task=task,
            round=round,
            started=self._opened,
            seconds=self._seconds,
            workers=self._workers(workers, absent),
            degraded=bool(absent),
            counts=self._counts,
        )
        self.history.rounds.append(row)
        self.history.faults.rounds_degraded += row.degraded
        return row

    def task_row(
        self,
        task: int,
        classes: Sequence[int],
        workers: Mapping[str, Answered],
        absent: Sequence[str],
    ) -> TaskRow:
        """Add a closed task to the history; it is announced once it is durable."""
        rounds = [row for row in self.history.rounds if row.task == task]
        row = TaskRow(
            task=task,
            classes=list(classes),
            started=rounds[0].started if rounds else self._opened,
            seconds=self._seconds,
            counts=self._counts or Counts(right={}, total={}),
            workers=self._workers(workers, absent),
        )
        # Of the rows, not of the clock: a restart in the middle of the task does not count.
        row.seconds["total"] = sum(row.seconds.values()) + sum(sum(item.seconds.values()) for item in rounds)
        self.history.tasks.append(row)
        return row

    def _workers(self, workers: Mapping[str, Answered], absent: Sequence[str]) -> dict[str, WorkerRound]:
        rows: dict[str, WorkerRound] = {}
        for worker in sorted({*workers, *absent}):
            down, up = self._bytes.get(worker, (0, 0))
            answer = workers.get(worker)
            if answer is None:
                rows[worker] = WorkerRound(outcome="absent", bytes_down=down, bytes_up=up)
                continue
            rows[worker] = WorkerRound(
                outcome="accepted" if answer.samples else "abstained",
                samples=answer.samples,
                metrics=finite_metrics(answer.metrics),
                bytes_down=down,
                bytes_up=up,
            )
        return rows

    # Faults.

    def note(self, text: str) -> None:
        """Keep a sentence that a reader of the report must see."""
        notes = self.history.faults.notes
        if len(notes) < MAX_NOTES and text not in notes:
            notes.append(text)

    def rejected(self, worker: str, reject: Reject) -> None:
        """Count an answer or a connection that was refused."""
        known = self.history.faults.rejected
        known[reject.reason] = known.get(reject.reason, 0) + 1
        self._observer.rejected(worker, reject)

    def reconnected(self, worker: str) -> None:
        """Count a worker that came back."""
        known = self.history.faults.reconnects
        known[worker] = known.get(worker, 0) + 1


def as_row(counts: ClassCounts) -> Counts:
    """Return counts as the history keeps them."""
    return Counts(right=dict(counts.right), total=dict(counts.total), right_unseen=dict(counts.right_unseen))


def summed(counts: Sequence[ClassCounts]) -> ClassCounts:
    """Return the sum of the workers' counts by label id, labels sorted."""

    def add(parts: Sequence[Mapping[int, int]]) -> dict[int, int]:
        labels = sorted({label for part in parts for label in part})
        return {label: sum(part.get(label, 0) for part in parts) for label in labels}

    return ClassCounts(
        right=add([part.right for part in counts]),
        total=add([part.total for part in counts]),
        right_unseen=add([part.right_unseen for part in counts]),
    )
