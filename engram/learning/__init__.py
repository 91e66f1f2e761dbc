"""Learning: models, algorithms and local training, behind the two protocols of `engram.federation.roles`.

Importing this package is cheap: torch is loaded when the first learner is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engram.learning.plan import TaskPlan, curriculum

if TYPE_CHECKING:
    from engram.data.types import DataSet, Split, WorkerShare
    from engram.federation.roles import Crew, GlobalLearner, LocalLearner
    from engram.spec import FederatedIncrementalJob, WorkerIdentity

__all__ = ["TaskPlan", "build_crew", "build_global", "build_local", "check_batched", "curriculum"]


def build_local(
    job: FederatedIncrementalJob, worker: WorkerIdentity, dataset: DataSet, share: WorkerShare, split: Split
) -> LocalLearner:
    """Return the worker's side of the job's algorithm: trains and consolidates on `share`.

    Raises ConfigurationError for an unknown or unloadable model, algorithm, augmentation or parameter.
    """
    from engram.learning.local_learner import Worker
    from engram.learning.setting import Setting

    return Worker(Setting.of(job, dataset, split), worker, share)


def check_batched(job: FederatedIncrementalJob) -> None:
    """Raise ConfigurationError unless the workers of `job` can train together."""
    from engram.learning.crew import check_batched

    check_batched(job)


def build_crew(
    job: FederatedIncrementalJob,
    members: Sequence[tuple[WorkerIdentity, DataSet, WorkerShare, Split]],
) -> Crew:
    """Return workers that train their rounds together, in one process.

    Raises ConfigurationError as `build_local` and `check_batched` do.
    """
    from engram.learning.crew import Crew, check_batched
    from engram.learning.setting import Setting

    check_batched(job)
    return Crew((Setting.of(job, dataset, split), worker, share) for worker, dataset, share, split in members)


def build_global(job: FederatedIncrementalJob, dataset: DataSet, split: Split) -> GlobalLearner:
    """Return the aggregator's side of the job's algorithm: initial weights, what goes down, evaluation.

    Raises ConfigurationError for an unknown or unloadable model, algorithm or parameter.
    """
    from engram.learning.global_learner import Coordinator
    from engram.learning.setting import Setting

    return Coordinator(Setting.of(job, dataset, split))
