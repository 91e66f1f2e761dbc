"""The best old model: which global model of a task becomes the teacher of the next one.

The last model of a task need not be its best, since rounds on non-iid workers go up and down. A `Choice` says
how good the global models of a task are: `Counts` by what workers count, `proxy.ProxyServer` by images of
theirs. It starts anew with every task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

import numpy as np

from engram.data.types import Indices
from engram.federation.messages import Tensors
from engram.federation.validation import check_like
from engram.learning.context import GlobalContext, LocalContext, TaskScope
from engram.learning.memory import Memory
from engram.learning.tensors import copied, prefixed, unprefixed

COUNTS = "right_of_total"
"""Right and all samples of one worker, int64 [2]."""
BEST, CANDIDATE, SHARE = "best", "candidate", "best_share"


class BestModel:
    """Keeps the best global model of the task so far, on the aggregator."""

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

    def restore(self, state: Tensors) -> None:
        """Take over what `state` returned."""
        self._best, self._candidate = unprefixed(BEST, state), unprefixed(CANDIDATE, state)
        self._share = float(state[SHARE].item()) if SHARE in state else -1.0


class Choice(Protocol):
    """How the best old model is chosen, on either side."""

    def in_round(self, context: LocalContext, labelled: Indices) -> Tensors:
        """Worker: what to send with a round, whose received model is not trained yet."""
        ...

    def in_consolidation(self, context: LocalContext, labelled: Indices) -> Tensors:
        """Worker: what to send at the end of a task, before its exemplars are chosen."""
        ...

    def begin_run(self, context: GlobalContext) -> None:
        """Aggregator: take what judging may need."""
        ...

    def close_round(self, scope: TaskScope, round: int, weights: Tensors, sent: Collection[Tensors]) -> None:
        """Aggregator: take a round's new global model and what the workers that trained in it sent."""
        ...

    def check(self, scope: TaskScope, results: Tensors) -> None:
        """Aggregator: raise ValueError where `close_task` cannot use what a worker sent in consolidation."""
        ...

    def close_task(self, scope: TaskScope, final: Tensors, sent: Collection[Tensors]) -> Tensors:
        """Aggregator: return the best model of the task, `final` where nothing is known of any."""
        ...

    def state(self) -> Tensors:
        """Aggregator: what to keep over a restart."""
        ...

    def restore(self, state: Tensors) -> None:
        """Aggregator: take over what `state` returned."""
        ...


class Counts:
    """Each worker counts how many of its samples a model gets right, and the aggregator adds up.

    A round's counts tell of the model before it; the last model of a task is counted in consolidation. They
    run over up to the memory's quota of every class seen: exemplars of old classes, and labelled samples of
    the task's own, which the next task will call old. Exemplars of old classes alone would prefer a task's
    first model, which has learned nothing new yet, and would say nothing in the first task.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._best = BestModel()

    def in_round(self, context: LocalContext, labelled: Indices) -> Tensors:
        """Count what the received model gets right."""
        positions = self._samples(context, labelled)
        right = context.logits(positions).argmax(dim=1) == context.rows(positions)
        return {COUNTS: np.array([int(right.sum()), len(positions)], np.int64)}

    def in_consolidation(self, context: LocalContext, labelled: Indices) -> Tensors:
        """Count what the task's last model gets right."""
        return self.in_round(context, labelled)

    def _samples(self, context: LocalContext, labelled: Indices) -> Indices:
        new, quota = context.scope.classes, self._memory.quota(len(context.scope.seen))
        old = [kept for label, kept in self._memory.positions.items() if label not in new]
        return np.concatenate([part[:quota] for part in (*old, *context.by_class(labelled).values())])

    def begin_run(self, context: GlobalContext) -> None:
        """Counting needs nothing of the aggregator."""

    def close_round(self, scope: TaskScope, round: int, weights: Tensors, sent: Collection[Tensors]) -> None:
        """Judge the model before this round."""
        self._judge(scope, sent)
        self._best.propose(weights)

    def check(self, scope: TaskScope, results: Tensors) -> None:
        """Refuse counts that cannot be."""
        if results:
            check_counts(results, self._most(scope))

    def close_task(self, scope: TaskScope, final: Tensors, sent: Collection[Tensors]) -> Tensors:
        """Judge the last model too; return the best."""
        self._best.propose(final)
        self._judge(scope, sent)
        return self._best.settle() or final

    def state(self) -> Tensors:
        """Return the best model so far and the one to be judged next."""
        return self._best.state()

    def restore(self, state: Tensors) -> None:
        """Take them back."""
        self._best.restore(state)

    def _judge(self, scope: TaskScope, sent: Collection[Tensors]) -> None:
        pairs = (counted(results, self._most(scope)) for results in sent)
        self._best.judge([pair for pair in pairs if pair is not None])

    def _most(self, scope: TaskScope) -> int:
        """Return how many samples a worker may count."""
        return self._memory.quota(len(scope.seen)) * len(scope.seen)


def check_counts(results: Tensors, most: int) -> None:
    """Raise ValueError unless a worker's results hold counts of up to `most` samples; others may be there."""
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
