"""Label scarcity: which of a worker's samples show their label to training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engram.data.partition import Labels, Owners


def labelled_count(ratio: float, samples: int) -> int:
    """Return how many of a worker's `samples` of one class are labelled: max(1, floor(ratio n + .5)).

    None for ratio 0 (a worker with unlabelled data only) and where there is no sample.
    """
    if ratio <= 0 or samples == 0:
        return 0
    return min(samples, max(1, math.floor(ratio * samples + 0.5)))


def labelled_mask(
    labels: Labels, owners: Owners, ratios: Sequence[float], random: np.random.RandomState
) -> NDArray[np.bool_]:
    """Return which samples are labelled, shape [n]: `ratios[worker]` of each worker's samples, per class.

    The labelled ones are drawn, never cut from the front: files are often sorted by class, or by who wrote or
    photographed them. A smaller ratio labels a subset of what a larger one labels.
    """
    order = np.lexsort((random.random_sample(len(labels)), labels, owners))
    mask = np.zeros(len(labels), np.bool_)
    if len(order) == 0:
        return mask
    sorted_owners, sorted_labels = owners[order], labels[order]
    changes = (np.diff(sorted_owners) != 0) | (np.diff(sorted_labels) != 0)
    starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
    for start, size in zip(starts, np.diff(starts, append=len(order)), strict=True):
        mask[order[start : start + labelled_count(ratios[sorted_owners[start]], int(size))]] = True
    return mask
