"""What the server optimisers share: moments that live from round to round, grow with the head, and are
kept.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.exact import ExactSum
from engram.federation.aggregation.fedavg import PLAIN_SUFFIXES, FedAvg
from engram.federation.messages import Tensors


class ServerOptimiser(FedAvg):
    """FedAvg whose mean is taken as a step Delta = mean - w of an optimiser at the aggregator."""

    def __init__(self) -> None:
        super().__init__()
        self._moments: dict[str, NDArray[np.float64]] = {}

    def moment(self, key: str, shape: tuple[int, ...], initial: float) -> NDArray[np.float64]:
        """Return the moment `key`, filled with `initial` where a tensor is new or has grown."""
        kept = self._moments.get(key)
        if kept is not None and kept.shape == shape:
            return kept
        grown = np.full(shape, initial, np.float64)
        if kept is not None and kept.ndim == grown.ndim:
            overlap = tuple(slice(0, min(old, new)) for old, new in zip(kept.shape, shape, strict=True))
            grown[overlap] = kept[overlap]
        self._moments[key] = grown
        return grown

    def keep(self, key: str, value: NDArray[np.float64]) -> None:
        """Remember the moment `key` for the next round."""
        self._moments[key] = value

    def next(self, name: str, current: NDArray[Any], total: ExactSum) -> NDArray[Any]:
        """See `FedAvg.next`."""
        if name.endswith(PLAIN_SUFFIXES):
            return super().next(name, current, total)
        before = current.astype(np.float64)
        return (before + self.move(name, total.mean(name) - before)).astype(current.dtype)

    @abstractmethod
    def move(self, name: str, delta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the step of one tensor for the pseudo-gradient `delta`."""

    def state(self) -> Tensors:
        """See `Aggregation.state`."""
        return dict(self._moments)

    def restore(self, state: Tensors) -> None:
        """See `Aggregation.restore`."""
        self._moments = {key: np.array(value, np.float64) for key, value in state.items()}
