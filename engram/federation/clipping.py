"""Norm clipping: no worker moves the global model further in a round than the job allows.

An update is the global model and a change of it; a change that is longer than the limit is shortened to it,
its direction kept. So a worker that lies may pull the model its way, but not throw it away.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.federation.messages import Tensors
from engram.federation.tensors import BLOCK


def clipped(weights: Tensors, model: Tensors, limit: float | None) -> tuple[Tensors, float | None]:
    """Return weights whose floating-point tensors are within `limit` of the model's, and from what distance
    they were brought there; the same weights and None where nothing was to do.
    """
    if limit is None:
        return weights, None
    names = [name for name, array in model.items() if np.issubdtype(array.dtype, np.floating)]
    norm = math.sqrt(sum(_square(weights[name], model[name]) for name in names))
    if norm <= limit:
        return weights, None
    changed = {name: _shortened(weights[name], model[name], limit / norm) for name in names}
    return {**weights, **changed}, norm


def _square(array: NDArray[Any], origin: NDArray[Any]) -> float:
    """Return the squared distance of two tensors, in float64 a block at a time."""
    flat, start = array.reshape(-1), origin.reshape(-1)
    total = 0.0
    for place in range(0, flat.size, BLOCK):
        change = flat[place : place + BLOCK].astype(np.float64) - start[place : place + BLOCK]
        total += float(change @ change)
    return total


def _shortened(array: NDArray[Any], origin: NDArray[Any], share: float) -> NDArray[Any]:
    """Return `origin` and a share of the way to `array`."""
    result = np.array(origin)
    flat, target = result.reshape(-1), array.reshape(-1)
    for place in range(0, flat.size, BLOCK):
        part = flat[place : place + BLOCK]
        start = part.astype(np.float64)
        part[:] = start + share * (target[place : place + BLOCK] - start)
    return result
