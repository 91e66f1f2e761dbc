"""lga: the local-global anti-forgetting model (Dong et al. 2023, "No one left behind: real-world federated
class-incremental learning"), which refines `glfc`.

Old tasks are forgotten at different speeds, so gradient compensation normalises each of them for itself, as
it does the new one (section 4.1, category-balanced gradient-adaptive compensation). The gradient's exponent
(t - 1) / t grows with the tasks: in the first all samples weigh the same, and the more there is to forget,
the more the hard ones count. Weights stay within .5 and 5. The relation distillation has the same weights
(category gradient-induced semantic distillation). The numbers are those of the authors' implementation, whose
loop over old tasks adds up the tasks before; here each task is normalised by its own samples, as the paper
says. The old model is chosen as in glfc.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from engram.learning import losses
from engram.learning.algorithm import TaskScope
from engram.learning.algorithms.glfc import Glfc
from engram.spec.algorithms import LgaParameters
from engram.spec.base import Spec

LEAST, MOST = 0.5, 5.0
"""Bounds of a sample's weight."""


class Lga(Glfc):
    """glfc with a normalisation for every task, an adaptive exponent and weighted distillation."""

    Parameters: ClassVar[type[Spec]] = LgaParameters

    def weights(self, scope: TaskScope, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the clamped weight of each sample, [b]."""
        tasks = targets // len(scope.classes)  # all tasks of a job have the same number of classes
        exponent = (scope.task - 1) / scope.task
        return losses.gradient_weights(logits, targets, tasks, exponent).clamp(LEAST, MOST)

    def relation(self, logits: Tensor, answers: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Return L_RD with the samples' weights."""
        return losses.relation_distillation(logits, answers, targets, weights)
