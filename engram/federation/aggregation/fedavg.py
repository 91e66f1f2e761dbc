"""fedavg: the mean of the updates, weighted by samples (McMahan et al. 2017, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from engram.federation.aggregation.base import Aggregation, averaged_names
from engram.federation.aggregation.exact import ExactSum
from engram.federation.messages import EMPTY, Tensors
from engram.spec.algorithms import NoParameters

PLAIN_SUFFIXES = ("running_mean", "running_var")
"""Statistics of normalisation layers by torch's names: server optimisers average them plainly, as a step with
momentum could make a variance negative."""


class FedAvg(Aggregation):
    """w = sum_k (n_k / n) w_k, exact and independent of the order of arrival; memory: one float64 model."""

    def __init__(self, parameters: NoParameters | None = None) -> None:
        self._weights: Tensors = EMPTY
        self._sum = ExactSum({}, 1)

    def begin(self, weights: Tensors, total_samples: int) -> None:
        """See `Aggregation.begin`."""
        self._weights = weights
        # The system zeroes fresh memory page by page, every round, which costs as much as adding an update.
        self._sum = ExactSum(weights, total_samples, self._sum.memory)

    def check(self, samples: int, magnitudes: Mapping[str, float]) -> None:
        """See `Aggregation.check`."""
        self._sum.check(samples, magnitudes)

    def add(self, worker: str, samples: int, weights: Tensors) -> None:
        """See `Aggregation.add`."""
        self._sum.add(samples, weights)

    def finish(self) -> Tensors:
        """See `Aggregation.finish`."""
        averaged = set(averaged_names(self._weights))
        result = {
            name: self.next(name, array, self._sum) if name in averaged else array
            for name, array in self._weights.items()
        }
        self._weights = EMPTY
        return result

    def next(self, name: str, current: NDArray[Any], total: ExactSum) -> NDArray[Any]:
        """Return the next value of one tensor from the round's sum; server optimisers override this."""
        return total.rounded_mean(name, current.dtype)
