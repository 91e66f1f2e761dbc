"""Exemplars: which of its own labelled samples a worker keeps after the data of a task have gone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engram.data.types import Indices
from engram.federation.messages import Tensors


def herding(features: Tensor, count: int) -> list[int]:
    """Return `count` positions in `features` [n, d], best first, without repeats (all of them if n is less).

    iCaRL (Rebuffi et al. 2017), algorithm 4: the k-th exemplar is the sample that brings the mean of the
    first k closest to the mean of all, argmin_x || mu - (phi(x) + sum_{j<k} phi(p_j)) / k ||. The norm is
    taken per sample, and a sample once taken is out. Features are normalised here; ties go to the lower
    position.
    """
    unit = functional.normalize(features.double(), dim=1)
    mean = unit.mean(dim=0)
    total = torch.zeros_like(mean)
    free = torch.ones(len(unit), dtype=torch.bool, device=unit.device)
    chosen: list[int] = []
    for k in range(1, min(count, len(unit)) + 1):
        distance = (mean - (unit + total) / k).norm(dim=1)
        best = int(distance.masked_fill(~free, torch.inf).argmin())
        free[best] = False
        total += unit[best]
        chosen.append(best)
    return chosen


def herding_first(features: Tensor, count: int, preferred: int) -> list[int]:
    """Return up to `count` positions: herding among the first `preferred`, then among all of them.

    For samples with labels before those with pseudo-labels: what is sure comes first, and what comes last
    goes first when the quota shrinks.
    """
    chosen = herding(features[:preferred], count)
    if len(chosen) < count:
        known = set(chosen)
        chosen += [place for place in herding(features, count) if place not in known]
    return chosen[:count]


class Memory:
    """A worker's exemplars: positions in the training set by label id, best first.

    `budget` is the number of exemplars over all classes; each seen class gets floor(budget / seen classes),
    at least 1. A budget of 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.positions: dict[int, Indices] = {}

    def quota(self, seen: int) -> int:
        """Return how many exemplars each of `seen` classes may have."""
        return max(1, self.budget // seen) if self.budget else 0

    def all(self) -> Indices:
        """Return the positions of all exemplars, class by class in the order they were learned."""
        if not self.positions:
            return np.empty(0, np.int64)
        return np.concatenate(list(self.positions.values()))

    def labels(self) -> Indices:
        """Return the label id under which each of `all` is kept: its own, or the one it was taken for."""
        counts = [len(kept) for kept in self.positions.values()]
        return np.repeat(np.array(list(self.positions), np.int64), counts)

    def learn(
        self,
        candidates: Mapping[int, tuple[Indices, Tensor]],
        seen: int,
        preferred: Mapping[int, int] | None = None,
    ) -> None:
        """Shrink the classes held to the quota for `seen` classes and choose exemplars of new ones.

        `candidates` maps a label id to the positions of its samples and their features [n, d]; of these the
        first `preferred` are taken before the others (default: all are alike). Shrinking keeps the first
        ones, which herding made the best (algorithm 5).
        """
        quota = self.quota(seen)
        if quota == 0:
            return
        self.positions = {label: kept[:quota] for label, kept in self.positions.items()}
        for label, (positions, features) in candidates.items():
            if len(positions):
                first = len(positions) if preferred is None else preferred[label]
                self.positions[label] = positions[herding_first(features, quota, first)]

    def state(self) -> Tensors:
        """Return the exemplars as arrays of the smallest integer type that holds them."""
        counts = [len(kept) for kept in self.positions.values()]
        return {
            "exemplars/labels": _compact(np.array(list(self.positions), np.int64)),
            "exemplars/counts": _compact(np.array(counts, np.int64)),
            "exemplars/positions": _compact(self.all()),
        }

    def restore(self, state: Tensors) -> None:
        """Take over what `state` returned; an empty mapping means no exemplars."""
        self.positions = {}
        if not state:
            return
        ends = np.cumsum(state["exemplars/counts"], dtype=np.int64)
        parts = np.split(np.asarray(state["exemplars/positions"], np.int64), ends[:-1])
        labels = [int(label) for label in state["exemplars/labels"]]
        self.positions = dict(zip(labels, parts, strict=False))


def _compact(values: Indices) -> np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]:
    """Return `values` (none negative) as uint8, uint16, uint32 or uint64."""
    largest = int(values.max(initial=0))
    return values.astype(np.min_scalar_type(largest))
