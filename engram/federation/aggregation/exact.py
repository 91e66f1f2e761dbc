"""A weighted sum of tensors that is exact, so that the order of arrival cannot change a bit of it.

Plain floating-point sums differ with the order of their terms. Here every term n_k w is rounded once, to a
multiple of a step 2^-q, and sums of such multiples are exact as long as they stay below 2^(53-q). The step is
fixed before the round from what every order shares: the tensor's largest magnitude in the global model, head
room for training to move it, and the largest possible sum of weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engram.federation import kernel
from engram.federation.aggregation.base import OutOfRange, averaged_names
from engram.federation.messages import Tensors
from engram.federation.tensors import groups_of, magnitudes

HEADROOM = 2.0**14
"""How much larger than the global model's a magnitude may get in one round."""
FLOOR = 2.0**-4
"""Smallest magnitude assumed of a model and, as a share of the model's, of a tensor: zeros may grow, too."""
BLOCK = 1 << 16
"""Elements that are worked on at once; their float64 copy stays in the processor's cache."""
EXPONENT = 51
"""x + 1.5 2^(52-q) - 1.5 2^(52-q) rounds x to a multiple of 2^-q while |x| <= 2^(51-q)."""

Memory: TypeAlias = dict[tuple[str, ...], NDArray[np.float64]]


class ExactSum:
    """Sum over updates of samples x weights, and of samples.

    The mean of K updates that weigh n in all differs from the true one by at most K 2^-(q+1) / n. For ten
    workers that use an eighth of the samples they might, that is under 2^-30 of the tensor's largest
    magnitude, a fraction of a rounding to float32.
    """

    def __init__(self, weights: Tensors, total_samples: int, memory: Memory | None = None) -> None:
        """Prepare for updates of the global model `weights` whose samples sum to at most `total_samples`.

        `memory` holds an earlier sum's numbers, which nobody needs any more; what fits is used again.
        """
        self.samples = 0
        self._begun = False
        self._room = 2 ** math.ceil(math.log2(max(1, total_samples)))
        names = averaged_names(weights)
        largest = magnitudes({name: weights[name] for name in names})
        model = max([FLOOR, *largest.values()])
        self._limits = {name: max(largest[name], model * FLOOR) * HEADROOM for name in names}
        self._shapes = {name: weights[name].shape for name in names}
        self._magic: dict[tuple[str, ...], float | NDArray[np.float64]] = {}
        self.memory: Memory = {}
        """The sums, of small tensors together; void until something was added."""
        self._parts: dict[str, NDArray[np.float64]] = {}
        """The sum of each tensor."""
        compiled = [name for name in names if kernel.takes(weights[name].dtype)]
        others = [name for name in names if not kernel.takes(weights[name].dtype)]
        for group in [*((name,) for name in compiled), *groups_of(weights, others, BLOCK)]:
            self._prepare(group, [weights[name].size for name in group], memory or {})
        self._scratch = np.empty(BLOCK, np.float64)

    def _prepare(self, group: tuple[str, ...], sizes: list[int], memory: Memory) -> None:
        kept, size = memory.get(group), sum(sizes)
        total = kept if kept is not None and kept.size == size else np.empty(size, np.float64)
        rounding = [self._rounding(self._limits[name]) for name in group]
        self._magic[group] = rounding[0] if len(group) == 1 else np.repeat(rounding, sizes)
        self.memory[group] = total
        parts = [total] if len(group) == 1 else np.split(total, np.cumsum(sizes)[:-1])
        self._parts.update(zip(group, parts, strict=True))

    def _rounding(self, limit: float) -> float:
        """Return 1.5 2^(52-q), with q as large as room x limit <= 2^(51-q) allows."""
        return 1.5 * 2.0 ** (math.ceil(math.log2(self._room * limit)) + 52 - EXPONENT)

    def check(self, samples: int, magnitudes: Mapping[str, float]) -> None:
        """Raise OutOfRange for a magnitude or a number of samples beyond what the grid was made for."""
        if self.samples + samples > self._room:
            raise OutOfRange(f"{samples} samples are more than the workers said they hold")
        for name, limit in self._limits.items():
            if (found := magnitudes[name]) > limit:
                raise OutOfRange(f"{name} holds {found:.3g}, the global model allows {limit:.3g} this round")

    def add(self, samples: int, weights: Tensors) -> None:
        """Add samples x weights, which have passed `check`."""
        for group, total in self.memory.items():
            terms, magic = [weights[name].reshape(-1) for name in group], self._magic[group]
            if isinstance(magic, float) and kernel.takes(terms[0].dtype):
                kernel.add(total, terms[0], samples, magic, begun=self._begun)
            elif len(terms) == 1:
                for start in range(0, total.size, BLOCK):
                    term, part = terms[0][start : start + BLOCK], total[start : start + BLOCK]
                    # Copied before it is multiplied: a product that converts on the way takes twice as long.
                    np.copyto(self._scratch[: term.size], term)
                    self._add(samples, magic, part)
            else:
                np.concatenate(terms, out=self._scratch[: total.size], casting="same_kind")
                self._add(samples, magic, total)
        self._begun, self.samples = True, self.samples + samples

    def _add(self, samples: int, magic: float | NDArray[np.float64], part: NDArray[np.float64]) -> None:
        """Add to a part of the sums what `_scratch` has for it."""
        scratch = self._scratch[: part.size]
        np.multiply(scratch, float(samples), out=scratch)
        np.add(scratch, magic, out=scratch)
        if self._begun:
            np.subtract(scratch, magic, out=scratch)
            np.add(part, scratch, out=part)
        else:
            np.subtract(scratch, magic, out=part)

    def mean(self, name: str) -> NDArray[np.float64]:
        """Return the weighted mean of a floating-point tensor in float64, once: it takes the sum's place, and
        stands until the memory is used again.

        At least one update was added.
        """
        total = self._parts[name]
        np.divide(total, self.samples, out=total)
        return total.reshape(self._shapes[name])

    def rounded_mean(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the weighted mean of a floating-point tensor in `dtype`; at least one update was added."""
        total = self._parts[name]
        if kernel.takes(dtype):
            return kernel.divide(total, self.samples).reshape(self._shapes[name])
        result = np.empty(total.size, dtype)
        for start in range(0, total.size, BLOCK):
            part = total[start : start + BLOCK]
            scratch = self._scratch[: part.size]
            np.divide(part, self.samples, out=scratch)
            np.copyto(result[start : start + BLOCK], scratch, casting="same_kind")
        return result.reshape(self._shapes[name])
