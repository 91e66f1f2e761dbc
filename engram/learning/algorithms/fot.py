"""fot, experimental: updates that are orthogonal to what old tasks put into each layer (Bakman et al. 2024,
"Federated orthogonal training"). No exemplars, no teacher.

At the end of a task every worker sums the second moments of the inputs of each layer over its own images, and
sends them times a random matrix that all share (global principal subspace extraction). The sum over workers
has the principal directions of all of them; the fewest that hold the share `threshold` of the energy, with
those of earlier tasks, join the layer's basis O. From then on the aggregator takes the part inside O out of
every round's change: W = W_before + dW (I - O O^T).

Where it differs from the paper: the sketch is of the second moment and not of the inputs, so that one pass
gives the energies too; biases count as weights of an input that is always 1; all other parameters
(normalisation) stay as they were after the first task, as nothing would keep them from changing old outputs.

Many published settings tell the model at test time which task a sample is of; here one growing head tells
all classes apart. Its new rows go through the projection as the old ones do, so that a new class says of old
inputs what its initial row said, and does not drown the old classes. What is given up is learning: the more
is protected, the less of the newest task is learned. docs/algorithms.md has figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.federation.messages import EMPTY, Consolidated, Tensors, Update
from engram.federation.validation import check_like
from engram.learning import subspace
from engram.learning.algorithm import Algorithm, GlobalContext, LocalContext, TaskScope
from engram.learning.seeds import generator
from engram.learning.subspace import Layer, Moments
from engram.learning.tensors import prefixed, to_numpy, unprefixed
from engram.spec.algorithms import FotParameters
from engram.spec.base import Spec

SKETCH, ENERGY, BASIS = "sketch", "energy", "basis"
CHUNK = 32
"""Images in one forward pass: the patches of a convolution take many times the room of its input."""


class Fot(Algorithm):
    """Finetune, but for what the aggregator takes out of each round's change."""

    Parameters: ClassVar[type[Spec]] = FotParameters

    def __init__(self, parameters: FotParameters) -> None:
        super().__init__(parameters)
        self.threshold = parameters.threshold
        self.columns = parameters.sketch
        self.seed = 0
        self.layers: dict[str, Layer] = {}
        self.bases: dict[str, Tensor] = {}
        """Orthonormal directions [inputs, r] of each layer; without those of no direction."""

    def consolidate(self, context: LocalContext) -> Tensors:
        """Return the layers' sketches and energies over the task's images, labelled or not."""
        part = context.share.tasks[context.scope.task - 1]
        positions = np.concatenate([part.labelled, part.unlabelled])
        if len(positions) == 0:
            return EMPTY
        moments = {
            name: Moments(layer, projection(context.seed, context.scope.task, name, layer, self.columns))
            for name, layer in subspace.layers_of(context.network).items()
        }
        with torch.no_grad(), subspace.watched(context.network, moments):
            for start in range(0, len(positions), CHUNK):
                context.network(context.images(positions[start : start + CHUNK]))
        return {
            **{f"{SKETCH}/{name}": to_numpy(found.sketch.float()) for name, found in moments.items()},
            ENERGY: to_numpy(torch.stack([found.energy for found in moments.values()]).float()),
        }

    def begin_run(self, context: GlobalContext) -> None:
        """Note the layers and the seed of the random matrices."""
        self.seed = context.seed
        self.layers = subspace.layers_of(context.make_network(1))

    def server_step(
        self,
        scope: TaskScope,
        round: int,
        before: Tensors,
        weights: Tensors,
        updates: Mapping[str, Update],
    ) -> Tensors:
        """Return the weights without what the change has inside the old tasks' inputs."""
        if not self.bases:
            return weights
        corrected: dict[str, NDArray[np.generic]] = dict(weights)
        free: set[str] = set()
        for name, layer in self.layers.items():
            free |= {layer.weight, layer.bias}
            if name in self.bases:
                start = layer.matrix(before)
                kept = subspace.outside(layer.matrix(weights) - start, self.bases[name])
                corrected |= layer.tensors(start + kept, weights)
        return {name: array if name in free else before[name] for name, array in corrected.items()}

    def check_results(self, scope: TaskScope, weights: Tensors, results: Tensors) -> None:
        """Refuse sketches of other shapes than the layers ask for, and an energy below zero."""
        if not results:
            return
        sketches = {
            f"{SKETCH}/{name}": np.empty((layer.inputs, min(layer.inputs, self.columns)), np.float32)
            for name, layer in self.layers.items()
        }
        check_like(results, {**sketches, ENERGY: np.empty(len(self.layers), np.float32)})
        if (results[ENERGY] < 0).any():
            raise ValueError("a sum of squares is below 0")

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Add the task's principal directions to the bases."""
        given = [result.results for result in results.values() if result.results]
        if not given:
            return weights
        energies = subspace.total([part[ENERGY] for part in given]).tolist()
        for (name, layer), energy in zip(self.layers.items(), energies, strict=True):
            omega = projection(self.seed, scope.task, name, layer, self.columns)
            found = subspace.factor(subspace.total([part[f"{SKETCH}/{name}"] for part in given]), omega)
            basis = self.bases.get(name, torch.zeros(layer.inputs, 0, dtype=torch.float64))
            more = subspace.principal(found, energy, basis, self.threshold)
            if more.shape[1]:
                self.bases[name] = torch.cat([basis, more], dim=1)
        return weights

    def aggregator_state(self) -> Tensors:
        """Return the bases."""
        return prefixed(BASIS, {name: to_numpy(basis) for name, basis in self.bases.items()})

    def restore_aggregator(self, state: Tensors) -> None:
        """Take the bases back."""
        self.bases = {name: torch.from_numpy(basis) for name, basis in unprefixed(BASIS, state).items()}


def projection(seed: int, task: int, name: str, layer: Layer, columns: int) -> Tensor | None:
    """Return the random matrix [inputs, columns] of a layer, equal everywhere; None where a layer has no more
    inputs than that, so that its second moment goes as it is.
    """
    if layer.inputs <= columns:
        return None
    draw = generator(seed, "fot", task, name)
    return torch.randn(layer.inputs, columns, generator=draw, dtype=torch.float64)
