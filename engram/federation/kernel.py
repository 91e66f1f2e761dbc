"""The compiled passes over a model's numbers, where engram was built with a compiler.

Whoever calls them asks `takes` first and has numpy's way beside, which gives the same bits.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from engram.federation import _kernel
except ImportError:  # built without a compiler: hatch_build.py has said so
    COMPILED = False
else:
    COMPILED = sys.byteorder == "little"

_FLOAT32 = np.dtype(np.float32)


def takes(dtype: np.dtype[Any]) -> bool:
    """Return whether tensors of this type go through the compiled passes."""
    return COMPILED and dtype == _FLOAT32


def add(total: NDArray[np.float64], term: NDArray[Any], samples: float, magic: float, *, begun: bool) -> None:
    """Add term x samples, rounded to the grid of `magic`, to `total`; put it there unless `begun`.

    Both have one dimension and one size.
    """
    _kernel.add(total, _plain(term), samples, magic, begun)


def divide(total: NDArray[np.float64], samples: float) -> NDArray[np.float32]:
    """Return total / samples, of one dimension."""
    quotient = np.empty(total.size, np.float32)
    _kernel.divide(quotient, total, samples)
    return quotient


def largest(term: NDArray[Any]) -> float:
    """Return the largest magnitude in a tensor, 0 in an empty one; infinity when a number is not finite."""
    return _kernel.largest(_plain(term))


def _plain(term: NDArray[Any]) -> NDArray[Any]:
    """Return a tensor whose numbers lie one after the other, each where one may lie; copies only others."""
    return term if term.flags.c_contiguous and term.flags.aligned else np.array(term, order="C")
