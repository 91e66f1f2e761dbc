"""What federation asks of learning: one protocol for a worker, one for the aggregator. Neither mentions
torch.

`engram.learning` implements both for every algorithm; the federation's tests and benchmarks implement them in
a few lines of numpy. All methods are synchronous and deterministic: the same job and the same arguments give
the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from engram.federation.messages import (
    ClassCounts,
    Consolidate,
    Consolidated,
    Evaluate,
    Shared,
    Tensors,
    Train,
    Update,
)

Progress: TypeAlias = Callable[[float, float], None]
"""Called during local training with (share of the steps done, latest loss); must be cheap and thread-safe."""


class LocalLearner(Protocol):
    """A worker's side: its data, its exemplars, its local training."""

    samples: int
    """All training samples that the worker holds over the whole job."""
    split_digest: str
    device: str

    def restore(self, state: bytes) -> None:
        """Take over the state that the aggregator kept at the end of the last task; empty: start afresh."""
        ...

    def train(self, order: Train, progress: Progress) -> Update:
        """Train one round from `order.weights`. Raises NumericalError when a loss is not finite."""
        ...

    def consolidate(self, order: Consolidate) -> Consolidated:
        """End a task: choose exemplars, compute class sums, Fisher ... with the task's final global weights.

        Idempotent by task: called twice for the same task it returns the same value.
        """
        ...

    def evaluate(self, order: Evaluate) -> ClassCounts:
        """Count right predictions on this worker's part of the test set."""
        ...


class Crew(Protocol):
    """Workers in one process that can train a round together. Optional: what it says is what each would have
    said alone, but for rounding.
    """

    @property
    def members(self) -> Mapping[str, LocalLearner]:
        """The workers by name."""
        ...

    def train(self, orders: Mapping[str, Train], progress: Mapping[str, Progress]) -> None:
        """Train the orders of one round, by worker, each of which that member's `train` is about to get: it
        then returns what was made here. Raises NumericalError when a loss is not finite.
        """
        ...


class GlobalLearner(Protocol):
    """The aggregator's side: the initial model, what goes down beside it, what becomes of what comes up,
    evaluation.
    """

    split_digest: str
    wants_models: bool
    """Whether `server_step` and `close_round` get the updates with their weights, one model a worker in
    memory."""

    def seen(self, task: int) -> tuple[int, ...]:
        """Return the label ids of tasks 1..task in learning order."""
        ...

    def begin_task(self, task: int, weights: Tensors | None) -> Tensors:
        """Return the weights that task `task` starts from: seeded for task 1 (`weights` is None), else with a
        grown head.
        """
        ...

    def shared(self, worker: str, task: int, round: int) -> Shared:
        """Return what `worker` gets beside the weights; round 0 is for consolidation. `worker` empty: for all
        alike.
        """
        ...

    def check_info(self, task: int, weights: Tensors, info: Tensors) -> None:
        """Raise ValueError, which says why, unless `server_step` and `close_round` can use the info of an
        update; `weights` are those that the round started from.
        """
        ...

    def server_step(
        self, task: int, round: int, before: Tensors, weights: Tensors, updates: Mapping[str, Update]
    ) -> Tensors:
        """Return what becomes of `before`, the round's weights: what the aggregation rule made of the updates
        (`weights`), or a correction of it with the same names, dtypes and shapes.

        Left out where no update was averaged. `updates` are those of `close_round`.
        """
        ...

    def close_round(self, task: int, round: int, weights: Tensors, updates: Mapping[str, Update]) -> None:
        """Learn of the new global weights and of each accepted update's metrics and info (their weights are
        dropped, unless `wants_models`).
        """
        ...

    def check_results(self, task: int, weights: Tensors, results: Tensors) -> None:
        """Raise ValueError, which says why, unless `close_task` can use the results of a worker's
        consolidation.
        """
        ...

    def close_task(self, task: int, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Take in what the workers consolidated; return the task's final weights (as given, or corrected)."""
        ...

    def evaluate(self, task: int, weights: Tensors) -> ClassCounts:
        """Evaluate on the whole test set of the classes seen (and of the unseen, if the job asks)."""
        ...

    def initial_counts(self) -> ClassCounts | None:
        """Return the counts of the freshly initialised model over all classes, when `evaluation.unseen` asks
        for them.
        """
        ...

    def state(self) -> Tensors:
        """Return what must survive a restart of the aggregator beside the weights."""
        ...

    def restore(self, task: int, state: Tensors) -> None:
        """Take over what `state` returned; `task` is the current task."""
        ...
