"""Where the record of a run is found when the run has ended, and for how long the aggregator serves it.

With a checkpoint that outlives the aggregator's pod the record lies there. Else only the aggregator has it,
and serves it until the report's pod has fetched it.
"""

from __future__ import annotations

from typing import Literal

from engram.spec.job import FederatedIncrementalJob
from engram_operator.manifests.volumes import checkpoint_is_durable

Source = Literal["checkpoint", "aggregator"]


def record_source(job: FederatedIncrementalJob) -> Source | None:
    """Return where the report's pod finds the record; None: nowhere, so that there is no report."""
    if checkpoint_is_durable(job):
        return "checkpoint"
    return "aggregator" if job.spec.report.grace_seconds else None


def record_grace(job: FederatedIncrementalJob) -> int:
    """Return for how many seconds the aggregator serves its record at the end, until it is fetched."""
    return job.spec.report.grace_seconds if record_source(job) == "aggregator" else 0
