"""median: the coordinate-wise median of the updates (Yin et al. 2018, definition 1), each counting alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.stacked import Coordinatewise
from engram.spec.algorithms import NoParameters


class Median(Coordinatewise):
    """The middle value of each coordinate; the mean of the two middle ones when their number is even."""

    def __init__(self, parameters: NoParameters | None = None) -> None:
        super().__init__()

    def reduce(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Coordinatewise.reduce`."""
        count = len(values)
        result: NDArray[np.float64] = (values[(count - 1) // 2] + values[count // 2]) / 2
        return result
