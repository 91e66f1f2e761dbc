"""The old model that some algorithms distil from: the global model at the end of the last task."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.federation.messages import Shared, Tensors
from engram.learning.context import LocalContext
from engram.learning.losses import distillation
from engram.learning.models import Network
from engram.learning.tensors import HEAD_BIAS, copied, into_module, prefixed, unprefixed

GROUP = "teacher"


class Teacher:
    """Keeps the teacher on the aggregator and consults it on the workers; without one its loss is zero."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._weights: Tensors = {}
        self._network: Network | None = None

    def keep(self, weights: Tensors) -> None:
        """Aggregator: take a task's final weights, by value."""
        self._weights = copied(weights)

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
        if received and self._network is not None and self._network.rows == len(received[HEAD_BIAS]):
            into_module(received, self._network)  # making a network takes longer than filling one
        else:
            self._network = context.frozen(received) if received else None

    def loss(self, logits: Tensor, images: Tensor) -> Tensor:
        """Worker: distillation of the teacher's answers to `images` into the old rows of `logits`."""
        if self._network is None or len(images) == 0:
            return logits.new_zeros(())
        with torch.no_grad():
            wanted = self._network(images)
        return distillation(logits[:, : wanted.shape[1]], wanted, self.temperature)
