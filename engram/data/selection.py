"""Which samples of a data set take part at all: caps per class, the hold-out for validation, the test set."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from engram.data.seeding import random_state
from engram.data.types import Indices
from engram.spec.job import FederatedIncrementalJob


def by_class(labels: NDArray[np.int64], classes: Iterable[int]) -> dict[int, Indices]:
    """Return the positions of each class in file order."""
    order = np.argsort(labels, kind="stable").astype(np.int64)
    ordered = labels[order]
    return {
        label: order[np.searchsorted(ordered, label, "left") : np.searchsorted(ordered, label, "right")]
        for label in classes
    }


def training_samples(
    job: FederatedIncrementalJob, labels: NDArray[np.int64], classes: Iterable[int]
) -> tuple[dict[int, Indices], Indices]:
    """Return the training positions of each class, and those held out for validation, both in file order.

    `samplesPerClass` is drawn by seed; `validationShare` is then taken from what is left, per class: at least
    one sample of a class that has two, never all of a class. The draw knows the seed and the class only, so
    machines with the same data hold out the same samples.
    """
    data, seed = job.spec.dataset, job.spec.seed
    kept: dict[int, Indices] = {}
    held_out: list[Indices] = []
    for label, positions in by_class(labels, classes).items():
        if data.samples_per_class is not None and len(positions) > data.samples_per_class:
            drawn = random_state(seed, "samples-per-class", label).permutation(positions)
            positions = np.sort(drawn[: data.samples_per_class])
        if data.validation_share > 0:
            drawn = random_state(seed, "validation", label).permutation(positions)
            count = _validation_count(data.validation_share, len(positions))
            held_out.append(drawn[:count])
            positions = np.sort(drawn[count:])
        kept[label] = positions
    return kept, np.sort(np.concatenate(held_out)) if held_out else np.empty(0, np.int64)


def _validation_count(share: float, samples: int) -> int:
    return max(0, min(samples - 1, max(1, math.floor(share * samples + 0.5))))


def evaluation_samples(
    job: FederatedIncrementalJob, labels: NDArray[np.int64], classes: Iterable[int]
) -> Indices:
    """Return the positions in the test part: of each class the first `testSamplesPerClass` in file order."""
    limit = job.spec.dataset.test_samples_per_class
    found = [positions[:limit] for positions in by_class(labels, classes).values()]
    return np.sort(np.concatenate(found))
