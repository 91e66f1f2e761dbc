"""fedlwf: learning without forgetting in a federation (Li and Hoiem 2016, equations 1 to 3; federated as in
Usmanova et al. 2021, "A distillation-based approach integrating continual learning and federated learning").

The teacher is the global model at the end of the last task. Without exemplars the old classes see no samples
of their own, so in class-incremental runs this helps little: it is a baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from engram.federation.messages import Consolidated, Shared, Tensors
from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, LocalContext, TaskScope
from engram.learning.teacher import Teacher
from engram.spec.algorithms import FedLwfParameters
from engram.spec.base import Spec


class FedLwf(Algorithm):
    """Adds lambda x distillation (T^2 KL on the old rows) to every step's loss."""

    Parameters: ClassVar[type[Spec]] = FedLwfParameters
    vectorised = True

    def __init__(self, parameters: FedLwfParameters) -> None:
        super().__init__(parameters)
        self.strength = parameters.strength
        self.teacher = Teacher(parameters.temperature)

    def begin_round(self, context: LocalContext) -> None:
        """Make the teacher ready."""
        self.teacher.begin(context)

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return cross-entropy + lambda x distillation."""
        logits = context.network(batch.images)
        return losses.cross_entropy(logits, batch.targets) + self.strength * self.teacher.loss(
            logits, batch.images
        )

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send the teacher with training rounds."""
        return self.teacher.shared(round)

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Keep the task's final weights as the teacher of the next task."""
        self.teacher.keep(weights)
        return weights

    def aggregator_state(self) -> Tensors:
        """Return the teacher."""
        return self.teacher.state()

    def restore_aggregator(self, state: Tensors) -> None:
        """Take the teacher back."""
        self.teacher.restore(state)
