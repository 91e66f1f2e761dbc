"""The local optimiser, its learning rate over the rounds of a task, and the gradient clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from engram.spec.training import Training

Schedule = Literal["constant", "cosine", "steps"]


class LocalOptimizer(Protocol):
    """What a local step needs of an optimiser; those of torch.optim are some."""

    def zero_grad(self) -> None:
        """Forget the gradients."""
        ...

    def step(self) -> object:
        """Change the parameters by their gradients."""
        ...


class Sgd:
    """SGD with momentum and L2 penalty: the update of torch.optim.SGD, bit for bit.

    g = gradient + weight_decay w; v = g in the first step, then momentum v + g; w = w - rate v. Written out,
    because the first torch.optim optimiser of a process loads torch's compiler: a second of CPU time and
    90 MB in every worker, which an edge node feels.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], rate: float, momentum: float, weight_decay: float
    ) -> None:
        self._parameters = parameters
        self._rate = rate
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._velocity: dict[nn.Parameter, Tensor] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters that have a gradient."""
        active = [(p, p.grad) for p in self._parameters if p.grad is not None]
        weights: list[Tensor] = [parameter for parameter, _ in active]
        direction: list[Tensor] = [gradient for _, gradient in active]
        if not weights:
            return
        if self._weight_decay:
            torch._foreach_add_(direction, weights, alpha=self._weight_decay)
        if self._momentum:
            direction = self._accelerated(active)
        torch._foreach_add_(weights, direction, alpha=-self._rate)

    def _accelerated(self, active: Sequence[tuple[nn.Parameter, Tensor]]) -> list[Tensor]:
        """Return the velocities after taking in the gradients."""
        known = [(self._velocity[p], gradient) for p, gradient in active if p in self._velocity]
        if known:
            velocities = [velocity for velocity, _ in known]
            torch._foreach_mul_(velocities, self._momentum)
            torch._foreach_add_(velocities, [gradient for _, gradient in known])
        for parameter, gradient in active:
            if parameter not in self._velocity:
                self._velocity[parameter] = gradient.clone()
        return [self._velocity[parameter] for parameter, _ in active]


def learning_rate(base: float, schedule: Schedule, round: int, rounds: int) -> float:
    """Return the learning rate of `round` (from 1) of `rounds` in a task.

    constant: base; cosine: base (1 + cos(pi (round - 1) / rounds)) / 2, on its way to zero (Loshchilov and
    Hutter 2017, equation 5, without restarts inside a task); steps: a tenth once half of the rounds are done
    and again once three quarters are.
    """
    done = (round - 1) / rounds
    if schedule == "cosine":
        return base * (1 + math.cos(math.pi * done)) / 2
    if schedule == "steps":
        return base * (0.01 if done >= 0.75 else 0.1 if done >= 0.5 else 1.0)
    return base


def build_optimizer(
    parameters: Sequence[nn.Parameter], training: Training, round: int, rounds: int
) -> LocalOptimizer:
    """Return a fresh optimiser of `training.optimizer` for one round; it keeps nothing over rounds."""
    spec = training.optimizer
    rate = learning_rate(spec.learning_rate, training.learning_rate_schedule, round, rounds)
    if spec.name == "sgd":
        return Sgd(parameters, rate, spec.momentum, spec.weight_decay)
    kind = torch.optim.AdamW if spec.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, betas=(spec.momentum, 0.999), weight_decay=spec.weight_decay)
