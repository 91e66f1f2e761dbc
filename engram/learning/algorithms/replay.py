"""replay: train on exemplars of old classes beside the new data.

Exemplars are chosen by herding (Rebuffi et al. 2017, algorithms 4 and 5) from a worker's own labelled
samples before the data leave. After the task, weight alignment scales the new rows of the head to the mean
norm of the old ones (Zhao et al. 2020, "Maintaining discrimination and fairness in class incremental
learning", equations 6 and 7), because plentiful new classes grow longer rows than old ones with few
exemplars. It only ever shrinks: after few local steps new rows are shorter than old ones, the bias that the
paper corrects is not there, and stretching them would make one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from engram.federation.messages import Consolidated, Tensors
from engram.learning.algorithm import Algorithm, TaskScope
from engram.learning.memory import Memory
from engram.learning.tensors import HEAD_WEIGHT
from engram.spec.algorithms import ReplayParameters
from engram.spec.base import Spec


def aligned(weights: Tensors, old: int) -> Tensors:
    """Return `weights` with rows `old` and after of the head multiplied by gamma.

    gamma = min(1, mean ||w_old|| / mean ||w_new||). Biases stay; without old or new rows nothing changes.
    """
    head = weights[HEAD_WEIGHT]
    norms = np.linalg.norm(head.astype(np.float64), axis=1)
    if old == 0 or old == len(head) or norms[old:].mean() <= norms[:old].mean():
        return weights
    gamma = norms[:old].mean() / norms[old:].mean()
    corrected = head.copy()
    corrected[old:] = (head[old:] * gamma).astype(head.dtype)
    return {**weights, HEAD_WEIGHT: corrected}


class Replay(Algorithm):
    """Keeps exemplars and aligns the head after each task."""

    Parameters: ClassVar[type[Spec]] = ReplayParameters
    vectorised = True

    def __init__(self, parameters: ReplayParameters) -> None:
        super().__init__(parameters)
        self.memory = Memory(parameters.exemplars_per_worker)
        self.weight_alignment = parameters.weight_alignment

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Return the weights with an aligned head."""
        return aligned(weights, scope.old) if self.weight_alignment else weights
