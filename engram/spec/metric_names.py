"""The metrics that engram exposes: name, type, labels, help. Exporter, dashboards, alerts and docs use these.

Base units, `_total` for counters, no label that grows with time (no round, no uid). `namespace` and `job` are
labels of every metric of a run and come before those listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

MetricKind = Literal["gauge", "counter", "histogram"]

RUN_LABELS = ("namespace", "job")
"""Labels that every metric of a run carries first."""

ROUND_SECONDS_BUCKETS = (
    0.01,
    0.03,
    0.1,
    0.3,
    1.0,
    3.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1800.0,
    3600.0,
)
"""Upper bounds, in seconds, of engram_round_duration_seconds."""


class MetricName(StrEnum):
    """Names as Prometheus stores them (counters with `_total`)."""

    TASK_ACCURACY = "engram_task_accuracy"
    CLASS_ACCURACY = "engram_class_accuracy"
    ACCURACY = "engram_accuracy"
    AVERAGE_INCREMENTAL_ACCURACY = "engram_average_incremental_accuracy"
    FORGET_RATE = "engram_forget_rate"
    FORGETTING = "engram_forgetting"
    BACKWARD_TRANSFER = "engram_backward_transfer"
    FORWARD_TRANSFER = "engram_forward_transfer"
    TASK = "engram_task"
    TASKS = "engram_tasks"
    ROUND = "engram_round"
    ROUNDS = "engram_rounds"
    PROGRESS_RATIO = "engram_progress_ratio"
    ROUND_DURATION_SECONDS = "engram_round_duration_seconds"
    TRANSFER_BYTES = "engram_transfer_bytes_total"
    WORKER_STATE = "engram_worker_state"
    WORKER_HEARTBEAT_AGE_SECONDS = "engram_worker_heartbeat_age_seconds"
    WORKER_TRAIN_SECONDS = "engram_worker_train_seconds"
    WORKER_SAMPLES = "engram_worker_samples_total"
    WORKER_LOSS = "engram_worker_loss"
    WORKER_MEMORY_BYTES = "engram_worker_memory_bytes"
    WORKER_GPU_MEMORY_BYTES = "engram_worker_gpu_memory_bytes"
    WORKER_GPU_UTILIZATION_RATIO = "engram_worker_gpu_utilization_ratio"
    PSEUDO_LABEL_ACCEPT_RATIO = "engram_pseudo_label_accept_ratio"
    PSEUDO_LABEL_ACCURACY = "engram_pseudo_label_accuracy"
    UPDATES_REJECTED = "engram_updates_rejected_total"
    RECONNECTS = "engram_reconnects_total"
    ROUNDS_DEGRADED = "engram_rounds_degraded_total"
    RESUMES = "engram_resumes_total"
    OPERATOR_RECONCILES = "engram_operator_reconciles_total"
    OPERATOR_RECONCILE_SECONDS = "engram_operator_reconcile_seconds"
    OPERATOR_JOBS = "engram_operator_jobs"
    OPERATOR_LAST_EVENT_AGE_SECONDS = "engram_operator_last_event_age_seconds"
    JOB_ACCURACY = "engram_job_accuracy"
    JOB_FORGET_RATE = "engram_job_forget_rate"
    JOB_INFO = "engram_job_info"
    JOB_COMPLETION_TIMESTAMP_SECONDS = "engram_job_completion_timestamp_seconds"


@dataclass(frozen=True)
class Metric:
    """One metric: what a scrape shows, and what the help text says."""

    name: MetricName
    kind: MetricKind
    labels: tuple[str, ...]
    """All labels in order, `namespace` and `job` included where they apply."""
    help: str

    @property
    def base_name(self) -> str:
        """The name without `_total`, as prometheus_client wants to be given a counter."""
        return self.name.removesuffix("_total") if self.kind == "counter" else str(self.name)


def _run(name: MetricName, kind: MetricKind, labels: str, text: str) -> Metric:
    """Return a metric of a run, with `namespace` and `job` before its own labels."""
    return Metric(name, kind, (*RUN_LABELS, *labels.split()), text)


_N = MetricName
_RUN_METRICS: tuple[Metric, ...] = (
    _run(
        _N.TASK_ACCURACY,
        "gauge",
        "task after_task",
        "Accuracy (0..1) of the global model on the classes of `task`, measured after `after_task`.",
    ),
    _run(_N.CLASS_ACCURACY, "gauge", "class", "Accuracy (0..1) on each class after the newest task."),
    _run(_N.ACCURACY, "gauge", "", "Accuracy (0..1) over the test samples of all classes seen."),
    _run(_N.AVERAGE_INCREMENTAL_ACCURACY, "gauge", "", "Mean over the tasks of the accuracy after each."),
    _run(_N.FORGET_RATE, "gauge", "", "Mean drop of old classes from their best accuracy; signed."),
    _run(_N.FORGETTING, "gauge", "", "Mean drop of old tasks from their best accuracy (Chaudhry 2018)."),
    _run(_N.BACKWARD_TRANSFER, "gauge", "", "Mean change of old tasks since they were learned (GEM 2017)."),
    _run(_N.FORWARD_TRANSFER, "gauge", "", "Mean head start of tasks not yet learned (GEM 2017)."),
    _run(_N.TASK, "gauge", "", "Task that is running, from 1."),
    _run(_N.TASKS, "gauge", "", "Number of tasks of the job."),
    _run(_N.ROUND, "gauge", "", "Round that is running, from 1, counted over the whole run."),
    _run(_N.ROUNDS, "gauge", "", "Number of rounds of the whole run."),
    _run(_N.PROGRESS_RATIO, "gauge", "", "Share (0..1) of the rounds that are closed."),
    _run(
        _N.ROUND_DURATION_SECONDS,
        "histogram",
        "phase",
        "Seconds of each phase of a round: broadcast, train, upload, aggregate, evaluate, checkpoint.",
    ),
    _run(_N.TRANSFER_BYTES, "counter", "direction worker", "Bytes on the wire, by direction."),
    _run(_N.WORKER_STATE, "gauge", "worker state", "1 for the state that a worker is in, 0 for the others."),
    _run(_N.WORKER_HEARTBEAT_AGE_SECONDS, "gauge", "worker", "Seconds since the last sign of life."),
    _run(_N.WORKER_TRAIN_SECONDS, "gauge", "worker", "Seconds of local training in the newest round."),
    _run(_N.WORKER_SAMPLES, "counter", "worker", "Training samples used so far."),
    _run(_N.WORKER_LOSS, "gauge", "worker", "Newest training loss."),
    _run(_N.WORKER_MEMORY_BYTES, "gauge", "worker", "Resident memory of the worker's process."),
    _run(_N.WORKER_GPU_MEMORY_BYTES, "gauge", "worker", "GPU memory that the worker has reserved."),
    _run(_N.WORKER_GPU_UTILIZATION_RATIO, "gauge", "worker", "Share (0..1) of time that the GPU was busy."),
    _run(_N.PSEUDO_LABEL_ACCEPT_RATIO, "gauge", "worker", "Share (0..1) of unlabelled samples accepted."),
    _run(
        _N.PSEUDO_LABEL_ACCURACY,
        "gauge",
        "worker",
        "Share (0..1) of accepted pseudo-labels that are right, where the hidden labels are known.",
    ),
    _run(_N.UPDATES_REJECTED, "counter", "reason", "Updates and connections that were refused."),
    _run(_N.RECONNECTS, "counter", "", "Connections that workers opened again."),
    _run(_N.ROUNDS_DEGRADED, "counter", "", "Rounds closed by their deadline with the quorum only."),
    _run(_N.RESUMES, "counter", "", "Times that the aggregator continued from a checkpoint."),
)
_OPERATOR_METRICS: tuple[Metric, ...] = (
    Metric(_N.OPERATOR_RECONCILES, "counter", ("result",), "Reconciles: changed, unchanged, error."),
    Metric(_N.OPERATOR_RECONCILE_SECONDS, "histogram", (), "Seconds of one reconcile."),
    Metric(_N.OPERATOR_JOBS, "gauge", ("phase",), "Jobs in each phase."),
    Metric(_N.OPERATOR_LAST_EVENT_AGE_SECONDS, "gauge", (), "Seconds since the newest event or resync."),
    _run(_N.JOB_ACCURACY, "gauge", "", "Final accuracy (0..1) of a job whose object exists."),
    _run(_N.JOB_FORGET_RATE, "gauge", "", "Final forget rate of a job whose object exists."),
    _run(_N.JOB_INFO, "gauge", "algorithm dataset phase", "1; says what a job is and where it stands."),
    _run(_N.JOB_COMPLETION_TIMESTAMP_SECONDS, "gauge", "", "When the job ended, in seconds since the epoch."),
)

METRICS: dict[MetricName, Metric] = {metric.name: metric for metric in (*_RUN_METRICS, *_OPERATOR_METRICS)}
"""Every metric, by name: those of a run first, then the operator's."""
