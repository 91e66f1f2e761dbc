"""Learners that learn nothing: the benchmark's models have the right size and nobody trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from engram.federation.messages import (
    EMPTY,
    ClassCounts,
    Consolidate,
    Consolidated,
    Evaluate,
    Shared,
    Tensors,
    Train,
    Update,
)
from engram.federation.roles import Progress

TENSORS = 16
"""A model is cut into so many tensors of unequal sizes."""
SAMPLES = 100


def model_of(parameters: int) -> Tensors:
    """Return a model of so many float32 numbers."""
    shares = np.arange(1, TENSORS + 1)
    sizes = parameters * shares // shares.sum()
    sizes[-1] += parameters - sizes.sum()
    draw = np.random.default_rng(parameters)
    return {f"layer{index}": draw.normal(size=size).astype(np.float32) for index, size in enumerate(sizes)}


class IdleWorker:
    """Sends the global weights back as they came, or a little larger, so that there is something to compress;
    `on_order` is called first.
    """

    samples = SAMPLES
    split_digest = "none"
    device = "cpu"

    def __init__(self, on_order: Callable[[], None], *, moves: bool = False) -> None:
        self._on_order, self._moves = on_order, moves

    def restore(self, state: bytes) -> None:
        """Start afresh: there is no state."""

    def train(self, order: Train, progress: Progress) -> Update:
        """Return the order's weights."""
        self._on_order()
        weights = order.weights
        if self._moves:
            weights = {name: array * np.float32(1.001) for name, array in weights.items()}
        return Update(order.task, order.round, self.samples, weights)

    def consolidate(self, order: Consolidate) -> Consolidated:
        """Return nothing learnt."""
        self._on_order()
        return Consolidated(order.task, self.samples)

    def evaluate(self, order: Evaluate) -> ClassCounts:
        """Return no counts."""
        return ClassCounts({}, {})


class IdleModel:
    """A model that is only averaged; `on_closed` is called when a round's sum is closed."""

    split_digest = "none"
    wants_models = False

    def __init__(self, parameters: int, on_closed: Callable[[], None]) -> None:
        self._parameters, self._on_closed = parameters, on_closed

    def seen(self, task: int) -> tuple[int, ...]:
        """Return the one class that there is."""
        return (0,)

    def begin_task(self, task: int, weights: Tensors | None) -> Tensors:
        """Return the same random model for every task."""
        return model_of(self._parameters)

    def shared(self, worker: str, task: int, round: int) -> Shared:
        """Return nothing beside the weights."""
        return {}

    def check_info(self, task: int, weights: Tensors, info: Tensors) -> None:
        """Take any: nobody looks at it."""

    def server_step(
        self, task: int, round: int, before: Tensors, weights: Tensors, updates: Mapping[str, Update]
    ) -> Tensors:
        """Return what the aggregation rule made."""
        return weights

    def close_round(self, task: int, round: int, weights: Tensors, updates: Mapping[str, Update]) -> None:
        """Take the time."""
        self._on_closed()

    def check_results(self, task: int, weights: Tensors, results: Tensors) -> None:
        """Take any: nobody looks at them."""

    def close_task(self, task: int, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Return the weights as they are."""
        return weights

    def evaluate(self, task: int, weights: Tensors) -> ClassCounts:
        """Return no counts: evaluation is off."""
        return ClassCounts({0: 0}, {0: 1})

    def initial_counts(self) -> ClassCounts | None:
        """Return nothing."""
        return None

    def state(self) -> Tensors:
        """Return no state."""
        return EMPTY

    def restore(self, task: int, state: Tensors) -> None:
        """Take no state over."""
