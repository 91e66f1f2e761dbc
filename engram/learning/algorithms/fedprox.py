"""fedprox: a proximal term keeps local models near the global one (Li et al. 2020, "Federated optimization in
heterogeneous networks", equation 2).

It tames heterogeneous workers; it does not remember old classes. Unlabelled data has no use here: the term
looks at weights only, and with pseudo-labels it would be another method.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, LocalContext
from engram.spec.algorithms import FedProxParameters
from engram.spec.base import Spec


class FedProx(Algorithm):
    """Adds mu/2 ||w - w_global||^2, the squared norm over all parameters, to every step's loss."""

    Parameters: ClassVar[type[Spec]] = FedProxParameters
    vectorised = True

    def __init__(self, parameters: FedProxParameters) -> None:
        super().__init__(parameters)
        self.mu = parameters.mu

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return cross-entropy + mu/2 ||w - w_global||^2."""
        parameters = dict(context.network.named_parameters())
        return super().loss(context, batch) + self.mu / 2 * losses.proximal(parameters, context.weights)
