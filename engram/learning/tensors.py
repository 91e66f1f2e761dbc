"""Weights as named numpy arrays, the form in which federation carries, averages and keeps them.

Names and order are those of the module's `state_dict`. The dtype says how a tensor may be combined: floating
tensors are averaged; integer tensors (such as BatchNorm's num_batches_tracked) are exchanged but never
averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engram.errors import ProtocolError
from engram.federation.messages import Tensors

HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"


def from_module(module: nn.Module) -> dict[str, NDArray[Any]]:
    """Return copies of the module's parameters and buffers as numpy arrays, in state_dict order."""
    return {name: to_numpy(tensor) for name, tensor in module.state_dict().items()}


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a contiguous copy of `tensor` in main memory."""
    array: NDArray[Any] = tensor.detach().cpu().numpy().copy(order="C")
    return array


def to_torch(tensors: Tensors, device: torch.device) -> dict[str, Tensor]:
    """Return copies of `tensors` on `device`, in the same order."""
    return {name: torch.from_numpy(np.array(array)).to(device) for name, array in tensors.items()}


def into_module(tensors: Tensors, module: nn.Module) -> None:
    """Copy `tensors` into the module's parameters and buffers in place.

    Raises ProtocolError when names or shapes differ from the module's.
    """
    own = module.state_dict()
    if own.keys() != tensors.keys():
        differing = sorted(own.keys() ^ tensors.keys())
        raise ProtocolError(f"weights do not fit the model: {differing[0]} is on one side only")
    with torch.no_grad():
        for name, target in own.items():
            array = tensors[name]
            if tuple(array.shape) != tuple(target.shape):
                raise ProtocolError(
                    f"weights do not fit the model: {name} has shape {tuple(array.shape)}, "
                    f"the model needs {tuple(target.shape)}"
                )
            target.copy_(torch.from_numpy(np.array(array)))


def copied(tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Return `tensors` by value: what is kept over rounds must not change with the caller's arrays."""
    return {name: np.array(array) for name, array in tensors.items()}


def prefixed(group: str, tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Return `tensors` with names `group/name`, so that several groups fit one state."""
    return {f"{group}/{name}": array for name, array in tensors.items()}


def unprefixed(group: str, tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Return by value the tensors of `group` from what `prefixed` made."""
    start = f"{group}/"
    return {name[len(start) :]: np.array(array) for name, array in tensors.items() if name.startswith(start)}


def grown(weights: Tensors, initial: Tensors, rows: int) -> dict[str, NDArray[Any]]:
    """Return `weights` with a head of `rows` rows: the old rows copied, the new ones those of `initial`.

    `initial` is the seeded model with a row for every class of the job in learning order.
    """
    result = dict(weights)
    for name in (HEAD_WEIGHT, HEAD_BIAS):
        result[name] = np.concatenate([weights[name], initial[name][len(weights[name]) : rows]])
    return result


def finite(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether every floating tensor holds finite numbers only."""
    return all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point())
