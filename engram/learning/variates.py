"""What some algorithms keep on the aggregator for every worker: a vector of the model's shape that tells the
worker's objective from everybody's (scaffold's control variates, feddyn's local gradients).

The aggregator can compute it from the weights that a worker sends anyway, so that nothing more goes up and
workers stay without state. It costs one model a worker in the aggregator's memory and in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.federation.messages import Tensors
from engram.learning.tensors import prefixed, unprefixed

VECTOR, SAMPLES = "vector", "samples"


def moves(before: Tensors, after: Tensors, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return after - before of the tensors `names`, in float64, which no two float32 overflow."""
    return {name: after[name].astype(np.float64) - before[name] for name in names}


class Variates:
    """The workers' vectors of one task, zero before a worker's first round, and their mean."""

    def __init__(self, workers: Sequence[str]) -> None:
        self._workers = frozenset(workers)
        self._mean: dict[str, NDArray[np.float64]] | None = None
        """What `mean` returns, until a vector changes."""
        self._vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
        self._samples: dict[str, int] = {}
        """Weight of each worker that was heard of; 0: it has no data of the task."""

    def put(self, worker: str, samples: int, vector: Tensors) -> None:
        """Keep a worker's new vector, unless it is not of finite float32: then the old one stays."""
        with np.errstate(over="ignore"):
            small = {name: np.asarray(array, np.float32) for name, array in vector.items()}
        if all(np.isfinite(array).all() for array in small.values()):
            self._vectors[worker] = small
            self._samples[worker] = samples
            self._mean = None

    def abstain(self, worker: str) -> None:
        """Note that a worker has no data of the task: the federation's objective is without it."""
        self._vectors.pop(worker, None)
        self._samples[worker] = 0
        self._mean = None

    def of(self, worker: str) -> Tensors:
        """Return a worker's vector; empty for zero."""
        return self._vectors.get(worker, {})

    def mean(self) -> dict[str, NDArray[np.float64]]:
        """Return the mean over all workers that may have data of the task, weighted by their samples.

        Those that were not sampled yet count with a vector of zero and an average weight. Empty as long as
        nobody has a vector.
        """
        if self._mean is None:
            self._mean = self._weighted() if self._vectors else {}
        return self._mean

    def _weighted(self) -> dict[str, NDArray[np.float64]]:
        absent = [worker for worker, samples in self._samples.items() if samples == 0]
        taking_part = len((self._workers | self._vectors.keys()) - {*absent})
        share = len(self._vectors) / taking_part / sum(self._samples[worker] for worker in self._vectors)
        total: dict[str, NDArray[Any]] = {}
        for worker, vector in sorted(self._vectors.items()):
            for name, array in vector.items():
                part = self._samples[worker] * array.astype(np.float64)
                total[name] = total[name] + part if name in total else part
        return {name: array * share for name, array in total.items()}

    def clear(self) -> None:
        """Forget all: a new task is a new objective, and its head has rows that the vectors lack."""
        self._vectors, self._samples, self._mean = {}, {}, None

    def state(self) -> Tensors:
        """Return what must survive a restart."""
        samples = {worker: np.array(count, np.int64) for worker, count in self._samples.items()}
        vectors: dict[str, NDArray[Any]] = {}
        for worker, vector in self._vectors.items():
            vectors |= prefixed(f"{VECTOR}/{worker}", vector)
        return {**prefixed(SAMPLES, samples), **vectors}

    def restore(self, state: Tensors) -> None:
        """Take over what `state` returned."""
        self._samples = {worker: int(count) for worker, count in unprefixed(SAMPLES, state).items()}
        vectors = {worker: unprefixed(f"{VECTOR}/{worker}", state) for worker in self._samples}
        self._vectors = {worker: vector for worker, vector in vectors.items() if vector}
        self._mean = None
