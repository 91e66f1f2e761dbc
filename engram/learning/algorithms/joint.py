"""joint: train on all data of the tasks so far, as if nothing ever had to leave.

With `unlabelledWeight` it learns from pseudo-labels too (FixMatch): what unlabelled data are worth where
nothing is ever forgotten.

The reference, not a method: cumulative, its R[t][t] is a*_t of intransigence (Chaudhry et al. 2018, section
3.2); with `upfront` it knows all classes from round 1 and bounds the accuracy from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from engram.data.types import Indices, TaskShare, WorkerShare
from engram.federation.messages import EMPTY, Tensors
from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, LocalContext
from engram.learning.self_training import SelfTraining
from engram.spec.algorithms import JointParameters
from engram.spec.base import Spec


class Joint(Algorithm):
    """Trains task t on the samples of tasks 1..t."""

    Parameters: ClassVar[type[Spec]] = JointParameters
    vectorised = True

    def __init__(self, parameters: JointParameters) -> None:
        super().__init__(parameters)
        self.upfront = parameters.upfront
        self.training = SelfTraining(parameters)

    def _tasks(self, share: WorkerShare, task: int) -> Sequence[TaskShare]:
        return share.tasks if self.upfront else share.tasks[:task]

    def labelled(self, share: WorkerShare, task: int) -> Indices:
        """Return the labelled samples of all tasks so far; upfront: of all tasks."""
        return np.concatenate([part.labelled for part in self._tasks(share, task)])

    def unlabelled(self, share: WorkerShare, task: int, round: int) -> Indices:
        """Return the unlabelled samples of the same tasks, after the warm-up."""
        parts = [part.unlabelled for part in self._tasks(share, task)]
        return self.training.used(np.concatenate(parts), round)

    def begin_round(self, context: LocalContext) -> None:
        """Start counting."""
        self.training.begin()

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return cross-entropy + the loss on pseudo-labels."""
        passed = self.training.forward(
            context, batch, lambda images: self.training.own_opinion(context, images)
        )
        return losses.cross_entropy(passed.labelled, batch.targets) + passed.loss

    def end_round(self, context: LocalContext) -> Tensors:
        """Report how pseudo-labels did."""
        self.training.report(context)
        return EMPTY
