"""Unlabelled samples at the end of a task: which class the task's final model takes them for, and how they
fill up the exemplars that too few labels leave room for.

Guesses stay guesses: a sample is kept under the class that it was taken for, and its hidden label decides
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engram.data.types import Indices
from engram.learning.context import LocalContext
from engram.learning.memory import Memory
from engram.learning.pseudo import within


def guessed(context: LocalContext, barred: int) -> dict[int, Indices]:
    """Return the task's unlabelled samples by the new class that the final model takes them for.

    No guess is one of the first `barred` rows; samples that are taken for an old class are left out.
    """
    scope = context.scope
    positions = context.share.tasks[scope.task - 1].unlabelled
    rows = within(context.logits(positions), barred).argmax(dim=1).cpu().numpy()
    return {label: positions[rows == row] for row, label in enumerate(scope.seen) if row >= scope.old}


def joined(labelled: Mapping[int, Indices], guesses: Mapping[int, Indices]) -> dict[int, Indices]:
    """Return each class's labelled samples, and after them those taken for it."""
    return {label: np.concatenate([found, guesses[label]]) for label, found in labelled.items()}


def remember(
    memory: Memory, context: LocalContext, pool: Mapping[int, Indices], labelled: Mapping[int, Indices]
) -> None:
    """Choose exemplars of the task's classes among `pool`; of it the `labelled` ones, which are first, go
    before others.
    """
    memory.learn(
        {label: (found, context.features(found)) for label, found in pool.items()},
        len(context.scope.seen),
        {label: len(found) for label, found in labelled.items()},
    )
