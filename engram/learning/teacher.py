"""The old model that some algorithms distil from: the global model at the end of the last task."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.federation.messages import Shared, Tensors
from engram.learning.context import LocalContext
from engram.learning.losses import distillation
from engram.learning.models import Network
from engram.learning.tensors import copied, prefixed, unprefixed

GROUP = "teacher"


class Teacher:
    """Keeps the teacher on the aggregator and consults it on the workers; without one its loss is zero."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._weights: Tensors = {}
        self._network: Network | None = None

    def keep(self, weights: Tensors, momentum: float = 0.0) -> None:
        """Aggregator: take a task's final weights by value, or momentum x teacher + (1 - momentum) x them."""
        self._weights = blended(self._weights, weights, momentum)

    def shared(self, round: int) -> Shared:
        """Aggregator: the group that goes down with training rounds."""
        return {GROUP: self._weights} if self._weights and round > 0 else {}

    def state(self) -> Tensors:
        """Aggregator: what to keep over a restart."""
        return prefixed(GROUP, self._weights)

    def restore(self, state: Tensors) -> None:
        """Aggregator: take over what `state` returned."""
        self._weights = unprefixed(GROUP, state)

    def begin(self, context: LocalContext) -> None:
        """Worker: make the received teacher ready for this round."""
        received = context.groups.get(GROUP)
        self._network = context.frozen(received, self._network) if received else None

    def loss(self, logits: Tensor, images: Tensor) -> Tensor:
        """Worker: distillation of the teacher's answers to `images` into the old rows of `logits`."""
        wanted = self.logits(images)
        if wanted is None:
            return logits.new_zeros(())
        return distillation(logits[:, : wanted.shape[1]], wanted, self.temperature)

    def logits(self, images: Tensor) -> Tensor | None:
        """Worker: the teacher's answers to `images`, [b, rows of the old classes]; None without one."""
        if self._network is None or len(images) == 0:
            return None
        with torch.no_grad():
            answers: Tensor = self._network(images)
        return answers


def blended(old: Tensors, new: Tensors, momentum: float) -> dict[str, NDArray[Any]]:
    """Return momentum x old + (1 - momentum) x new by value; rows that the head has grown since are `new`'s.

    Integer buffers are never averaged: they are `new`'s, too.
    """
    result = copied(new)
    for name, array in result.items():
        if momentum and name in old and array.dtype.kind == "f":
            part = array[: len(old[name])] if array.shape != old[name].shape else array
            part[...] = momentum * old[name] + (1 - momentum) * part
    return result
