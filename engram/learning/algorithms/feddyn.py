"""feddyn: dynamic regularisation, so that workers agree where all their objectives together are stationary
(Acar et al. 2021, "Federated learning based on dynamic regularization", algorithm 1).

A worker minimises L_k(w) - <g_k, w> + alpha/2 ||w - x||^2 from the global weights x, after which its gradient
g_k becomes g_k - alpha (w_k - x). The aggregator keeps h, the mean of the g_k (the paper's recursion of h
says the same), and corrects the average of the workers' weights: x = mean(w_k) - h / alpha.

Where it differs from the paper, and why:

- The aggregator computes the g_k, as it has x and w_k; g_k goes down, nothing more goes up, and workers have
  no state to lose. A round carries three models a worker in place of the two of the paper, whose workers keep
  g_k themselves. The aggregator holds two models a worker while a round closes, one between rounds, and
  writes it into each checkpoint.
- The weights of both means are the workers' samples (`weighting: uniform` is the paper's).
- The workers take the job's steps, they do not minimise.
- A task's end sets all g_k to zero: they are gradients of an objective that is gone.

alpha 0 is finetune. It is not the limit of a small alpha: h / alpha, the sum of all moves so far, does not
depend on its size, and without a pull towards x it is momentum that never ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from engram.federation.messages import Consolidated, Shared, Tensors, Update
from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, GlobalContext, LocalContext, TaskScope
from engram.learning.variates import Variates, moves
from engram.spec.algorithms import FedDynParameters
from engram.spec.base import Spec

GROUP = "local-gradient"


class FedDyn(Algorithm):
    """Adds -<g_k, w - x> + alpha/2 ||w - x||^2 to every step's loss, and takes h / alpha off the average."""

    Parameters: ClassVar[type[Spec]] = FedDynParameters

    def __init__(self, parameters: FedDynParameters) -> None:
        super().__init__(parameters)
        self.alpha = parameters.alpha
        self.wants_models = self.alpha > 0
        self.gradients = Variates(())
        self.trained: tuple[str, ...] = ()

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return cross-entropy - <g_k, w - x> + alpha/2 ||w - x||^2."""
        loss = super().loss(context, batch)
        if self.alpha == 0:
            return loss
        parameters = dict(context.network.named_parameters())
        loss = loss + self.alpha / 2 * losses.proximal(parameters, context.weights)
        if GROUP in context.groups:
            loss = loss - losses.linear(parameters, context.weights, context.shared[GROUP])
        return loss

    def begin_run(self, context: GlobalContext) -> None:
        """Note who takes part and which tensors are trained."""
        self.gradients = Variates(context.workers)
        self.trained = tuple(name for name, _ in context.make_network(1).named_parameters())

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send each worker its g_k with training rounds."""
        gradient = self.gradients.of(worker) if round else {}
        return {GROUP: gradient} if gradient else {}

    def server_step(
        self,
        scope: TaskScope,
        round: int,
        before: Tensors,
        weights: Tensors,
        updates: Mapping[str, Update],
    ) -> Tensors:
        """Return the average of the workers' weights less h / alpha."""
        if self.alpha == 0:
            return weights
        for worker, update in updates.items():
            if update.samples == 0:
                self.gradients.abstain(worker)
                continue
            own = self.gradients.of(worker)
            moved = moves(before, update.weights, self.trained)
            gradient = {name: own.get(name, 0) - self.alpha * move for name, move in moved.items()}
            self.gradients.put(worker, update.samples, gradient)
        corrected = {
            name: (weights[name] - h / self.alpha).astype(weights[name].dtype)
            for name, h in self.gradients.mean().items()
        }
        return {**weights, **corrected}

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Forget the gradients of the task's objective."""
        self.gradients.clear()
        return weights

    def aggregator_state(self) -> Tensors:
        """Return the workers' gradients."""
        return self.gradients.state()

    def restore_aggregator(self, state: Tensors) -> None:
        """Take the workers' gradients back."""
        self.gradients.restore(state)
