"""What was tried on discmatch, by hand: two images without a label, of which the model says .8 and .6 new."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.fcil.tried import Adaptive, Aligned, InformedHelpers, NearestMeans
from engram.data.types import TaskShare
from engram.learning.algorithm import TaskScope
from engram.learning.helpers import KNOWN, MASKS
from engram.spec.algorithms import DiscMatchParameters

SCOPE = TaskScope(task=1, classes=(5, 0), seen=(5, 0))
IMAGES = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
"""An image is its own row of probabilities."""
LABELLED = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
"""Two of class 0, one of class 5."""


class Student(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.log()

    def features(self, images: Tensor) -> Tensor:
        return images


def context(labelled: int = 3) -> Any:
    rows = torch.tensor([1, 1, 0])[:labelled]
    return SimpleNamespace(
        network=Student(),
        scope=SCOPE,
        groups={},
        received={},
        device=torch.device("cpu"),
        share=SimpleNamespace(tasks=[TaskShare(np.arange(labelled), np.arange(0))]),
        rows=lambda positions: rows,
        features=lambda positions: LABELLED[:labelled],
        frozen=lambda weights, spent=None: Student(),
    )


def parameters(threshold: float) -> DiscMatchParameters:
    return DiscMatchParameters(threshold=threshold)


def aligned(mean: tuple[float, float]) -> list[float]:
    """Return what two images are taken for the second class with, (1/3, 2/3) being wanted of `mean`."""
    odds = [(second / mean[1] * 2) / (first / mean[0]) for first, second in IMAGES.tolist()]
    return [odd / (1 + odd) for odd in odds]


def test_alignment_wants_the_shares_of_the_worker_s_labels() -> None:
    """The first batch's mean is (.7, .3); after one of (.1, .9) and it once more, the round's is (.5, .5)."""
    first, second = aligned((0.7, 0.3))
    assert first < 0.6 < second
    algorithm = Aligned(parameters(0.6))
    algorithm.begin_round(context())
    found = algorithm._judge(context(), IMAGES)
    assert (found.labels.tolist(), found.accepted.tolist()) == ([1, 1], [False, True])
    algorithm._judge(context(), torch.tensor([[0.1, 0.9]]))
    first, second = aligned((0.5, 0.5))
    found = algorithm._judge(context(), IMAGES)
    assert first < 0.5 < second
    assert (found.labels.tolist(), found.accepted.tolist()) == ([0, 1], [1 - first >= 0.6, second >= 0.6])
    algorithm.begin_round(context())
    assert algorithm._judge(context(), IMAGES).labels.tolist() == [1, 1]


def test_without_a_label_nothing_is_aligned() -> None:
    algorithm = Aligned(parameters(0.7))
    algorithm.begin_round(context(0))
    found = algorithm._judge(context(0), IMAGES)
    assert (found.labels.tolist(), found.accepted.tolist()) == ([0, 0], [True, False])


@pytest.mark.parametrize(
    ("labelled", "accepted"), [(3, [False, False]), (2, [True, False]), (0, [True, False])]
)
def test_the_nearest_mean_has_a_vote(labelled: int, accepted: list[bool]) -> None:
    """Means lie on the axes, so .8, .2 is nearest to class 5 as well: (.8 + p) / 2 with p by cosines."""
    length = (0.8**2 + 0.2**2) ** 0.5
    p = 1 / (1 + np.exp(-10 * (0.8 - 0.2) / length))
    both = (0.8 + p) / 2
    algorithm = NearestMeans(parameters(both + 1e-3 if labelled == 3 else 0.7))
    algorithm.begin_round(context(labelled))
    assert algorithm._judge(context(labelled), IMAGES).accepted.tolist() == accepted
    surer = NearestMeans(parameters(both - 1e-3))
    surer.begin_round(context())
    assert surer._judge(context(), IMAGES).accepted.tolist() == [True, False]


def test_adaptive_thresholds_are_lower_for_what_is_seldom_accepted() -> None:
    """Class 5 was accepted eight times at .9, class 0 never: .55 is enough for 0, .85 is not for 5."""
    algorithm = Adaptive(parameters(0.9))
    algorithm.begin_round(context())
    algorithm._judge(context(), torch.tensor([[0.95, 0.05]]).repeat(8, 1))
    found = algorithm._judge(context(), torch.tensor([[0.45, 0.55], [0.85, 0.15]]))
    assert found.labels.tolist() == [1, 0]
    assert found.accepted.tolist() == [True, False]


def test_a_helper_that_knows_one_of_the_classes_is_not_asked() -> None:
    known = torch.tensor([[True, False, True], [True, True, True], [False, True, True]])
    seen = context()
    seen.groups = {**{f"helper-{place}": {} for place in (1, 2, 3)}, MASKS: {}}
    seen.shared = {MASKS: {KNOWN: known}}
    helpers = InformedHelpers()
    helpers.begin(seen)
    assert len(helpers.probabilities(torch.full((2, 3), 1 / 3), 3)) == 3
    helpers.begin(seen, barred=1)
    found = helpers.probabilities(torch.full((2, 3), 1 / 3), 3)
    assert torch.allclose(found, torch.tensor([0, 0.5, 0.5]).expand(2, 2, 3))
