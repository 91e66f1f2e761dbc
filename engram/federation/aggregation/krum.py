"""krum: the update nearest to its neighbours, or the mean of the nearest few (Blanchard et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.base import averaged_names
from engram.federation.aggregation.spool import Spool
from engram.federation.aggregation.stacked import Stacked
from engram.federation.messages import Tensors
from engram.spec.parameters import KrumParameters


class Krum(Stacked):
    """score(i) = sum of ||w_i - w_j||^2 over the K - f - 2 nearest j; the `keep` lowest scores are averaged.

    It needs K >= 2 f + 3 updates to tolerate f liars; a round with fewer keeps the global weights and says
    so.
    """

    def __init__(self, parameters: KrumParameters) -> None:
        super().__init__()
        self._liars, self._keep = parameters.byzantine, parameters.keep
        self._warnings: tuple[str, ...] = ()

    def combine(self, weights: Tensors, updates: Spool) -> Tensors:
        """See `Stacked.combine`."""
        needed = 2 * self._liars + 3
        self._warnings = ()
        if len(updates) < needed:
            self._warnings = (
                f"krum had {len(updates)} updates, needs {needed} for byzantine: {self._liars}, and kept the "
                "global weights; lower byzantine or raise the quorum",
            )
            return weights
        names = averaged_names(weights)
        scores = _scores(_distances(updates, names), self._liars)
        chosen = sorted(np.argsort(scores, kind="stable")[: self._keep].tolist())
        result = dict(weights)
        for name in names:
            value = np.empty(weights[name].size, weights[name].dtype)
            for start, block in updates.blocks(name, chosen):
                # One after the other: numpy's own sum of a single column would take another order.
                for row in block[1:]:
                    block[0] += row
                value[start : start + block.shape[1]] = block[0] / len(chosen)
            result[name] = value.reshape(weights[name].shape)
        return result

    def warnings(self) -> tuple[str, ...]:
        """See `Aggregation.warnings`."""
        return self._warnings


def _distances(updates: Spool, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the squared Euclidean distances between all updates, shape [K, K]."""
    count = len(updates)
    distances = np.zeros((count, count))
    for name in names:
        for _, block in updates.blocks(name):
            for index in range(count - 1):
                difference = block[index + 1 :] - block[index]
                squares = np.einsum("ij,ij->i", difference, difference)
                distances[index, index + 1 :] += squares
                distances[index + 1 :, index] += squares
    return distances


def _scores(distances: NDArray[np.float64], liars: int) -> NDArray[np.float64]:
    """Return each update's sum of squared distances to its K - f - 2 nearest others."""
    count = len(distances)
    others = np.sort(distances + np.diag(np.full(count, np.inf)), axis=1)
    result: NDArray[np.float64] = others[:, : count - liars - 2].sum(axis=1)
    return result
