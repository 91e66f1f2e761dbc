"""trimmed-mean: the mean of each coordinate without its extremes (Yin et al. 2018, definition 2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.stacked import Coordinatewise
from engram.spec.parameters import TrimmedMeanParameters


class TrimmedMean(Coordinatewise):
    """Drops floor(trim K) of the K values at each end of every coordinate and averages the rest."""

    def __init__(self, parameters: TrimmedMeanParameters) -> None:
        super().__init__()
        self._trim = parameters.trim

    def reduce(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Coordinatewise.reduce`."""
        cut = math.floor(self._trim * len(values) + 1e-9)
        result: NDArray[np.float64] = values[cut : len(values) - cut].mean(axis=0)
        return result
