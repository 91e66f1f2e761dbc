"""fedewc: elastic weight consolidation in a federation (Kirkpatrick et al. 2017, equation 3), with one
running Fisher matrix (online EWC: Schwarz et al. 2018, "Progress & compress", section 3.2).

Each worker computes the diagonal of its Fisher information at the task's final global model; the aggregator
averages them by samples and adds them to the decayed sum of the tasks before. In class-incremental runs the
method is hopeless: it protects weights, but nothing tells old classes from new ones. It ships as a baseline.

With `unlabelled` images without labels count in the Fisher information too, each with a label drawn from the
model's own prediction: that is the expectation by which the information is defined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.data.types import Indices
from engram.federation.messages import Consolidated, Shared, Tensors
from engram.federation.validation import check_like
from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, LocalContext, TaskScope
from engram.learning.context import FORWARD_BATCH
from engram.learning.tensors import copied, prefixed, to_numpy, unprefixed
from engram.spec.algorithms import FedEwcParameters
from engram.spec.base import Spec

FISHER, ANCHOR = "fisher", "anchor"


class FedEwc(Algorithm):
    """Adds lambda/2 sum_i F_i (w_i - w*_i)^2 to every step's loss."""

    Parameters: ClassVar[type[Spec]] = FedEwcParameters

    def __init__(self, parameters: FedEwcParameters) -> None:
        super().__init__(parameters)
        self.strength = parameters.strength
        self.decay = parameters.decay
        self.with_unlabelled = parameters.unlabelled
        self.fisher: Tensors = {}
        self.anchor: Tensors = {}

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return cross-entropy + lambda/2 sum F (w - w*)^2; the penalty is absent in the first task."""
        loss = super().loss(context, batch)
        if FISHER not in context.groups:
            return loss
        parameters = dict(context.network.named_parameters())
        penalty = losses.elastic(parameters, context.shared[ANCHOR], context.shared[FISHER])
        return loss + self.strength / 2 * penalty

    def consolidate(self, context: LocalContext) -> Tensors:
        """Return the diagonal Fisher information of the worker's samples of the task."""
        part = context.share.tasks[context.scope.task - 1]
        unlabelled = part.unlabelled if self.with_unlabelled else part.unlabelled[:0]
        return {
            name: to_numpy(found)
            for name, found in fisher_diagonal(context, part.labelled, unlabelled).items()
        }

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send w* and F with training rounds."""
        return {ANCHOR: self.anchor, FISHER: self.fisher} if self.fisher and round > 0 else {}

    def check_results(self, scope: TaskScope, weights: Tensors, results: Tensors) -> None:
        """Refuse a Fisher that is not one of the model's parameters, name by name."""
        check_like(results, {name: weights[name] for name in results if name in weights})
        negative = [name for name, fisher in results.items() if fisher.size and fisher.min() < 0]
        if negative:
            raise ValueError(f"a Fisher information below 0: {negative[0]}")

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Average the workers' Fishers into the running one; w* becomes the task's final weights."""
        measured = [(result.samples, result.results) for result in results.values() if result.results]
        self.fisher = accumulated(self.fisher, averaged(measured), self.decay)
        self.anchor = copied({name: weights[name] for name in self.fisher})
        return weights

    def aggregator_state(self) -> Tensors:
        """Return F and w*."""
        return {**prefixed(FISHER, self.fisher), **prefixed(ANCHOR, self.anchor)}

    def restore_aggregator(self, state: Tensors) -> None:
        """Take F and w* back."""
        self.fisher = unprefixed(FISHER, state)
        self.anchor = unprefixed(ANCHOR, state)


def fisher_diagonal(context: LocalContext, labelled: Indices, unlabelled: Indices) -> dict[str, Tensor]:
    """Return F_i = mean over samples of (d log p(label | x) / d w_i)^2, by parameter name; empty for none.

    The labels of `labelled` are the true ones (the empirical Fisher), those of `unlabelled` are drawn from
    p(label | x). The network is in eval mode.
    """
    samples = len(labelled) + len(unlabelled)
    if samples == 0:
        return {}
    network = context.network
    network.eval()
    parameters = dict(network.named_parameters())
    total = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
    for images, targets in chain(_with_labels(context, labelled), _with_draws(context, unlabelled)):
        # One by one: the square is of each sample's own gradient, and torch.func would ask for a model
        # without buffers or branches, which a user's own may have. It happens once a task, not in a step.
        for image, target in zip(images, targets, strict=True):
            loss = losses.cross_entropy(network(image.unsqueeze(0)), target.unsqueeze(0))
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient.square()
    return {name: tensor / samples for name, tensor in total.items()}


def _with_labels(context: LocalContext, positions: Indices) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and their rows of the head, some at a time."""
    for start in range(0, len(positions), FORWARD_BATCH):
        part = positions[start : start + FORWARD_BATCH]
        yield context.images(part), context.rows(part)


def _with_draws(context: LocalContext, positions: Indices) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and rows drawn from what the network says of them, some at a time."""
    generator = context.generator("fisher")
    for start in range(0, len(positions), FORWARD_BATCH):
        images = context.images(positions[start : start + FORWARD_BATCH])
        with torch.no_grad():
            chances = context.network(images).float().softmax(dim=1).cpu()
        yield images, torch.multinomial(chances, 1, generator=generator).squeeze(1).to(context.device)


def averaged(measured: list[tuple[int, Tensors]]) -> dict[str, NDArray[Any]]:
    """Return the mean of the workers' Fishers weighted by samples, summed in float64.

    What a worker leaves out is left out for all.
    """
    samples = sum(count for count, _ in measured)
    if samples == 0:
        return {}
    result: dict[str, NDArray[Any]] = {}
    for name, first in measured[0][1].items():
        if not all(name in fisher for _, fisher in measured):
            continue
        total = np.zeros(first.shape, np.float64)
        for count, fisher in measured:
            total += count * fisher[name].astype(np.float64)
        result[name] = (total / samples).astype(first.dtype)
    return result


def accumulated(running: Tensors, new: Tensors, decay: float) -> dict[str, NDArray[Any]]:
    """Return decay x running + new; the rows that the head has grown since count as zero in `running`."""
    if not new:
        return copied(running)
    result: dict[str, NDArray[Any]] = {}
    for name, fresh in new.items():
        total = fresh.copy()
        if name in running:
            old = running[name]
            view = total if total.shape == old.shape else total[: len(old)]
            view += np.asarray(decay * old, fresh.dtype)
        result[name] = total
    return result
