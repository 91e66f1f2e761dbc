"""The live status of a run: the aggregator's events, folded into the shape that `.status` of a job has.

The operator copies it from `/v1/status`, the local runner shows it, so both say the same. Keys and number
formats are those of the API: camelCase, counts as integers, ratios as decimal strings. Tasks and rounds count
from 1; `progress.round` and `rounds` count over the whole run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from engram.federation.history import Faults, History, RoundRow, TaskRow, WorkerState
from engram.federation.messages import Heartbeat, Hello, Reject
from engram.metrics.matrix import AccuracyMatrix, from_history
from engram.metrics.measures import measure, task_accuracy
from engram.metrics.worker_view import WorkerView, shortened, timestamp
from engram.spec.names import Phase, Stage

WORKERS_SHOWN = 20
"""`workerStatuses` and `tasks` are bounded, as in the API: those not fine, and the newest, first."""

PHASES = {"complete": Phase.SUCCEEDED, "failed": Phase.FAILED, "suspended": Phase.SUSPENDED}
METRICS = {
    "accuracy": "accuracy",
    "average_incremental_accuracy": "averageIncrementalAccuracy",
    "forget_rate": "forgetRate",
    "forgetting": "forgetting",
    "backward_transfer": "backwardTransfer",
    "forward_transfer": "forwardTransfer",
}


class LiveStatus:
    """An Observer that remembers where the run is; `as_dict` may be called from any thread.

    Args:
        classes: label ids of each trained task, in learning order.
        rounds: rounds of each task.
        workers: (name, group) of every worker that the job expects.
        clock: seconds since the epoch; used for `lastSeenTime` and the estimate, never for results.
        memory: most bytes that this process has used; 0: not known.
    """

    def __init__(
        self,
        classes: Sequence[Sequence[int]],
        rounds: Sequence[int],
        workers: Sequence[tuple[str, str]],
        clock: Callable[[], float] = time.time,
        memory: Callable[[], int] = lambda: 0,
    ) -> None:
        self.classes = [list(task) for task in classes]
        self.rounds = list(rounds)
        self.workers = {name: WorkerView(name, group) for name, group in workers}
        self.desired = len(self.workers)
        self.phase, self.message = Phase.STARTING, ""
        self.stage = Stage.GATHERING
        self.task, self.round = 0, 0
        self.matrix = AccuracyMatrix((), (), ())
        self.measures: dict[str, Any] = {}
        self.loss: float | None = None
        self.faults = Faults()
        self.closed = 0
        self._round_seconds: list[float] = []
        self._task_seconds: list[float] = []
        self._tasks: list[dict[str, Any]] = []
        self._rejected: dict[str, int] = {}
        self._round_started: float | None = None
        self._clock, self._memory = clock, memory
        self._lock = threading.Lock()

    def restored(self, history: History) -> None:
        """Take over the history of a run that was resumed, before its next round."""
        with self._lock:
            self._take_over(history)

    def worker_changed(self, worker: str, state: WorkerState) -> None:
        """A worker's state as the aggregator sees it."""
        with self._lock:
            view = self._view(worker)
            if state in ("connected", "training") and view.state == "disconnected":
                view.reconnects += 1
            view.state, view.last_seen = state, self._clock() if state != "disconnected" else view.last_seen
            if state == "training":
                view.progress, view.round = 0.0, self._overall(self.task, self.round)

    def introduced(self, worker: str, hello: Hello) -> None:
        """A worker was accepted: what it says of itself, and of endpoints that it could not reach."""
        with self._lock:
            view = self._view(worker)
            view.device = hello.device or view.device
            view.message = shortened(hello.trouble)

    def worker_failed(self, worker: str, text: str, exit_code: int) -> None:
        """A worker has said why it is about to end; its first line is the sentence."""
        with self._lock:
            self._view(worker).message = shortened(text.partition("\n")[0])

    def resized(self, desired: int) -> None:
        """The job's groups have `desired` workers from now on."""
        with self._lock:
            self.desired = desired

    def heartbeat(self, worker: str, beat: Heartbeat) -> None:
        """A sign of life with progress and memory."""
        with self._lock:
            view = self._view(worker)
            view.last_seen, view.progress = self._clock(), beat.progress
            view.memory_peak = max(view.memory_peak, beat.memory_bytes)
            view.loss = view.loss if beat.loss is None else beat.loss

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int) -> None:
        """Bytes on the wire."""
        with self._lock:
            view = self._view(worker)
            if direction == "down":
                view.bytes_down += size
            else:
                view.bytes_up += size

    def rejected(self, worker: str, reject: Reject) -> None:
        """An answer or a connection was refused."""
        with self._lock:
            self._rejected[reject.reason] = self._rejected.get(reject.reason, 0) + 1
            if worker in self.workers:  # one that may not join is none of the run's
                round = self._overall(reject.task, reject.round or self._rounds_of(reject.task))
                self.workers[worker].refuse(reject.reason, reject.message, round)

    def round_started(self, task: int, round: int) -> None:
        """The weights go out."""
        with self._lock:
            self._reach(Stage.ROUNDS, task, round)
            self._round_started = self._clock()
            for view in self.workers.values():
                view.progress = 0.0

    def consolidation_started(self, task: int) -> None:
        """The task's rounds are closed."""
        with self._lock:
            self._reach(Stage.CONSOLIDATING, task, self._rounds_of(task))

    def evaluation_started(self, task: int, round: int) -> None:
        """The global model is tested."""
        with self._lock:
            self._reach(Stage.EVALUATING, task, round or self._rounds_of(task))

    def round_closed(self, row: RoundRow, history: History) -> None:
        """A round is aggregated and durable."""
        with self._lock:
            for name, part in row.workers.items():
                view = self._view(name)
                if part.outcome != "absent":
                    view.accepted = self._overall(row.task, row.round)
                if part.outcome == "accepted":
                    view.round, view.progress = self._overall(row.task, row.round), 1.0
                    view.loss = part.metrics.get("loss", view.loss)
            self._take_over(history)

    def task_closed(self, row: TaskRow, history: History) -> None:
        """A task is consolidated, evaluated and durable."""
        with self._lock:
            self._take_over(history)

    def finished(self, reason: str, message: str, history: History) -> None:
        """The run is over: complete, failed or suspended."""
        with self._lock:
            self._take_over(history)
            self.phase, self.message, self.stage = PHASES.get(reason, Phase.FAILED), message, Stage.OVER

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-able data in the shape of the API's `.status`."""
        with self._lock:
            return {
                "phase": self.phase,
                "stage": self.stage,
                "message": self.message,
                "display": self._display(),
                "progress": self._progress(),
                "aggregator": {"memoryBytes": used} if (used := self._memory()) else {},
                "workers": self._worker_counts(),
                "workerStatuses": self._worker_statuses(),
                "metrics": self._metrics(),
                "tasks": self._tasks[-WORKERS_SHOWN:],
                "transfer": {
                    "bytesDown": sum(view.bytes_down for view in self.workers.values()),
                    "bytesUp": sum(view.bytes_up for view in self.workers.values()),
                },
                "faults": {
                    "reconnects": sum(list(self.faults.reconnects.values())),
                    "rejected": sum(self._rejected.values()),
                    "roundsDegraded": self.faults.rounds_degraded,
                    "resumes": self.faults.resumes,
                },
            }

    def seconds_left(self) -> float | None:
        """Return the estimated seconds to the end, from the rounds and task ends measured so far."""
        with self._lock:
            return self._seconds_left()

    def _view(self, worker: str) -> WorkerView:
        if worker not in self.workers:
            # trainworker-<group>-<index>; an elastic group may bring workers that the start did not know.
            group = worker.rpartition("-")[0].rpartition("-")[2]
            self.workers[worker] = WorkerView(worker, group)
        return self.workers[worker]

    def _reach(self, stage: Stage, task: int, round: int) -> None:
        self.phase, self.stage, self.task, self.round = Phase.RUNNING, stage, task, round

    def _rounds_of(self, task: int) -> int:
        return self.rounds[task - 1] if 0 < task <= len(self.rounds) else 0

    def _overall(self, task: int, round: int) -> int:
        return sum(self.rounds[: task - 1]) + round if task else 0

    def _take_over(self, history: History) -> None:
        self.faults = history.faults
        self.closed = len(history.rounds)
        self._round_seconds = [sum(row.seconds.values()) for row in history.rounds[-20:]]
        if history.rounds:
            last = history.rounds[-1]
            self.task, self.round = max((self.task, self.round), (last.task, last.round))
            self.loss = weighted_loss(last)
        if len(history.tasks) != self.matrix.tasks:
            self.matrix = from_history(self.classes, history)
            self.measures = measure(self.matrix)
            self._tasks = [self._task_entry(row, history) for row in history.tasks]
            self._task_seconds = [
                sum(value for key, value in row.seconds.items() if key != "total") for row in history.tasks
            ]

    def _task_entry(self, row: TaskRow, history: History) -> dict[str, Any]:
        """Return `status.tasks[]`: accuracy R[t][t] when learned, accuracyNow R[T][t], forgetRate f_t."""
        parts = [row.workers, *(other.workers for other in history.rounds if other.task == row.task)]
        transferred = sum(part.bytes_down + part.bytes_up for found in parts for part in found.values())
        entry: dict[str, Any] = {
            "index": row.task,
            "classes": row.classes,
            "seconds": round(row.seconds.get("total", 0.0)),
            "bytes": transferred,
        }
        for key, value in (
            ("accuracy", task_accuracy(self.matrix, row.task, row.task)),
            ("accuracyNow", task_accuracy(self.matrix, self.matrix.tasks, row.task)),
            ("forgetRate", self.measures["forget_rate_by_task"][row.task - 1]),
        ):
            if value is not None:
                entry[key] = decimal(value)
        return entry

    def _metrics(self) -> dict[str, str]:
        found = ((new, self.measures.get(old)) for old, new in METRICS.items())
        return {name: decimal(value) for name, value in found if value is not None}

    def _percent(self) -> float:
        total = sum(self.rounds)
        done = float(self.closed)
        training = [view.progress for view in self.workers.values() if view.state == "training"]
        if training and self._overall(self.task, self.round) > self.closed:
            done += min(0.99, sum(training) / len(training))
        return min(100.0, 100.0 * done / total) if total else 0.0

    def _progress(self) -> dict[str, Any]:
        progress: dict[str, Any] = {
            "task": self.task,
            "tasks": len(self.classes),
            "round": self._overall(self.task, self.round),
            "rounds": sum(self.rounds),
            "percent": int(self._percent()),
        }
        left = self._seconds_left()
        if left is not None:
            progress["secondsLeft"] = round(left)
            progress["estimatedCompletionTime"] = timestamp(self._clock() + left)
        return progress

    def _seconds_left(self) -> float | None:
        if self.phase != Phase.RUNNING or not self._round_seconds:
            return None
        per_round = sum(self._round_seconds) / len(self._round_seconds)
        left = (sum(self.rounds) - self.closed) * per_round
        if self._task_seconds:
            tasks = len(self.classes) - len(self._task_seconds)
            left += tasks * sum(self._task_seconds) / len(self._task_seconds)
        if self._round_started is not None and self._overall(self.task, self.round) > self.closed:
            left -= min(per_round, max(0.0, self._clock() - self._round_started))
        return max(0.0, left)

    def _worker_counts(self) -> dict[str, int]:
        states = [view.state for view in self.workers.values()]
        connected = sum(state in ("connected", "training", "uploading") for state in states)
        return {
            "desired": self.desired,
            "running": connected + states.count("disconnected"),
            "connected": connected,
            "disconnected": states.count("disconnected"),
            "failed": states.count("failed"),
        }

    def _worker_statuses(self) -> list[dict[str, Any]]:
        known = [view for view in self.workers.values() if view.state is not None]
        known.sort(key=lambda view: view.rank)
        return [view.as_dict() for view in known[:WORKERS_SHOWN]]

    def _display(self) -> dict[str, str]:
        here = ("connected", "training", "uploading", "finished")
        workers = sum(view.state in here for view in self.workers.values())
        display = {
            "task": f"{self.task}/{len(self.classes)}",
            "round": f"{self._overall(self.task, self.round)}/{sum(self.rounds)}",
            "workers": f"{workers}/{self.desired}",
        }
        now = self.measures.get("accuracy")
        lost = self.measures.get("forget_rate")
        if now is not None:
            display["accuracy"] = f"{100 * now:.1f}%"
        if lost is not None:
            display["forgetting"] = f"{100 * lost:.1f}%"
        return display


def weighted_loss(row: RoundRow) -> float | None:
    """Return the mean loss of a round's accepted updates, weighted by their samples; None without any."""
    parts = [
        (part.metrics["loss"], part.samples)
        for part in row.workers.values()
        if part.outcome == "accepted" and "loss" in part.metrics
    ]
    samples = sum(count for _, count in parts)
    return sum(loss * count for loss, count in parts) / samples if samples else None


def decimal(value: float) -> str:
    """Return a ratio as the decimal string that status carries: four places, no exponent, no minus zero."""
    text = f"{value:.4f}"
    return text.lstrip("-") if float(text) == 0 else text
