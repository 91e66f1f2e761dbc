"""What listens to a run: several observers as one, and the lines that a terminal or a pod's log shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from engram.federation.history import Counts, History, Observer, RoundRow, TaskRow, WorkerState
from engram.federation.messages import Heartbeat, Hello, Reject
from engram.metrics.matrix import AccuracyMatrix, from_history
from engram.metrics.measures import accuracy, forget_rate, task_accuracy

TASK_MARK, ROUND_MARK = "task ", "round "
"""How the lines begin; the supervisor recognises them in the aggregator's log."""


class Observers:
    """Tells several observers the same, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def worker_changed(self, worker: str, state: WorkerState) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.worker_changed(worker, state)

    def introduced(self, worker: str, hello: Hello) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.introduced(worker, hello)

    def worker_failed(self, worker: str, text: str, exit_code: int) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.worker_failed(worker, text, exit_code)

    def heartbeat(self, worker: str, beat: Heartbeat) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.heartbeat(worker, beat)

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.transferred(worker, direction, size)

    def rejected(self, worker: str, reject: Reject) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.rejected(worker, reject)

    def round_started(self, task: int, round: int) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.round_started(task, round)

    def consolidation_started(self, task: int) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.consolidation_started(task)

    def evaluation_started(self, task: int, round: int) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.evaluation_started(task, round)

    def round_closed(self, row: RoundRow, history: History) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.round_closed(row, history)

    def task_closed(self, row: TaskRow, history: History) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.task_closed(row, history)

    def finished(self, reason: str, message: str, history: History) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.finished(reason, message, history)


class Silent:
    """An observer that does nothing: base of those that care for a few events only."""

    def worker_changed(self, worker: str, state: WorkerState) -> None:
        """Ignore."""

    def introduced(self, worker: str, hello: Hello) -> None:
        """Ignore."""

    def worker_failed(self, worker: str, text: str, exit_code: int) -> None:
        """Ignore."""

    def heartbeat(self, worker: str, beat: Heartbeat) -> None:
        """Ignore."""

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int) -> None:
        """Ignore."""

    def rejected(self, worker: str, reject: Reject) -> None:
        """Ignore."""

    def round_started(self, task: int, round: int) -> None:
        """Ignore."""

    def consolidation_started(self, task: int) -> None:
        """Ignore."""

    def evaluation_started(self, task: int, round: int) -> None:
        """Ignore."""

    def round_closed(self, row: RoundRow, history: History) -> None:
        """Ignore."""

    def task_closed(self, row: TaskRow, history: History) -> None:
        """Ignore."""

    def finished(self, reason: str, message: str, history: History) -> None:
        """Ignore."""


class Lines(Silent):
    """One line a round and one a task, for logs and for terminals that are none; a worker's last words."""

    def __init__(
        self, classes: Sequence[Sequence[int]], rounds: Sequence[int], write: Callable[[str], None]
    ) -> None:
        """`write` gets each line without its line feed."""
        self._classes, self._rounds, self._write = classes, rounds, write

    def introduced(self, worker: str, hello: Hello) -> None:
        """Write what is wrong with a worker, or was on its way here."""
        if hello.trouble:
            by = f" (connected by {hello.endpoint})" if hello.endpoint else ""
            self._write(f"{worker}{by}: {hello.trouble}")

    def worker_failed(self, worker: str, text: str, exit_code: int) -> None:
        """Write the worker's last words, its traceback too."""
        self._write(f"{worker} ended with exit code {exit_code}: {text}")

    def round_closed(self, row: RoundRow, history: History) -> None:
        """Write `round 3/30  task 1/5 ...`."""
        number = sum(self._rounds[: row.task - 1]) + row.round
        accepted = [part for part in row.workers.values() if part.outcome == "accepted"]
        losses = [part.metrics["loss"] for part in accepted if "loss" in part.metrics]
        moved = sum(part.bytes_down + part.bytes_up for part in row.workers.values())
        parts = [
            f"{ROUND_MARK}{number}/{sum(self._rounds)}",
            f"task {row.task}/{len(self._rounds)}",
            f"{len(accepted)} of {len(row.workers)} updates" + (" (degraded)" if row.degraded else ""),
            f"loss {sum(losses) / len(losses):.4f}" if losses else "",
            f"accuracy {percent(_share(row.counts))}" if row.counts else "",
            size(moved),
            f"{sum(row.seconds.values()):.1f} s",
        ]
        self._write("  ".join(part for part in parts if part))

    def task_closed(self, row: TaskRow, history: History) -> None:
        """Write `task 1/5 done: ...`."""
        self._write(task_line(from_history(self._classes, history), row.task, len(self._rounds)))


def task_line(matrix: AccuracyMatrix, task: int, tasks: int) -> str:
    """Return the line that says what `task` left behind."""
    if not matrix.seen(task):
        return f"{TASK_MARK}{task}/{tasks} done, not evaluated: only the workers know model and data"
    parts = [
        f"accuracy {percent(accuracy(matrix, task))} over {len(matrix.seen(task))} classes",
        f"newest {percent(task_accuracy(matrix, task, task))}",
    ]
    rate = forget_rate(matrix, task)
    if rate is not None:
        parts.append(f"forget rate {percent(rate)}")
    return f"{TASK_MARK}{task}/{tasks} done: {', '.join(parts)}"


def say(text: str) -> None:
    """Print a line of the process's log at once."""
    print(text, flush=True)


def percent(share: float | None) -> str:
    """Return `93.1%`, or `-` where there is nothing to show."""
    return "-" if share is None else f"{100 * share:.1f}%"


def size(number: float) -> str:
    """Return a number of bytes with a unit: `1.5 MB` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _share(counts: Counts | None) -> float | None:
    """Return the micro-average accuracy over seen classes (those that have a count of right predictions)."""
    if counts is None:
        return None
    total = sum(counts.total.get(label, 0) for label in counts.right)
    return sum(counts.right.values()) / total if total else None
