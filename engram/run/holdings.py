"""Whether the labels and the unlabelled samples that a job needs are there, by what its workers hold.

A computed split refuses a class without a label itself. Where workers own their data (partition local) only
what they hold says it: read here on one machine, told by each worker's hello on a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engram.errors import ConfigurationError
from engram.spec import FederatedIncrementalJob
from engram.spec.algorithm_rules import unlabelled_switch

NAMED = 3
"""So many workers are named in a message."""


@dataclass(frozen=True)
class Holding:
    """What a worker holds: label id -> number of samples."""

    worker: str
    labelled: Mapping[int, int]
    unlabelled: Mapping[int, int]


def check_holdings(
    job: FederatedIncrementalJob,
    tasks: Sequence[Sequence[int]],
    names: Sequence[str],
    holdings: Sequence[Holding],
) -> None:
    """Raise ConfigurationError for a class of `tasks` of which nobody has a label though somebody has
    samples, and where nobody has an unlabelled sample though the algorithm needs them.

    `names` are those of the classes, by label id.
    """
    if missing := without_label(tasks, names, holdings):
        raise ConfigurationError(
            missing[0],
            field="spec.dataset.labelRatio",
            remedy="give a group that holds images of it a labelRatio above 0",
        )
    off = unlabelled_switch(job.spec)
    if off and holdings and not any(sum(holding.unlabelled.values()) for holding in holdings):
        ratios = sorted({worker.label_ratio for worker in job.workers()})
        more = ", raise samplesPerClass" if job.spec.dataset.samples_per_class else ""
        shown = ", ".join(f"{ratio:g}" for ratio in ratios)
        raise ConfigurationError(
            f"{shown} leaves no worker with an unlabelled sample of any class, and {job.spec.algorithm.name} "
            "with these parameters uses them",
            field="spec.dataset.labelRatio",
            remedy=f"write less, there or for a group that has its own{more}, or write "
            f"algorithm.parameters.{off}",
        )


def without_label(
    tasks: Sequence[Sequence[int]], names: Sequence[str], holdings: Sequence[Holding]
) -> list[str]:
    """Return a sentence on each class that workers hold samples of, and none a label."""
    found = []
    for number, task in enumerate(tasks, start=1):
        for label in task:
            owners = [holding.worker for holding in holdings if holding.unlabelled.get(label)]
            if owners and not any(holding.labelled.get(label) for holding in holdings):
                more = f" and {len(owners) - NAMED} more" if len(owners) > NAMED else ""
                hold = "hold" if len(owners) > 1 else "holds"
                found.append(
                    f"class {label} ({names[label]}) of task {number} has no label on any worker: only "
                    f"{', '.join(owners[:NAMED])}{more} {hold} images of it, and may see no label"
                )
    return found


def without_samples(
    tasks: Sequence[Sequence[int]], names: Sequence[str], holdings: Sequence[Holding]
) -> list[str]:
    """Return a sentence on each class that nobody holds a sample of."""
    return [
        f"class {label} ({names[label]}) has no training samples on any worker"
        for task in tasks
        for label in task
        if not any(holding.labelled.get(label) or holding.unlabelled.get(label) for holding in holdings)
    ]
