"""Sharing out the samples of one task among the workers: one pure function a method.

Each takes the labels of the task's samples and answers with the owner of each sample (a worker's position);
so every sample has exactly one owner by construction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engram.errors import ConfigurationError
from engram.spec.data import Partition

Labels = NDArray[np.int64]
Owners = NDArray[np.int64]
"""For each sample the position of the worker that holds it, shape [n]."""

MAX_DRAWS = 10_000
"""So often the Dirichlet draw of a task is repeated for `minSamples` before the job is refused."""

SHARDS_PER_WORKER = 2
"""Label-sorted shards that a worker gets of each task (McMahan 2017, section 3, per task)."""


def owners(
    partition: Partition, labels: Labels, workers: int, random: np.random.RandomState, task: int
) -> Owners:
    """Return who owns each sample of task `task` (counted from 1; for the error only).

    Raises ConfigurationError when `minSamples` cannot be met.
    """
    if workers * partition.min_samples > len(labels):
        raise ConfigurationError(
            f"{workers} workers with at least {partition.min_samples} samples each need "
            f"{workers * partition.min_samples} samples, but task {task} has {len(labels)}",
            field="spec.dataset.partition.minSamples",
            remedy=f"write {len(labels) // workers} or less",
        )
    if partition.method == "dirichlet":
        found = dirichlet(labels, workers, partition.alpha, partition.min_samples, random)
    elif partition.method == "shards":
        found = shards(labels, workers, random)
    else:
        found = iid(len(labels), workers, random)
    if found is None or np.bincount(found, minlength=workers).min() < partition.min_samples:
        raise ConfigurationError(
            f"no draw of method {partition.method} gave each of the {workers} workers "
            f"{partition.min_samples} samples of task {task}",
            field="spec.dataset.partition.minSamples",
            remedy="write a smaller number, a larger alpha, or fewer workers"
            if partition.method == "dirichlet"
            else "write a smaller number or fewer workers",
        )
    return found


def iid(samples: int, workers: int, random: np.random.RandomState) -> Owners:
    """Return equal random shares: sizes differ by at most one, and chance decides who has one more."""
    found = np.empty(samples, np.int64)
    found[random.permutation(samples)] = random.permutation(workers)[np.arange(samples) % workers]
    return found


def shards(labels: Labels, workers: int, random: np.random.RandomState) -> Owners:
    """Return two label-sorted shards a worker: most workers see few of the task's classes."""
    count = workers * SHARDS_PER_WORKER
    shuffled = random.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    owner_of_shard = random.permutation(count) // SHARDS_PER_WORKER
    found = np.empty(len(labels), np.int64)
    found[by_label] = owner_of_shard[np.arange(len(labels)) * count // max(len(labels), 1)]
    return found


def dirichlet(
    labels: Labels, workers: int, alpha: float, min_samples: int, random: np.random.RandomState
) -> Owners | None:
    """Return shares whose sizes are drawn per class from Dirichlet(alpha) (Hsu 2019, arXiv 1909.06335).

    The sizes of all classes are drawn again until every worker has `min_samples` over the task; None after
    MAX_DRAWS draws in vain.
    """
    classes, counts = np.unique(labels, return_counts=True)
    for _ in range(MAX_DRAWS):
        ends = np.cumsum(_proportions(len(classes), workers, alpha, random), axis=1) * counts[:, None]
        cuts = np.floor(ends + 0.5).astype(np.int64)
        cuts[:, -1] = counts
        sizes = np.diff(cuts, axis=1, prepend=0)
        if sizes.sum(axis=0).min() >= min_samples:
            break
    else:
        return None
    found = np.empty(len(labels), np.int64)
    for label, row in zip(classes, sizes, strict=True):
        found[random.permutation(np.flatnonzero(labels == label))] = np.repeat(np.arange(workers), row)
    return found


def _proportions(rows: int, workers: int, alpha: float, random: np.random.RandomState) -> NDArray[np.float64]:
    """Draw Dirichlet(alpha) rows, shape [rows, workers], in logarithms so that no small alpha gives 0 / 0.

    Gamma(alpha) = Gamma(alpha + 1) * U^(1 / alpha) (Marsaglia and Tsang 2000, section 6).
    """
    concentration = max(alpha, 1e-9)  # below, one worker takes the whole class anyway
    gamma = random.standard_gamma(concentration + 1, (rows, workers))
    logarithm = np.log(gamma) + np.log1p(-random.random_sample((rows, workers))) / concentration
    weights: NDArray[np.float64] = np.exp(logarithm - logarithm.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
