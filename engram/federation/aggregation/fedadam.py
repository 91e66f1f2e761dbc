"""fedadam: an adaptive server optimiser (Reddi et al. 2021, "Adaptive federated optimization", algorithm
2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.optimiser import ServerOptimiser
from engram.spec.parameters import FedAdamParameters


class FedAdam(ServerOptimiser):
    """m = b1 m + (1 - b1) Delta; v = b2 v + (1 - b2) Delta^2; w = w + eta m / (sqrt(v) + tau).

    As in the paper there is no bias correction, m starts at 0 and v at tau^2, and Delta is the weighted
    mean of the workers' differences.
    """

    def __init__(self, parameters: FedAdamParameters) -> None:
        super().__init__()
        self._parameters = parameters

    def move(self, name: str, delta: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `ServerOptimiser.move`."""
        given = self._parameters
        first = given.beta1 * self.moment(f"m/{name}", delta.shape, 0.0) + (1 - given.beta1) * delta
        second = self.moment(f"v/{name}", delta.shape, given.adaptivity**2)
        second = given.beta2 * second + (1 - given.beta2) * delta * delta
        self.keep(f"m/{name}", first)
        self.keep(f"v/{name}", second)
        return given.learning_rate * first / (np.sqrt(second) + given.adaptivity)
