"""What a Prometheus saw of a run, merged with what the run's record kept: one section of the report. Pure.

The record is exact about rounds and knows nothing of machines; Prometheus knows memory and GPUs and has
holes, while an edge was cut off or nobody scraped. A worker sends what it kept when its connection is back,
so a loss that Prometheus missed is in the record.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engram.report.formats import evenly
from engram.report.record import Record
from engram.spec.names import MetricName, WorkerCondition

MEMORY, GPU_MEMORY, GPU, AWAY, LOSS = "memory", "gpu_memory", "gpu", "disconnected", "loss"

QUERIES: Mapping[str, str] = {
    MEMORY: f"max by (worker) (max_over_time({MetricName.WORKER_MEMORY_BYTES}{{RUN}}[WINDOW]))",
    GPU_MEMORY: f"max by (worker) (max_over_time({MetricName.WORKER_GPU_MEMORY_BYTES}{{RUN}}[WINDOW]))",
    GPU: f"max by (worker) (avg_over_time({MetricName.WORKER_GPU_UTILIZATION_RATIO}{{RUN}}[WINDOW]))",
    AWAY: f"max by (worker) (last_over_time({MetricName.WORKER_STATE}"
    f'{{RUN,state="{WorkerCondition.DISCONNECTED}"}}[WINDOW]))',
    LOSS: f"max by (worker) (last_over_time({MetricName.WORKER_LOSS}{{RUN}}[WINDOW]))",
}
"""Range queries by key: RUN stands for the run's labels, WINDOW for how far a point looks back. `max by`
because an aggregator's old pod and its new one may each have a series."""

MOST_LOSSES = 200
"""Points of a worker's loss in the report."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Telemetry:
    """What was asked and answered."""

    source: str
    """Address of the Prometheus."""
    start: float
    end: float
    """Of the run, in seconds since the epoch."""
    step: float
    window: float
    """Seconds that each point looks back."""
    series: Mapping[str, Mapping[str, Points]]
    """Key of QUERIES -> worker -> points."""


def merged(telemetry: Telemetry, record: Record) -> dict[str, Any]:
    """Return the section `telemetry` of the report document."""
    workers = [_worker(worker.name, telemetry, record) for worker in record.workers]
    return {
        "source": telemetry.source,
        "step_seconds": telemetry.step,
        "workers": workers,
        "kept": sum(row["kept"] for row in workers),
    }


def _worker(name: str, telemetry: Telemetry, record: Record) -> dict[str, Any]:
    def values(key: str) -> list[float]:
        return [value for _, value in points_of(name, key, telemetry)]

    memory, gpu_memory, gpu, away = (values(key) for key in (MEMORY, GPU_MEMORY, GPU, AWAY))
    losses = losses_of(name, telemetry, record)
    return {
        "name": name,
        "peak_memory_bytes": max(memory, default=None),
        "peak_gpu_memory_bytes": max(gpu_memory, default=None),
        "mean_gpu_utilization": sum(gpu) / len(gpu) if gpu else None,
        "disconnected_seconds": sum(telemetry.step for value in away if value > 0) if away else None,
        "loss": [losses[index] for index in evenly(len(losses), MOST_LOSSES)],
        "kept": sum(source == "record" for _, _, source in losses),
    }


def points_of(worker: str, key: str, telemetry: Telemetry) -> list[tuple[float, float]]:
    """Return what was seen of a worker, in order and not beyond the end of the run.

    Points after it are needed, for the last values are scraped when all is done, and each tells the same: the
    first of them stands at the end.
    """
    found = sorted(telemetry.series.get(key, {}).get(worker, ()))
    last = bisect_right(found, (telemetry.end, math.inf))
    return [*found[:last], *((telemetry.end, value) for _, value in found[last : last + 1])]


def losses_of(worker: str, telemetry: Telemetry, record: Record) -> list[tuple[float, float, str]]:
    """Return (seconds since the start, loss, `prometheus` or `record`) in order.

    The record's count where Prometheus has nothing within a window before or after them.
    """
    seen = points_of(worker, LOSS, telemetry)
    moments = [moment for moment, _ in seen]
    found = [(moment, value, "prometheus") for moment, value in seen]
    for row in record.history.rounds:
        part = row.workers.get(worker)
        if part is None or part.outcome != "accepted" or "loss" not in part.metrics:
            continue
        moment = row.started + sum(row.seconds.get(phase, 0.0) for phase in ("broadcast", "train", "upload"))
        place = bisect_left(moments, moment)
        near = [
            other
            for other in moments[max(0, place - 1) : place + 1]
            if abs(other - moment) <= telemetry.window
        ]
        if not near:
            found.append((moment, part.metrics["loss"], "record"))
    return [(round(moment - telemetry.start, 3), value, source) for moment, value, source in sorted(found)]
