"""fedavgm: server momentum (Hsu, Qi and Brown 2019, "Measuring the effects of non-identical data", eq. 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.optimiser import ServerOptimiser
from engram.spec.parameters import FedAvgMParameters


class FedAvgM(ServerOptimiser):
    """v = beta v + Delta; w = w + eta v, with Delta = mean - w (the paper's sign turned around)."""

    def __init__(self, parameters: FedAvgMParameters) -> None:
        super().__init__()
        self._parameters = parameters

    def move(self, name: str, delta: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ServerOptimiser.move`."""
        velocity = self._parameters.momentum * self.moment(f"v/{name}", delta.shape, 0.0) + delta
        self.keep(f"v/{name}", velocity)
        return self._parameters.learning_rate * velocity
