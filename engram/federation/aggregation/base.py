"""What an aggregation rule is, for the built-in ones and for a user's own in one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from engram.errors import CheckpointError
from engram.federation.messages import EMPTY, Tensors, Update


class OutOfRange(ValueError):
    """An update holds values that no honest training from this global model gives; it was not added."""


class Aggregation(ABC):
    """A rule that makes the next global weights from a round's updates.

    A round is `begin`, then `add` for every update in the order of arrival, then `finish`. A rule whose
    result must not depend on that order has to see to it (the built-in ones do). Tensors with integers or
    truth values are counters, never averaged: the result keeps the global model's. A user's own rule is a
    subclass, named by `spec.aggregation.name: package.module:Class`, called with the job's parameters as a
    mapping.
    """

    def keep_in(self, directory: Path) -> None:
        """Use the volume of `directory` for what a round needs on disk; called once, where there is one."""
        return

    @abstractmethod
    def begin(self, weights: Tensors, total_samples: int) -> None:
        """Start a round from the global `weights`; the updates' samples will not sum to more than
        `total_samples`. It may be called again before the first `add`, when more is known.
        """

    def check(self, samples: int, magnitudes: Mapping[str, float]) -> None:
        """Raise OutOfRange when an update must not be added; asked before each `add`.

        `magnitudes` holds the largest absolute value of each of its floating-point tensors.
        """
        del samples, magnitudes  # no update is out of range for a rule without a grid

    @abstractmethod
    def add(self, worker: str, samples: int, weights: Tensors) -> None:
        """Take an update in: `samples` is its weight (at least 1), `weights` its full model.

        Names, dtypes, shapes and finiteness are checked already, and the rule's own `check`.
        The arrays may be views of a network buffer: keep copies or keep them as they are, do not write to
        them.
        """

    @abstractmethod
    def finish(self) -> Tensors:
        """Return the next global weights, with the names, order, dtypes and shapes given to `begin`.

        Called only when at least one update was added.
        """

    def close_round(self, updates: Mapping[str, Update]) -> None:
        """Learn what the round's workers reported beside their weights, by worker; after `finish`."""
        return

    def shared(self, worker: str) -> Tensors:
        """Return what `worker` gets beside the next round's weights, as the group `helper`."""
        return EMPTY

    def state(self) -> Tensors:
        """Return what must survive a restart between rounds, such as a server optimiser's moments."""
        return EMPTY

    def restore(self, state: Tensors) -> None:
        """Take over what `state` returned. Raises CheckpointError when this rule keeps no state."""
        if state:
            raise CheckpointError("the checkpoint holds state of an aggregation rule that keeps none")

    def warnings(self) -> tuple[str, ...]:
        """Return sentences about the last finished round that a reader of the report must see."""
        return ()


def averaged_names(weights: Tensors) -> tuple[str, ...]:
    """Return the names of the tensors that a rule combines: those with floating-point elements."""
    return tuple(name for name, array in weights.items() if array.dtype.kind == "f")
