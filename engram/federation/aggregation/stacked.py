"""What the rules that need every update at once share: the updates wait on the checkpoint's volume until the
round closes, and are combined block by block, so that memory does not grow with the number of workers.

Disk: one model an update, until the round is closed. Updates are ordered by worker's name before use, so the
order of arrival has no effect, and every worker counts alike, whatever its samples: a weight that the worker
itself reports would defeat the protection these rules give.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.base import Aggregation, averaged_names
from engram.federation.aggregation.spool import Spool
from engram.federation.messages import EMPTY, Tensors


class Stacked(Aggregation):
    """Collects a round's updates."""

    def __init__(self) -> None:
        self._weights: Tensors = EMPTY
        self._spool = Spool()

    def keep_in(self, directory: Path) -> None:
        """See `Aggregation.keep_in`."""
        self._spool.keep_in(directory)

    def begin(self, weights: Tensors, total_samples: int) -> None:
        """See `Aggregation.begin`."""
        self._weights = weights
        self._spool.begin(weights)

    def add(self, worker: str, samples: int, weights: Tensors) -> None:
        """See `Aggregation.add`."""
        self._spool.add(worker, weights)

    def finish(self) -> Tensors:
        """See `Aggregation.finish`."""
        result = self.combine(self._weights, self._spool)
        self._weights = EMPTY
        self._spool.clear()
        return result

    @abstractmethod
    def combine(self, weights: Tensors, updates: Spool) -> Tensors:
        """Return the next weights from the global ones and at least one update."""


class Coordinatewise(Stacked):
    """A rule that looks at every coordinate by itself."""

    def combine(self, weights: Tensors, updates: Spool) -> Tensors:
        """See `Stacked.combine`."""
        result = dict(weights)
        for name in averaged_names(weights):
            value = np.empty(weights[name].size, weights[name].dtype)
            for start, block in updates.blocks(name):
                block.sort(axis=0)
                value[start : start + block.shape[1]] = self.reduce(block)
            result[name] = value.reshape(weights[name].shape)
        return result

    @abstractmethod
    def reduce(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one value a column of `values`, shape [updates, coordinates], sorted along axis 0."""
