"""replay: train on exemplars of old classes beside the new data.

Exemplars are chosen by herding (Rebuffi et al. 2017, algorithms 4 and 5) from a worker's own labelled
samples before the data leave. After the task the head's preference for new classes may be corrected
(`correction`): by weight alignment, as here by default, or by bias correction. Algorithms that build on
exemplars build on this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from engram.data.types import Indices, WorkerShare
from engram.federation.messages import Consolidated, Tensors
from engram.learning.algorithm import Algorithm, LocalContext, TaskScope
from engram.learning.correction import build_correction
from engram.learning.memory import Memory
from engram.learning.tensors import prefixed, unprefixed
from engram.spec.algorithms import ExemplarParameters, ReplayParameters
from engram.spec.base import Spec

HELD_OUT = "held_out"


class Replay(Algorithm):
    """Keeps exemplars and corrects the head after each task."""

    Parameters: ClassVar[type[Spec]] = ReplayParameters
    vectorised = True

    def __init__(self, parameters: ExemplarParameters) -> None:
        super().__init__(parameters)
        self.correction = build_correction(parameters)
        self.memory = Memory(self.correction.budget)

    def labelled(self, share: WorkerShare, task: int) -> Indices:
        """Return the task's labelled samples without those that the correction holds out."""
        return self.correction.trained_on(share, task, super().labelled(share, task))

    def consolidate(self, context: LocalContext) -> Tensors:
        """Choose exemplars; return what the correction needs."""
        super().consolidate(context)
        return self.correction.consolidate(context)

    def worker_state(self) -> Tensors:
        """Return the exemplars, and those held out."""
        return {**super().worker_state(), **prefixed(HELD_OUT, self.correction.state())}

    def restore_worker(self, state: Tensors) -> None:
        """Take them back."""
        super().restore_worker(state)
        self.correction.restore(unprefixed(HELD_OUT, state))

    def check_results(self, scope: TaskScope, weights: Tensors, results: Tensors) -> None:
        """Refuse what the correction cannot use."""
        self.correction.check(scope, results)

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Return the weights with a corrected head."""
        return self.correction.corrected(scope, weights, [result.results for result in results.values()])
