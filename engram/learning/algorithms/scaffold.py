"""scaffold: control variates against the drift of uneven workers (Karimireddy et al. 2020, "SCAFFOLD",
algorithm 1 with option II).

Every local step's gradient is corrected by c - c_i (line 10). After a round c_i becomes
c_i - c + (x - y_i) / (K eta) (line 12, option II), and c is the mean of the c_i (line 17 keeps it so).

Where it differs from the paper, and why:

- The aggregator computes the c_i: it has x and y_i. Only the correction goes down, so that a round carries
  three models a worker in place of the paper's four, workers have no state to lose, and a restart of either
  side changes nothing. The aggregator holds two models a worker while a round closes, one between rounds, and
  writes it into each checkpoint.
- K eta is the sum of the step sizes. With momentum m a gradient goes on to act in the steps that follow: the
  j-th of K counts (1 - m^(K - j + 1)) / (1 - m) times, and (x - y_i) over the sum of these is the mean of the
  round's gradients with these weights, exactly. The learning rate is that of the round in the schedule. There
  is no such sum for adam, which is refused.
- The weights of the mean are the workers' samples, as in the average of the models (`weighting: uniform` is
  the paper's).
- A task's end sets all variates to zero: they are gradients of an objective that is gone.

The gradient clip sees the corrected gradient. Where it acts, c_i is a mean of clipped gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from engram.federation.messages import Consolidated, Shared, Tensors, Update
from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, GlobalContext, LocalContext, TaskScope
from engram.learning.optimise import learning_rate
from engram.learning.variates import Variates, moves
from engram.spec.algorithms import ScaffoldParameters
from engram.spec.base import Spec
from engram.spec.training import Training

GROUP = "correction"


class Scaffold(Algorithm):
    """Adds <c - c_i, w - x> to every step's loss, whose gradient is the correction."""

    Parameters: ClassVar[type[Spec]] = ScaffoldParameters
    wants_models = True

    def __init__(self, parameters: ScaffoldParameters) -> None:
        super().__init__(parameters)
        self.variates = Variates(())
        self.trained: tuple[str, ...] = ()
        self.training = Training()

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return cross-entropy + <c - c_i, w - x>; the term is absent while all variates are zero."""
        loss = super().loss(context, batch)
        if GROUP not in context.groups:
            return loss
        parameters = dict(context.network.named_parameters())
        return loss + losses.linear(parameters, context.weights, context.shared[GROUP])

    def begin_run(self, context: GlobalContext) -> None:
        """Note who takes part, which tensors are trained and by which steps."""
        self.variates = Variates(context.workers)
        self.trained = tuple(name for name, _ in context.make_network(1).named_parameters())
        self.training = context.training

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send each worker its c - c_i with training rounds."""
        correction = self._correction(worker) if worker and round else {}
        return {GROUP: correction} if correction else {}

    def server_step(
        self,
        scope: TaskScope,
        round: int,
        before: Tensors,
        weights: Tensors,
        updates: Mapping[str, Update],
    ) -> Tensors:
        """Take in the round's variates (option II); the average stays as it is (a global step size of 1)."""
        fresh: dict[str, Tensors] = {}
        for worker, update in updates.items():
            if update.samples == 0:
                self.variates.abstain(worker)
            elif (steps := update.metrics.get("steps", 0.0)) >= 1:
                size = step_sizes(self.training, round, steps)
                sent = self._correction(worker)
                moved = moves(before, update.weights, self.trained)
                fresh[worker] = {name: -move / size - sent.get(name, 0) for name, move in moved.items()}
        for worker, vector in fresh.items():
            self.variates.put(worker, updates[worker].samples, vector)
        return weights

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Forget the variates of the task's objective."""
        self.variates.clear()
        return weights

    def aggregator_state(self) -> Tensors:
        """Return the variates."""
        return self.variates.state()

    def restore_aggregator(self, state: Tensors) -> None:
        """Take the variates back."""
        self.variates.restore(state)

    def _correction(self, worker: str) -> Tensors:
        """Return c - c_i; empty while all are zero."""
        own = self.variates.of(worker)
        mean = self.variates.mean()
        return {name: (c - own.get(name, 0)).astype(np.float32) for name, c in mean.items()}


def step_sizes(training: Training, round: int, steps: float) -> float:
    """Return the sum of the step sizes of a round of `steps` steps, which without momentum is K eta.

    With momentum m: eta sum_{j=1..K} (1 - m^(K-j+1)) / (1 - m) = eta (K - m (1 - m^K) / (1 - m)) / (1 - m).
    """
    spec = training.optimizer
    rate = learning_rate(spec.learning_rate, training.learning_rate_schedule, round, training.rounds_per_task)
    kept = 1 - spec.momentum
    gone = float(spec.momentum**steps)
    return rate * (steps - spec.momentum * (1 - gone) / kept) / kept
