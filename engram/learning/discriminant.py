"""A linear discriminant for a federation: classes told apart by their means and the spread that they share,
both exact sums over all workers, so that no image and no single feature leaves its worker.

Means alone (the nearest-mean classifier of `icarl`) take all directions of the feature space for equally
telling. Fisher's discriminant weighs them by the inverse of the common covariance: directions in which
images of one class differ anyway say little about the class. A closed form needs no further step of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engram.federation.messages import Tensors
from engram.federation.validation import check_like

Floats = NDArray[np.float64]
COUNTS, SUMS, SQUARES = "class_counts", "class_sums", "squares"
WEIGHT, BIAS = "weight", "bias"
SLACK = 1e-3
"""Relative deviation that rounding may cause in features of length 1."""


class Moments(NamedTuple):
    """What is left of features [n, d] of length 1: zeroth, first and second moments."""

    counts: NDArray[np.int64]
    """[rows]."""
    sums: Floats
    """[rows, d]."""
    squares: Floats
    """[2, d, d]: sums of f f^T over old classes, and over new ones; exemplars and a task's plentiful samples
    must not be weighed as one."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return them by name, to travel."""
        return {COUNTS: self.counts, SUMS: self.sums, SQUARES: self.squares}


def moments_of(features: Sequence[Tensor], old: int) -> Moments:
    """Return the moments of each class's `features` [n, d], row by row; the first `old` rows are old."""
    size = features[0].shape[1]
    counts = np.array([len(part) for part in features], np.int64)
    sums = np.zeros((len(features), size))
    squares = np.zeros((2, size, size))
    for row, part in enumerate(features):
        exact = part.double().cpu().numpy()
        sums[row] = exact.sum(axis=0)
        squares[int(row >= old)] += exact.T @ exact
    return Moments(counts, sums, squares)


def check_moments(results: Tensors, rows: int, size: int, old: int) -> None:
    """Raise ValueError unless `results` can be the moments of features of length 1."""
    expected = Moments(np.empty(rows, np.int64), np.empty((rows, size)), np.empty((2, size, size)))
    check_like(results, expected.tensors())
    counts, sums, squares = (results[name] for name in (COUNTS, SUMS, SQUARES))
    if counts.min(initial=0) < 0:
        raise ValueError("a class with fewer than no samples")
    if (np.linalg.norm(sums, axis=1) > counts * (1 + SLACK)).any():
        raise ValueError("sums that are longer than that many features of length 1")
    traces = np.trace(squares, axis1=1, axis2=2)
    # Length 1, or 0 where an image has no feature at all.
    if (traces > np.array([counts[:old].sum(), counts[old:].sum()]) * (1 + SLACK)).any():
        raise ValueError("squares that are larger than those of that many features of length 1")


def total(parts: Sequence[Tensors]) -> Moments:
    """Return the sum of the workers' moments, in the order given."""
    counts, sums, squares = (
        np.sum([part[name] for part in parts], axis=0) for name in (COUNTS, SUMS, SQUARES)
    )
    return Moments(counts, sums, squares)


def discriminant(moments: Moments, old: int, shrinkage: float) -> dict[str, NDArray[np.float32]]:
    """Return weight [rows, d] and bias [rows] of the scores w_c f + b_c; a class without samples gets -inf.

    With the mean m_c, and S the mean over classes, old and new by their number, of the pooled covariances
    within them, shrunk to S' = (1 - s) S + s tr(S)/d I (Ledoit and Wolf 2004, equation 14, s given):
    w_c = S'^-1 m_c and b_c = - m_c S'^-1 m_c / 2 + tr(S'^-1 S) / (2 n_c). The last term makes up for means
    of few samples: chance alone lengthens them by tr(S'^-1 S)/n_c, which would speak against old classes.
    """
    counts, sums, squares = moments
    known = counts > 0
    means = sums / np.maximum(counts, 1)[:, None]
    size = sums.shape[1]
    spread = np.zeros((size, size))
    for part, rows in ((squares[0], slice(0, old)), (squares[1], slice(old, None))):
        samples = counts[rows].sum()
        if samples:
            within = part - (means[rows].T * counts[rows]) @ means[rows]
            spread += known[rows].sum() / max(known.sum(), 1) * within / samples
    scale = np.trace(spread) / size
    # Without any spread (one image a class) all directions tell the same.
    shrunk = (1 - shrinkage) * spread + shrinkage * scale * np.eye(size) if scale > 0 else np.eye(size)
    weight = np.linalg.solve(shrunk, means.T).T
    effective = float(np.trace(np.linalg.solve(shrunk, spread)))
    bias = -0.5 * (weight * means).sum(axis=1) + 0.5 * effective / np.maximum(counts, 1)
    bias[~known] = -np.inf
    return {WEIGHT: weight.astype(np.float32), BIAS: bias.astype(np.float32)}


def discriminant_scores(features: Tensor, classifier: Tensors) -> Tensor:
    """Return scores [b, rows] of `features` [b, d], which are brought to length 1 first."""
    weight, bias = (
        torch.from_numpy(np.array(classifier[name])).to(features.device) for name in (WEIGHT, BIAS)
    )
    return functional.linear(functional.normalize(features.float(), dim=1), weight, bias)
