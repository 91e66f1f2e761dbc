"""The discriminant of a federation: exact sums, a closed form, and what a worker may not send."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor
from torch.nn import functional

from engram.federation.messages import Tensors
from engram.learning.discriminant import (
    check_moments,
    discriminant,
    discriminant_scores,
    moments_of,
    total,
)


def features(count: int, size: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, size, generator=generator), dim=1)


@given(some.lists(some.integers(0, 5), min_size=3, max_size=3), some.integers(1, 4))
def test_sums_over_workers_are_those_of_all_samples_together(counts: list[int], workers: int) -> None:
    classes = [features(workers * count, seed=row) for row, count in enumerate(counts)]
    parts = [
        moments_of([part[worker::workers] for part in classes], 2).tensors() for worker in range(workers)
    ]
    for part in parts:
        check_moments(part, 3, 4, 2)
    together, summed = moments_of(classes, 2), total(parts)
    assert summed.counts.tolist() == together.counts.tolist() == [workers * count for count in counts]
    assert np.allclose(summed.sums, together.sums)
    assert np.allclose(summed.squares, together.squares)


def test_two_classes_by_hand() -> None:
    """Means (.6, .8) and (.6, -.8); four samples each, +-.1 along the first axis: not of length 1, but the
    formulas do not ask.
    """
    above = torch.tensor([[0.7, 0.8], [0.5, 0.8], [0.7, 0.8], [0.5, 0.8]])
    below = above * torch.tensor([1.0, -1.0])
    made = discriminant(moments_of([above, below], 1), 1, shrinkage=0.5)
    # S = diag(.01, 0), tr S / 2 = .005: S' = .5 S + .5 x .005 I = diag(.0075, .0025).
    assert np.allclose(made["weight"], [[80, 320], [80, -320]], rtol=1e-5)
    # - m S'^-1 m / 2 = - (.36 / .0075 + .64 / .0025) / 2 = -152; tr(S'^-1 S) / (2 x 4) = (.01 / .0075) / 8.
    assert np.allclose(made["bias"], [-152 + 1 / 6] * 2, rtol=1e-5)


def test_old_and_new_classes_weigh_by_their_number_not_by_their_samples() -> None:
    old = [torch.tensor([[0.1, 0.0], [-0.1, 0.0]])]
    new = [torch.tensor([[0.0, 0.3], [0.0, -0.3]] * many) for many in (50, 50, 50)]
    made = discriminant(moments_of([*old, *new], 1), 1, shrinkage=1e-9)
    # Spread: 1/4 of diag(.01, 0) and 3/4 of diag(0, .09); effective dimension 2, n = 2 and 100.
    assert np.allclose(made["bias"], [2 / 4, *[2 / 200] * 3], rtol=1e-4)


def test_it_tells_apart_what_nearest_means_cannot() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 400, 2, generator=generator) * torch.tensor([0.5, 0.02])
    means = torch.tensor([[3.0, 0.0, 0.1], [3.0, 0.0, -0.1]])
    samples = means.unsqueeze(1) + functional.pad(noise, (1, 0))
    unit = functional.normalize(samples, dim=2)
    made = discriminant(moments_of([part[:200] for part in unit], 0), 0, 0.01)
    right = [
        (discriminant_scores(samples[row, 200:], made).argmax(1) == row).float().mean() for row in (0, 1)
    ]
    assert min(right) > 0.99
    centres = functional.normalize(unit[:, :200].mean(1), dim=1)
    nearest = [((unit[row, 200:] @ centres.T).argmax(1) == row).float().mean() for row in (0, 1)]
    assert max(nearest) < 0.99


def test_a_class_without_samples_is_never_predicted() -> None:
    made = discriminant(moments_of([features(8), features(0), features(8, seed=2)], 2), 2, 0.1)
    assert made["bias"][1] == -np.inf
    assert np.isfinite(made["weight"]).all()
    assert set(discriminant_scores(features(50, seed=3), made).argmax(1).tolist()) <= {0, 2}


@pytest.mark.parametrize("parts", [[features(1), features(1, seed=1)], [torch.zeros(3, 4), features(1)]])
def test_without_spread_it_is_the_nearest_mean(parts: list[Tensor]) -> None:
    made = discriminant(moments_of(parts, 1), 1, 0.1)
    assert np.allclose(made["weight"], torch.stack([part.mean(0) for part in parts]).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sent: {**sent, "class_counts": -sent["class_counts"]}, "fewer than no samples"),
        (lambda sent: {**sent, "class_sums": 3 * sent["class_sums"]}, "sums that are longer"),
        (lambda sent: {**sent, "squares": 2 * sent["squares"]}, "squares that are larger"),
        (lambda sent: {**sent, "squares": sent["squares"][:, :2]}, "squares"),
        (lambda sent: {**sent, "class_counts": sent["class_counts"].astype(np.float64)}, "class_counts"),
        (lambda sent: {"class_sums": sent["class_sums"]}, "class_counts|names"),
    ],
)
def test_what_no_features_could_give_is_refused(change: Callable[[Tensors], Tensors], message: str) -> None:
    sent = moments_of([features(3), features(3)], 1).tensors()
    with pytest.raises(ValueError, match=message):
        check_moments(change(sent), 2, 4, 1)
