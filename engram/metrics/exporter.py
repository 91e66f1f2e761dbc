"""The run as Prometheus metrics: an Observer on one side, a collector of its own registry on the other.

Names, types, labels and help come from `engram.spec.names`. Values live in plain dictionaries and become
metric families when a scrape asks for them, so ages are right at that moment and nothing is registered
globally. Labels are bounded: workers, classes and tasks beyond `MOST_*` are left out (their bytes and samples
count under the worker `other`), reasons that the contract does not know count as `other`. What is not defined
yet has no series; zero always means zero.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from engram.federation.history import Faults, History, RoundRow, TaskRow, WorkerRound, WorkerState
from engram.federation.messages import Heartbeat, Hello, Reject
from engram.metrics.matrix import from_history
from engram.metrics.measures import measure, task_accuracy
from engram.spec.metric_names import ROUND_SECONDS_BUCKETS
from engram.spec.names import METRICS, Metric, MetricName, Rejection, RoundPhase

MOST_WORKERS = 1000
MOST_CLASSES = 1000
MOST_TASKS = 50
"""Rows and columns of `engram_task_accuracy`: the newest tasks are kept. With the matrix of 100 tasks alone a
scrape would have more than the 5,000 series that a job of 100 workers may have."""

OTHER = "other"
STATES: tuple[str, ...] = get_args(WorkerState)

SCALARS = {
    MetricName.ACCURACY: "accuracy",
    MetricName.AVERAGE_INCREMENTAL_ACCURACY: "average_incremental_accuracy",
    MetricName.FORGET_RATE: "forget_rate",
    MetricName.FORGETTING: "forgetting",
    MetricName.BACKWARD_TRANSFER: "backward_transfer",
    MetricName.FORWARD_TRANSFER: "forward_transfer",
}
WORKER_GAUGES = {
    MetricName.WORKER_TRAIN_SECONDS: "seconds",
    MetricName.WORKER_LOSS: "loss",
    MetricName.WORKER_GPU_UTILIZATION_RATIO: "gpu_utilization_ratio",
    MetricName.PSEUDO_LABEL_ACCEPT_RATIO: "pseudo_label_accept_ratio",
    MetricName.PSEUDO_LABEL_ACCURACY: "pseudo_label_accuracy",
}
"""Gauges of a worker and the key of `Update.metrics` that each comes from."""

Labels = tuple[str, ...]


class Exporter(Collector):
    """Observer whose `registry` shows the run.

    Args:
        namespace, job: values of the labels that every series carries.
        classes: label ids of each trained task, in learning order.
        rounds: rounds of each task.
        clock: seconds, for ages only.
    """

    def __init__(
        self,
        namespace: str,
        job: str,
        classes: Sequence[Sequence[int]],
        rounds: Sequence[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.namespace, self.job = namespace, job
        self.classes = [list(task) for task in classes]
        self.rounds = list(rounds)
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[MetricName, dict[Labels, float]] = {name: {} for name in METRICS}
        self._durations: dict[str, list[float]] = {}
        self._beats: dict[str, float] = {}
        self._workers: set[str] = set()
        self._rounds_counted = 0
        self._faults = Faults()
        for reason in (*Rejection, OTHER):
            self._set(MetricName.UPDATES_REJECTED, 0, reason)
        self._set(MetricName.TASK, 0)
        self._set(MetricName.TASKS, len(self.classes))
        self._set(MetricName.ROUND, 0)
        self._set(MetricName.ROUNDS, sum(self.rounds))
        self._set(MetricName.PROGRESS_RATIO, 0)
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def restored(self, history: History) -> None:
        """Show the history of a run that was resumed, before its next round."""
        with self._lock:
            self._rounds_counted = len(history.rounds)
            self._take_over(history)

    def worker_changed(self, worker: str, state: WorkerState) -> None:
        """A worker's state as the aggregator sees it."""
        with self._lock:
            if not self._admit(worker):
                return
            for known in STATES:
                self._set(MetricName.WORKER_STATE, float(known == state), worker, known)
            if state != "disconnected":
                self._beats[worker] = self._clock()

    def introduced(self, worker: str, hello: Hello) -> None:
        """Its state says enough."""

    def worker_failed(self, worker: str, text: str, exit_code: int) -> None:
        """Its state says enough."""

    def heartbeat(self, worker: str, beat: Heartbeat) -> None:
        """A sign of life with progress and memory."""
        with self._lock:
            if not self._admit(worker):
                return
            self._beats[worker] = self._clock()
            if beat.memory_bytes:  # Sedna's workers say nothing of it
                self._set(MetricName.WORKER_MEMORY_BYTES, beat.memory_bytes, worker)
                self._set(MetricName.WORKER_GPU_MEMORY_BYTES, beat.gpu_memory_bytes, worker)
            if beat.loss is not None:
                self._set(MetricName.WORKER_LOSS, beat.loss, worker)

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int) -> None:
        """Bytes on the wire."""
        with self._lock:
            self._add(MetricName.TRANSFER_BYTES, size, direction, worker if self._admit(worker) else OTHER)

    def rejected(self, worker: str, reject: Reject) -> None:
        """An answer or a connection was refused."""
        with self._lock:
            known = reject.reason if reject.reason in tuple(Rejection) else OTHER
            self._add(MetricName.UPDATES_REJECTED, 1, known)

    def round_started(self, task: int, round: int) -> None:
        """The weights go out."""
        with self._lock:
            self._set(MetricName.TASK, task)
            self._set(MetricName.ROUND, sum(self.rounds[: task - 1]) + round)

    def consolidation_started(self, task: int) -> None:
        """How long it takes is told at its end."""

    def evaluation_started(self, task: int, round: int) -> None:
        """How long it takes is told at its end."""

    def round_closed(self, row: RoundRow, history: History) -> None:
        """A round is aggregated and durable."""
        with self._lock:
            self._observe_phases(row)
            for worker, part in row.workers.items():
                self._count_part(worker, part)
            self._rounds_counted = len(history.rounds)
            self._faults = history.faults
            self._set(MetricName.PROGRESS_RATIO, self._ratio())

    def task_closed(self, row: TaskRow, history: History) -> None:
        """A task is consolidated, evaluated and durable: what its end took counts as phases, too."""
        with self._lock:
            self._observe_phases(row)
            self._take_over(history)

    def finished(self, reason: str, message: str, history: History) -> None:
        """The run is over: complete, failed or suspended."""
        with self._lock:
            self._take_over(history)

    def collect(self) -> Iterator[Family]:
        """Yield every family of a run that has a series; called by the registry for each scrape."""
        with self._lock:
            now = self._clock()
            self._take_over_faults()  # they happen between rounds, too: when a round hangs they matter most
            self._values[MetricName.WORKER_HEARTBEAT_AGE_SECONDS] = {
                (worker,): max(0.0, now - seen) for worker, seen in self._beats.items()
            }
            families = [self._family(METRICS[name], dict(values)) for name, values in self._values.items()]
            families.append(self._histogram(METRICS[MetricName.ROUND_DURATION_SECONDS]))
        yield from (family for family in families if family.samples)

    def _family(self, metric: Metric, values: Mapping[Labels, float]) -> Family:
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(metric.base_name, metric.help, labels=metric.labels)
        for labels, value in values.items():
            family.add_metric((self.namespace, self.job, *labels), value)
        return family

    def _histogram(self, metric: Metric) -> Family:
        family = HistogramMetricFamily(metric.base_name, metric.help, labels=metric.labels)
        for phase, seconds in self._durations.items():
            *counts, total = seconds
            bounds = [*(format_bound(bound) for bound in ROUND_SECONDS_BUCKETS), "+Inf"]
            family.add_metric(
                (self.namespace, self.job, phase), list(zip(bounds, counts, strict=True)), total
            )
        return family

    def _set(self, name: MetricName, value: float, *labels: str) -> None:
        self._values[name][labels] = value

    def _add(self, name: MetricName, value: float, *labels: str) -> None:
        values = self._values[name]
        values[labels] = values.get(labels, 0.0) + value

    def _observe_phases(self, row: RoundRow | TaskRow) -> None:
        for phase, seconds in row.seconds.items():
            if phase in tuple(RoundPhase):
                self._observe(phase, seconds)

    def _observe(self, phase: str, seconds: float) -> None:
        """Count `seconds` in every bucket that it fits (cumulative); the last entry is the sum."""
        entry = self._durations.setdefault(phase, [0.0] * (len(ROUND_SECONDS_BUCKETS) + 2))
        for index, bound in enumerate((*ROUND_SECONDS_BUCKETS, float("inf"))):
            entry[index] += seconds <= bound
        entry[-1] += seconds

    def _admit(self, worker: str) -> bool:
        if worker not in self._workers and len(self._workers) < MOST_WORKERS:
            self._workers.add(worker)
        return worker in self._workers

    def _count_part(self, worker: str, part: WorkerRound) -> None:
        if part.outcome != "accepted":
            return
        admitted = self._admit(worker)
        self._add(MetricName.WORKER_SAMPLES, part.samples, worker if admitted else OTHER)
        for name, key in WORKER_GAUGES.items():
            if admitted and key in part.metrics:
                self._set(name, part.metrics[key], worker)

    def _ratio(self) -> float:
        total = sum(self.rounds)
        return min(1.0, self._rounds_counted / total) if total else 0.0

    def _take_over(self, history: History) -> None:
        self._faults = history.faults
        self._set(MetricName.PROGRESS_RATIO, self._ratio())
        if history.rounds:
            last = history.rounds[-1]
            if last.task >= self._values[MetricName.TASK][()]:
                self._set(MetricName.TASK, last.task)
                self._set(MetricName.ROUND, len(history.rounds))
        matrix = from_history(self.classes, history)
        if not matrix.tasks:
            return
        measures = measure(matrix)
        for name, key in SCALARS.items():
            if measures[key] is not None:
                self._set(name, measures[key])
        for label, value in list(matrix.accuracy[-1].items())[-MOST_CLASSES:]:
            if value is not None:
                self._set(MetricName.CLASS_ACCURACY, value, str(label))
        first = max(1, matrix.tasks - MOST_TASKS + 1)
        square: dict[Labels, float] = {}
        for after in range(first, matrix.tasks + 1):
            for task in range(first, after + 1):
                found = task_accuracy(matrix, after, task)
                if found is not None:
                    square[str(task), str(after)] = found
        self._values[MetricName.TASK_ACCURACY] = square

    def _take_over_faults(self) -> None:
        faults = self._faults
        # `list` takes the values in one step, while the aggregator's thread may add a worker.
        self._set(MetricName.RECONNECTS, sum(list(faults.reconnects.values())))
        self._set(MetricName.ROUNDS_DEGRADED, faults.rounds_degraded)
        self._set(MetricName.RESUMES, faults.resumes)


def format_bound(bound: float) -> str:
    """Return a bucket's upper bound as Prometheus' own clients write it."""
    return repr(float(bound))
