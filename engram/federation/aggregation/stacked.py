"""What the rules that need every update at once share: they keep all of them until the round closes.

Their memory grows with the number of workers: one model an update. Updates are ordered by worker's name
before use, so the order of arrival has no effect, and every worker counts alike, whatever its samples: a
weight that the worker itself reports would defeat the protection these rules give.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.base import Aggregation, averaged_names
from engram.federation.messages import EMPTY, Tensors

BLOCK = 1 << 16
"""Elements of a tensor that are combined at once."""


class Stacked(Aggregation):
    """Collects a round's updates."""

    def __init__(self) -> None:
        self._weights: Tensors = EMPTY
        self._updates: dict[str, Tensors] = {}

    def begin(self, weights: Tensors, total_samples: int) -> None:
        """See `Aggregation.begin`."""
        self._weights, self._updates = weights, {}

    def add(self, worker: str, samples: int, weights: Tensors) -> None:
        """See `Aggregation.add`."""
        self._updates[worker] = weights

    def finish(self) -> Tensors:
        """See `Aggregation.finish`."""
        updates = [self._updates[worker] for worker in sorted(self._updates)]
        result = self.combine(self._weights, updates)
        self._weights, self._updates = EMPTY, {}
        return result

    @abstractmethod
    def combine(self, weights: Tensors, updates: list[Tensors]) -> Tensors:
        """Return the next weights from the global ones and at least one update."""


class Coordinatewise(Stacked):
    """A rule that looks at every coordinate by itself."""

    def combine(self, weights: Tensors, updates: list[Tensors]) -> Tensors:
        """See `Stacked.combine`."""
        result = dict(weights)
        for name in averaged_names(weights):
            flat = [update[name].reshape(-1) for update in updates]
            value = np.empty(weights[name].size, weights[name].dtype)
            for start in range(0, value.size, BLOCK):
                block = np.stack([tensor[start : start + BLOCK] for tensor in flat]).astype(np.float64)
                block.sort(axis=0)
                value[start : start + BLOCK] = self.reduce(block)
            result[name] = value.reshape(weights[name].shape)
        return result

    @abstractmethod
    def reduce(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one value a column of `values`, shape [updates, coordinates], sorted along axis 0."""
