"""The inputs of a network's layers as subspaces: second moments on the workers, principal directions and
projections on the aggregator.

A layer's output is linear in its input, which for a convolution is a patch under the kernel, with a 1 behind
it for the bias. A change of the weights that is orthogonal to an input leaves the output for that input as it
was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engram.federation.messages import Tensors
from engram.learning.tensors import to_numpy

SMALLEST = 1e-6
"""Eigenvalues below this share of the largest are noise of float32."""


@dataclass(frozen=True)
class Layer:
    """A linear layer or a convolution, as a matrix [outputs, inputs] of its weights beside its bias."""

    weight: str
    bias: str
    """Name of the bias; empty without one."""
    inputs: int
    """Length of an input: the patch, and 1 more where there is a bias."""

    def matrix(self, weights: Tensors) -> Tensor:
        """Return weights and bias as one matrix [outputs, inputs] in float64."""
        matrix = torch.from_numpy(weights[self.weight].astype(np.float64)).flatten(1)
        if not self.bias:
            return matrix
        bias = torch.from_numpy(weights[self.bias].astype(np.float64))
        return torch.cat([matrix, bias.unsqueeze(1)], dim=1)

    def tensors(self, matrix: Tensor, like: Tensors) -> Tensors:
        """Return the tensors that `matrix` stands for, as those of `like` are."""
        weight = like[self.weight]
        size = math.prod(weight.shape[1:])
        parts = {self.weight: matrix[:, :size].reshape(weight.shape)}
        if self.bias:
            parts[self.bias] = matrix[:, size]
        return {name: to_numpy(part).astype(like[name].dtype) for name, part in parts.items()}


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """Return a network's linear layers and ordinary convolutions by name."""
    found: dict[str, Layer] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and _ordinary(module)):
            inputs = math.prod(module.weight.shape[1:]) + (module.bias is not None)
            found[name] = Layer(f"{name}.weight", "" if module.bias is None else f"{name}.bias", inputs)
    return found


def _ordinary(module: nn.Conv2d) -> bool:
    return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def inputs_of(module: nn.Module, given: Tensor) -> Tensor:
    """Return what a layer multiplies with its weights, one input a row [n, inputs], in float64."""
    if isinstance(module, nn.Conv2d):
        padding = () if isinstance(module.padding, str) else module.padding
        columns = functional.unfold(given, module.kernel_size, module.dilation, padding, module.stride)
        given = columns.transpose(1, 2)
    rows = given.flatten(0, -2).double()
    return rows if module.bias is None else functional.pad(rows, (0, 1), value=1.0)


class Moments:
    """Sums over a layer's inputs x of x x^T, or of its product with a random matrix, and of |x|^2."""

    def __init__(self, layer: Layer, projection: Tensor | None) -> None:
        self._projection = projection
        columns = layer.inputs if projection is None else projection.shape[1]
        self.sketch = torch.zeros(layer.inputs, columns, dtype=torch.float64)
        self.energy = torch.zeros((), dtype=torch.float64)

    def add(self, inputs: Tensor) -> None:
        """Take inputs [n, inputs] in."""
        right = inputs if self._projection is None else inputs @ self._projection.to(inputs.device)
        self.sketch += (inputs.T @ right).cpu()
        self.energy += inputs.square().sum().cpu()


@contextmanager
def watched(network: nn.Module, moments: dict[str, Moments]) -> Iterator[None]:
    """Add the inputs of every forward pass inside the block to the layers' `moments`."""

    def watcher(found: Moments) -> Any:
        return lambda module, given: found.add(inputs_of(module, given[0]))

    modules = dict(network.named_modules())
    hooks = [modules[name].register_forward_pre_hook(watcher(found)) for name, found in moments.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def factor(sketch: Tensor, projection: Tensor | None) -> Tensor:
    """Return F [inputs, r] with F F^T = A, the second moment, or its Nystroem approximation from A Omega.

    Nystroem: A = (A Omega) (Omega^T A Omega)^-1 (A Omega)^T, exact where Omega has the rank of A. What is not
    positive in a matrix that is not a second moment counts as zero.
    """
    core = sketch if projection is None else projection.T @ sketch
    values, vectors = torch.linalg.eigh((core + core.T) / 2)
    kept = values > SMALLEST * values.max().clamp_min(0)
    values, vectors = values[kept], vectors[:, kept]
    found: Tensor = vectors * values.sqrt() if projection is None else sketch @ vectors / values.sqrt()
    return found


def principal(found: Tensor, energy: float, basis: Tensor, threshold: float) -> Tensor:
    """Return the fewest directions [inputs, r], orthogonal to `basis` (O), that together with it hold the
    share `threshold` of the inputs' `energy`: |O^T F|^2 + sum s_i^2 >= threshold x energy.

    `found` is F. Where it does not hold enough all of its directions are taken.
    """
    inside = basis.T @ found
    left: Tensor
    left, sizes, _ = torch.linalg.svd(found - basis @ inside, full_matrices=False)
    held = sizes.square()
    missing = threshold * energy - float(inside.square().sum())
    if missing <= 0:
        return left[:, :0]
    real = int((held > SMALLEST * energy).sum())
    wanted = int((held.cumsum(0) < missing).sum()) + 1
    return left[:, : min(real, wanted)]


def outside(change: Tensor, basis: Tensor) -> Tensor:
    """Return the part of `change` [outputs, inputs] that is orthogonal to `basis` [inputs, r]."""
    kept: Tensor = change - (change @ basis) @ basis.T
    return kept


def total(arrays: list[NDArray[Any]]) -> Tensor:
    """Return the sum of the workers' arrays in float64."""
    return torch.from_numpy(np.sum([array.astype(np.float64) for array in arrays], axis=0))
