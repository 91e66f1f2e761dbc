"""`dataset: {name: none}`: the data are the workers' own and nobody else's, not even their shape is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engram.data.types import DataSet, Indices
from engram.spec.parameters import NONE


class Nothing:
    """A source without images."""

    labels: NDArray[np.int64] = np.empty(0, np.int64)
    shape = (0, 0, 0)

    def read(self, indices: Indices) -> NDArray[np.float32]:
        """Return no images."""
        return np.empty((0, *self.shape), np.float32)


def load_nothing() -> DataSet:
    """Return the data set that holds nothing."""
    return DataSet(NONE, Nothing(), Nothing(), (), "")
