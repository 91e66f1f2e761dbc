"""Which classes each trained task adds and how many rounds it gets; known without torch, so that a round
machine or a report can be set up by processes that never train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engram.spec import FederatedIncrementalJob, algorithm_parameters
from engram.spec.algorithms import JointParameters


@dataclass(frozen=True)
class TaskPlan:
    """One trained task."""

    classes: tuple[int, ...]
    """Label ids that are new in this task, in learning order."""
    rounds: int
    """Federated rounds of this task."""


def curriculum(job: FederatedIncrementalJob, tasks: Sequence[tuple[int, ...]]) -> tuple[TaskPlan, ...]:
    """Return the trained tasks for the split's `tasks`: one each, or one of all classes for joint upfront.

    Joint upfront trains tasks x roundsPerTask rounds, so that every algorithm has the same number of local
    steps (learning.md, "Fair comparison").
    """
    rounds = job.spec.training.rounds_per_task
    parameters = algorithm_parameters(job)
    if isinstance(parameters, JointParameters) and parameters.upfront:
        classes = tuple(label for task in tasks for label in task)
        return (TaskPlan(classes=classes, rounds=rounds * len(tasks)),)
    return tuple(TaskPlan(classes=tuple(task), rounds=rounds) for task in tasks)
