"""Which process is killed when: drawn from a seed, the instants that must be hit among them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WORKER: Final = "a worker at random"
AGGREGATOR: Final = "the aggregator at random"
INSTANTS: Mapping[str, str] = {
    "update-sent": "a worker right after its update was sent",
    "checkpoint-before-rename": "the aggregator before its checkpoint was renamed",
    "checkpoint-after-rename": "the aggregator after its checkpoint was renamed",
    "manifest-before-rename": "the aggregator before its manifest was renamed",
    "consolidate-worker": "a worker inside consolidate",
    "consolidate-aggregator": "the aggregator inside consolidate",
}
"""Instants that `instants/sitecustomize.py` knows, in words."""
AT_TASK_END = ("consolidate-worker", "consolidate-aggregator")
OF_WORKERS = (WORKER, "update-sent", "consolidate-worker")
LONGEST_DELAY = 0.8
"""Seconds: several rounds. A process takes longer to start again, so it is hit while it starts, too."""
STORMY = 0.75
"""Share of the rounds that kills wait for; in the others those that came late find their instants."""


@dataclass(frozen=True)
class Kill:
    """One kill: once so many rounds are closed, then after `delay` seconds or when the next one closes."""

    target: str
    after_round: int
    delay: float
    choice: float
    """Says which worker, 0 up to 1."""

    @property
    def of_aggregator(self) -> bool:
        """Whether it ends the aggregator."""
        return self.target not in OF_WORKERS

    @property
    def words(self) -> str:
        """What is killed."""
        return INSTANTS.get(self.target, self.target)


def plan(seed: int, kills: int, certain: Sequence[str], tasks: int, rounds: int) -> list[Kill]:
    """Return `kills` kills in their order, spread over `tasks` of `rounds` rounds each.

    Those of `certain` are among them; a quarter of the others is the aggregator's. The n-th that belongs to a
    task's end gets that of the n-th task.
    """
    rng = random.Random(seed)
    ends = [target for target in certain if target in AT_TASK_END]
    others = [target for target in certain if target not in AT_TASK_END]
    free = kills - len(certain)
    others += [AGGREGATOR] * ((free + 2) // 4) + [WORKER] * (free - (free + 2) // 4)
    rng.shuffle(others)
    last = STORMY * tasks * rounds
    placed = [((place + 1) * rounds - 1, target) for place, target in enumerate(ends)]
    placed += [(int(last * (place + rng.random()) / len(others)), name) for place, name in enumerate(others)]
    placed.sort(key=lambda item: item[0])
    # Rounds take a tenth of the longest delay: most delays are short.
    return [Kill(name, after, LONGEST_DELAY * rng.random() ** 3, rng.random()) for after, name in placed]
