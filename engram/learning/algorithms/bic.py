"""bic: exemplars, distillation and bias correction (Wu et al. 2019, "Large scale incremental learning").

The loss of a step is lambda L_d + (1 - lambda) L_c (equation 3): cross-entropy, and distillation from the
last task's model on the old rows at temperature T (equation 2; without the factor T^2), where lambda is the
share of old classes among those seen. After a task the scores of its classes are corrected as alpha o + beta
on samples held out of training (equations 4 and 5, `correction.BiasCorrection`). The teacher is the corrected
model, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from engram.federation.messages import Consolidated, Shared, Tensors
from engram.learning import losses
from engram.learning.algorithm import Batch, LocalContext, TaskScope
from engram.learning.algorithms.replay import Replay
from engram.learning.teacher import Teacher
from engram.spec.algorithms import BicParameters
from engram.spec.base import Spec


class Bic(Replay):
    """replay with distillation; its correction is bias correction unless the job says otherwise."""

    Parameters: ClassVar[type[Spec]] = BicParameters

    def __init__(self, parameters: BicParameters) -> None:
        super().__init__(parameters)
        self.strength = parameters.strength
        self.teacher = Teacher(parameters.temperature)

    def begin_round(self, context: LocalContext) -> None:
        """Make the teacher ready."""
        self.teacher.begin(context)

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return lambda L_d + (1 - lambda) L_c; L_c in the first task."""
        logits = context.network(batch.images)
        classification = losses.cross_entropy(logits, batch.targets)
        share = self.share_of_distillation(context.scope)
        if share == 0:
            return classification
        distillation = self.teacher.loss(logits, batch.images) / self.teacher.temperature**2
        return share * distillation + (1 - share) * classification

    def share_of_distillation(self, scope: TaskScope) -> float:
        """Return lambda: n / (n + m) of n old and m new classes, or the job's own; 0 in the first task."""
        if scope.old == 0:
            return 0.0
        return scope.old / len(scope.seen) if self.strength is None else self.strength

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send the teacher with training rounds."""
        return self.teacher.shared(round)

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Keep the task's corrected weights as the teacher of the next task."""
        final = super().close_task(scope, weights, results)
        self.teacher.keep(final)
        return final

    def aggregator_state(self) -> Tensors:
        """Return the teacher."""
        return self.teacher.state()

    def restore_aggregator(self, state: Tensors) -> None:
        """Take the teacher back."""
        self.teacher.restore(state)
