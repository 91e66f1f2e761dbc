"""What a job with asynchronous rounds (`aggregation.buffer.size` above 0) can ask for."""

from __future__ import annotations

from collections.abc import Iterator

from engram.spec.job import JobSpec
from engram.spec.problems import Problem

COMPARING = ("median", "trimmed-mean", "krum")
"""Rules that compare updates, which must be of the same model for that."""
OFF = "aggregation.buffer.size: 0"


def check_buffer(spec: JobSpec, workers: int) -> Iterator[Problem]:
    """Yield what does not go together with a buffer; `workers`: those that a round asks."""
    aggregation, field = spec.aggregation, "spec.aggregation"
    size = aggregation.buffer.size
    if not size:
        return
    if size > workers:
        yield Problem(
            f"{field}.buffer.size",
            f"{size} can never be reached: each of {workers} workers adds one update to a round at most",
            f"write at most {workers}",
        )
    if isinstance(aggregation.quorum, int) and aggregation.quorum > size:
        yield Problem(
            f"{field}.quorum",
            f"{aggregation.quorum} can never be reached: buffer.size makes a round of {size} updates",
            f"write at most {size}, or a percentage",
        )
    if aggregation.name in COMPARING:
        yield Problem(
            f"{field}.name",
            f"{aggregation.name} compares updates of one model, in a buffer they are of several",
            f"write fedavg, fedavgm or fedadam, or {OFF}",
        )
    if aggregation.client_fraction != 1:
        yield Problem(
            f"{field}.clientFraction",
            "with buffer.size nobody is sampled: every worker trains all the time",
            f"write clientFraction: 1, or {OFF}",
        )
    if aggregation.straggler_factor is not None:
        yield Problem(
            f"{field}.stragglerFactor",
            "with buffer.size nobody is late: an update counts in a later round",
            f"remove it, or write {OFF}",
        )
    if aggregation.compression != "none":
        yield Problem(
            f"{field}.compression",
            "with buffer.size updates travel as they are",
            f"write compression: none, or {OFF}",
        )
    if spec.evaluation.location == "workers" and spec.evaluation.every == "round":
        yield Problem(
            "spec.evaluation.every",
            "with aggregation.buffer.size workers train on while a round closes, evaluation would stop them",
            f"write every: task, or location: aggregator, or {OFF}",
        )
    if spec.protocol == "sedna":
        yield Problem(
            f"{field}.buffer.size",
            "with protocol: sedna every round waits for its workers",
            "write 0, or protocol: engram",
        )
