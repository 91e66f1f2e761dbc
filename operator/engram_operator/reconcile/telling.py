"""What status tells of a run under way beside its conditions."""

from __future__ import annotations

from engram_operator.model import Object
from engram_operator.reconcile.run import Run
from engram_operator.status import Content
from engram_operator.status.census import Census, take_census
from engram_operator.status.figures import Figures
from engram_operator.status.finding import AGGREGATOR
from engram_operator.status.workers import counts, worker_statuses


def census_of(run: Run) -> Census:
    """Return who is there."""
    return take_census(run.held.replicas, run.job_names, run.observed, run.now)


def content_of(run: Run, census: Census, figures: Figures) -> Content:
    """Return what is known of the run; times are the caller's."""
    desired = run.held.desired
    counted = counts(census, figures, desired)
    there = counted.get("connected", counted["running"]) if figures.live else counted["running"]
    workers = f"{there}/{desired}"
    if figures.ended:  # who took part: nobody runs any more
        workers = figures.display.get("workers", workers)
    return Content(
        resumes=figures.resumes,
        display={**figures.display, "workers": workers},
        progress=figures.progress,
        aggregator=_aggregator(run, census, figures),
        workers=counted,
        worker_statuses=tuple(worker_statuses(census, figures)),
        metrics=figures.metrics,
        tasks=figures.tasks,
    )


_STATES = {
    "absent": "Pending",
    "pending": "Pending",
    "running": "Running",
    "stopped": "Failed",
    "done": "Done",
}


def _aggregator(run: Run, census: Census, figures: Figures) -> Object:
    member = census.aggregator
    found: Object = {"endpoint": run.endpoint, "state": _STATES.get(member.state, "Failed")}
    # Also of a pod that is gone: the report of a checkpoint on a node's own disk is made there.
    node = member.pod.node if member.pod is not None else ""
    found["node"] = node or str((run.status.get("aggregator") or {}).get("node") or "")
    found["restarts"] = member.restarts
    if AGGREGATOR in figures.memory:
        found["memoryBytes"] = figures.memory[AGGREGATOR]
    if member.finding is not None:
        found["message"] = member.finding.message
    return {key: value for key, value in found.items() if value != ""}
