"""Updates of an earlier version of the model than the one they are added to, for asynchronous rounds.

What counts of an update is the change that it made, Delta = w_k - w_base. It is discounted by 1 / sqrt(1 + t)
where t is the number of rounds that have closed since its base (Nguyen et al. 2022, section 5). Rules take
whole models, so they are given the model as it is now, moved by the discounted change.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.federation.aggregation.fedavg import PLAIN_SUFFIXES
from engram.federation.messages import Tensors, Update


def discount(staleness: int) -> float:
    """Return the share of its change that an update counts with that is so many rounds behind."""
    return 1.0 / math.sqrt(1.0 + staleness)


class Versions:
    """The models that updates may still be based on: of the open round and those shortly before it."""

    def __init__(self, most: int) -> None:
        """Keep `most` earlier versions beside the newest."""
        self._most = most
        self._task = 0
        self._models: dict[int, Tensors] = {}

    def add(self, task: int, round: int, weights: Tensors) -> None:
        """Keep the model that opens a round; those of an earlier task and too old ones go."""
        kept = self._models if task == self._task else {}
        self._task = task
        self._models = {base: model for base, model in kept.items() if round - self._most <= base < round}
        self._models[round] = weights

    def brought_forward(self, update: Update) -> Update:
        """Return an update of the open round's task as one of its model, with its staleness as a metric."""
        newest = max(self._models)
        staleness = newest - update.round
        metrics = {**update.metrics, "staleness": float(staleness)}
        if staleness == 0 or update.samples == 0:
            return replace(update, metrics=metrics)
        base, model, share = self._models[update.round], self._models[newest], discount(staleness)
        weights = {name: _moved(name, given, base, model, share) for name, given in update.weights.items()}
        return replace(update, weights=weights, metrics=metrics)


def _moved(name: str, given: NDArray[Any], base: Tensors, model: Tensors, share: float) -> NDArray[Any]:
    """Return one tensor of the model, moved by a share of what training changed; counters stay as given."""
    if not np.issubdtype(given.dtype, np.floating):
        return given
    # Statistics of normalisation layers are blended: a variance that is moved could become negative.
    start = model[name] if name.endswith(PLAIN_SUFFIXES) else base[name]
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        moved: NDArray[Any] = (model[name] + share * (given - start)).astype(given.dtype)
    return moved
