"""The operator's own metrics, and the final values of every job object that exists.

Counted as things happen or read from the table of jobs when a scrape asks; a registry of our own, so that
nothing of the process leaks in. Finished jobs stay on the dashboards for as long as their objects exist.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from engram.spec.names import METRICS, MetricName, Phase
from engram_operator.model import Object, parse_time
from engram_operator.tables import JobTable

Result = Literal["changed", "unchanged", "error"]
RESULTS: tuple[Result, ...] = ("changed", "unchanged", "error")

SECONDS_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

_FINAL = {
    MetricName.JOB_ACCURACY: "accuracy",
    MetricName.JOB_FORGET_RATE: "forgetRate",
}
"""Metric and key of `status.metrics`."""


class Metrics(Collector):
    """What /metrics shows; `registry` is to be exposed.

    Args:
        table: the jobs.
        age: seconds since the newest event.
    """

    def __init__(self, table: JobTable, age: Callable[[], float]) -> None:
        self._table, self._age = table, age
        self._results: dict[Result, int] = dict.fromkeys(RESULTS, 0)
        self._seconds, self._buckets = 0.0, [0] * (len(SECONDS_BUCKETS) + 1)
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def reconciled(self, result: Result, seconds: float) -> None:
        """Count one reconcile."""
        self._results[result] += 1
        self._seconds += seconds
        self._buckets[bisect_left(SECONDS_BUCKETS, seconds)] += 1

    def collect(self) -> Iterator[Family]:
        """Yield what a scrape shows."""
        yield self._reconciles()
        yield self._reconcile_seconds()
        yield from self._jobs()

    def _reconciles(self) -> Family:
        metric = METRICS[MetricName.OPERATOR_RECONCILES]
        family = CounterMetricFamily(metric.base_name, metric.help, labels=metric.labels)
        for result, count in self._results.items():
            family.add_metric([result], count)
        return family

    def _reconcile_seconds(self) -> Family:
        metric = METRICS[MetricName.OPERATOR_RECONCILE_SECONDS]
        bounds = [*map(str, SECONDS_BUCKETS), "+Inf"]
        counts = list(zip(bounds, accumulate(self._buckets), strict=True))
        return HistogramMetricFamily(metric.base_name, metric.help, buckets=counts, sum_value=self._seconds)

    def _jobs(self) -> Iterator[Family]:
        families = {
            name: GaugeMetricFamily(METRICS[name].base_name, METRICS[name].help, labels=METRICS[name].labels)
            for name in (
                MetricName.OPERATOR_JOBS,
                MetricName.OPERATOR_LAST_EVENT_AGE_SECONDS,
                MetricName.JOB_INFO,
                MetricName.JOB_COMPLETION_TIMESTAMP_SECONDS,
                *_FINAL,
            )
        }
        phases = dict.fromkeys(Phase, 0)
        for job in self._table.values():
            phase = Phase((job.get("status") or {}).get("phase") or Phase.PENDING)
            phases[phase] += 1
            _describe(families, job, phase)
        for name, count in phases.items():
            families[MetricName.OPERATOR_JOBS].add_metric([str(name)], count)
        families[MetricName.OPERATOR_LAST_EVENT_AGE_SECONDS].add_metric([], self._age())
        yield from families.values()


def _describe(families: Mapping[MetricName, GaugeMetricFamily], job: Object, phase: Phase) -> None:
    """Add the series of one job."""
    spec, status = job.get("spec") or {}, job.get("status") or {}
    labels = [job["metadata"]["namespace"], job["metadata"]["name"]]
    info = [_name(spec.get("algorithm")), _name(spec.get("dataset")), str(phase)]
    families[MetricName.JOB_INFO].add_metric([*labels, *info], 1)
    ended = parse_time(status.get("completionTime"))
    if ended is None:
        return
    families[MetricName.JOB_COMPLETION_TIMESTAMP_SECONDS].add_metric(labels, ended.timestamp())
    for name, key in _FINAL.items():
        value = (status.get("metrics") or {}).get(key)
        if value is not None:
            families[name].add_metric(labels, float(value))


def _name(part: Mapping[str, Any] | None) -> str:
    return str((part or {}).get("name") or "")
