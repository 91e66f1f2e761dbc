"""The aggregator's side of a job whose model and data engram does not know: both are in the workers' image.

The first update brings the model; nothing is evaluated, because there is no test set that it could be shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from engram.federation.messages import EMPTY, ClassCounts, Consolidated, Shared, Tensors, Update


class BlindLearner:
    """Implements `engram.federation.roles.GlobalLearner` without a model."""

    wants_models = False

    def __init__(self, split_digest: str) -> None:
        self.split_digest = split_digest

    def seen(self, task: int) -> tuple[int, ...]:
        """Return no classes: which there are is the workers' business."""
        return ()

    def begin_task(self, task: int, weights: Tensors | None) -> Tensors:
        """Return the weights as they are, at the start none."""
        return EMPTY if weights is None else weights

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
        """Learn nothing."""

    def check_results(self, task: int, weights: Tensors, results: Tensors) -> None:
        """Take any: nobody looks at them."""

    def close_task(self, task: int, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Return the weights as they are."""
        return weights

    def evaluate(self, task: int, weights: Tensors) -> ClassCounts:
        """Return no counts."""
        return ClassCounts({}, {})

    def initial_counts(self) -> ClassCounts | None:
        """Return none."""
        return None

    def state(self) -> Tensors:
        """Return nothing."""
        return EMPTY

    def restore(self, task: int, state: Tensors) -> None:
        """Take nothing over."""
