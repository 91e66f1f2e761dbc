"""The best old model: which global model of a task becomes the teacher of the next one.

The last model of a task need not be its best, since rounds on non-iid workers go up and down. So each worker
counts how many of its samples the model it receives gets right, the aggregator adds the counts up, and the
best model of the task is kept. A round's counts tell of the model before it: the last model of a task is
counted in consolidation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from engram.data.types import Indices
from engram.federation.messages import Tensors
from engram.federation.validation import check_like
from engram.learning.context import LocalContext
from engram.learning.memory import Memory
from engram.learning.tensors import copied, prefixed, unprefixed

COUNTS = "right_of_total"
"""Right and all samples of one worker, int64 [2]."""
BEST, CANDIDATE, SHARE = "best", "candidate", "best_share"


def validation_samples(context: LocalContext, memory: Memory, labelled: Indices) -> Indices:
    """Return up to the memory's quota of every class seen: exemplars of old classes, the first of `labelled`
    of new ones, which the next task will call old.

    Exemplars of old classes alone would prefer a task's first model, which has learned nothing new yet.
    """
    quota = memory.quota(len(context.scope.seen))
    parts = [kept[:quota] for label, kept in memory.positions.items() if label not in context.scope.classes]
    parts += [found[:quota] for found in context.by_class(labelled).values()]
    return np.concatenate(parts)


def right_of_total(context: LocalContext, positions: Indices) -> NDArray[np.int64]:
    """Return how many of `positions` `context.network` gets right, and their number."""
    rows = context.logits(positions).argmax(dim=1)
    right = int((rows == context.rows(positions)).sum())
    return np.array([right, len(positions)], np.int64)


def check_counts(results: Tensors, most: int) -> None:
    """Raise ValueError unless a worker's results have what `right_of_total` returns for up to `most` samples.

    Others may stand beside it.
    """
    counts = {name: array for name, array in results.items() if name == COUNTS}
    check_like(counts, {COUNTS: np.zeros(2, np.int64)})
    right, total = (int(count) for count in counts[COUNTS])
    if not 0 <= right <= total <= most:
        raise ValueError(f"{right} right of {total} samples, where a worker keeps at most {most}")


def counted(results: Tensors, most: int) -> tuple[int, int] | None:
    """Return (right, total) out of a worker's results; None where `check_counts` would refuse them."""
    try:
        check_counts(results, most)
    except ValueError:
        return None
    right, total = results[COUNTS]
    return int(right), int(total)


class BestModel:
    """The aggregator's side: keeps the best global model of the task so far."""

    def __init__(self) -> None:
        self._candidate: Tensors = {}
        """The global model that the next counts tell of."""
        self._best: Tensors = {}
        self._share = -1.0
        """Right of all samples of the best one."""

    def propose(self, weights: Tensors) -> None:
        """Take a round's new global model, by value."""
        self._candidate = copied(weights)

    def judge(self, counts: Iterable[tuple[int, int]]) -> bool:
        """Take (right, total) of the workers for the model proposed last; return whether it is the best now.

        Of equals the later one is better: it was trained longer. Without any sample nothing is known of it.
        """
        pairs = list(counts)
        right, total = (sum(pair[place] for pair in pairs) for place in (0, 1))
        if not self._candidate or total == 0 or right / total < self._share:
            return False
        self._best, self._share = self._candidate, right / total
        return True

    def settle(self) -> Tensors:
        """End a task: return its best model, empty if none was ever judged, and forget it.

        A best model kept beyond its task would never be beaten: later ones have more classes to tell apart.
        """
        best = self._best
        self._candidate, self._best, self._share = {}, {}, -1.0
        return best

    def state(self) -> Tensors:
        """Return what to keep over a restart; empty between tasks."""
        if not self._candidate:
            return {}
        models = {**prefixed(BEST, self._best), **prefixed(CANDIDATE, self._candidate)}
        return {**models, SHARE: np.array(self._share)}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over what `state` returned."""
        self._best, self._candidate = unprefixed(BEST, state), unprefixed(CANDIDATE, state)
        self._share = float(state[SHARE].item()) if SHARE in state else -1.0
