"""Which workers a round asks, and how many of them must answer: pure functions of seed and names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Quorum:
    """Updates that must be in when the deadline closes a round: a number, or a share of those asked."""

    count: int | None = None
    share: float = 1.0

    @classmethod
    def parse(cls, value: int | str) -> Quorum:
        """Return the quorum that a job file wrote as 3, "3" or "80%"; its bounds are the spec's business."""
        text = str(value).strip()
        if text.endswith("%"):
            return cls(share=float(text[:-1]) / 100)
        return cls(count=int(text))

    def of(self, asked: int) -> int:
        """Return how many of `asked` workers are needed: at least one, at most all of them."""
        wanted = math.ceil(self.share * asked - 1e-9) if self.count is None else self.count
        return max(1, min(wanted, asked))


def sample(seed: int, task: int, round: int, workers: Sequence[str], fraction: float) -> tuple[str, ...]:
    """Return the workers that a round asks, sorted by name: floor(fraction n + .5) of n, at least one.

    Every worker draws a number from hash(seed, "sample", task, round, worker) and the smallest win. So the
    choice depends on who is known to the job, not on who is connected, and is the same after a restart.
    """
    size = max(1, math.floor(fraction * len(workers) + 0.5))

    def draw(worker: str) -> bytes:
        return hashlib.sha256(f"{seed}/sample/{worker}/{task}/{round}".encode()).digest()

    return tuple(sorted(sorted(workers, key=draw)[:size]))
