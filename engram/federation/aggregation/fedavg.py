"""fedavg: the mean of the updates, weighted by samples (McMahan et al. 2017, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.base import Aggregation, averaged_names
from engram.federation.aggregation.exact import ExactSum
from engram.federation.aggregation.statistics import (
    MEAN,
    VARIANCE,
    largest_moments,
    pooled_variance,
    variances,
    with_second_moments,
)
from engram.federation.messages import EMPTY, Tensors
from engram.spec.algorithms import NoParameters

PLAIN_SUFFIXES = (MEAN, VARIANCE)
"""Statistics of normalisation layers by torch's names: server optimisers take what fedavg makes of them, as a
step with momentum could make a variance negative."""


class FedAvg(Aggregation):
    """w = sum_k (n_k / n) w_k, exact and independent of the order of arrival; memory: one float64 model.

    Variances of normalisation layers are pooled (see `statistics`).
    """

    def __init__(self, parameters: NoParameters | None = None) -> None:
        self._weights: Tensors = EMPTY
        self._means: dict[str, str] = {}
        """The mean that belongs to each variance of the model."""
        self._sum = ExactSum({}, 1)

    def begin(self, weights: Tensors, total_samples: int) -> None:
        """See `Aggregation.begin`."""
        self._weights, self._means = weights, variances(weights)
        summed = with_second_moments(weights, self._means)
        # The system zeroes fresh memory page by page, every round, which costs as much as adding an update.
        self._sum = ExactSum(summed, total_samples, self._sum.memory)

    def check(self, samples: int, magnitudes: Mapping[str, float]) -> None:
        """See `Aggregation.check`."""
        self._sum.check(samples, largest_moments(magnitudes, self._means))

    def add(self, worker: str, samples: int, weights: Tensors) -> None:
        """See `Aggregation.add`."""
        self._sum.add(samples, with_second_moments(weights, self._means))

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
        if name not in self._means:
            return total.rounded_mean(name, current.dtype)
        double = np.dtype(np.float64)
        second, mean = (total.rounded_mean(part, double) for part in (name, self._means[name]))
        return pooled_variance(second, mean).astype(current.dtype)
