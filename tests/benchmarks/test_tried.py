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


def test_alignment_wants_the_shares_of_the_worker_s_labels() -> None:
    """Of (.7, .3) on average (1/3, 2/3) is wanted: .8/.7/3 to .2/.3/3 x 2, and .6/.7/3 to .4/.3/3 x 2."""
    chances = [0.8 / 0.7 / (0.8 / 0.7 + 2 * 0.2 / 0.3), 2 * 0.4 / 0.3 / (0.6 / 0.7 + 2 * 0.4 / 0.3)]
    labels = [1, 1]
    assert chances[0] < 0.5
    algorithm = Aligned(parameters(chances[1] - 1e-3))
    algorithm.begin_round(context())
    found = algorithm._judge(context(), IMAGES)
    assert found.labels.tolist() == labels
    assert found.accepted.tolist() == [False, True]


def test_without_a_label_nothing_is_aligned() -> None:
    algorithm = Aligned(parameters(0.7))
    algorithm.begin_round(context(0))
    found = algorithm._judge(context(0), IMAGES)
    assert (found.labels.tolist(), found.accepted.tolist()) == ([0, 0], [True, False])


@pytest.mark.parametrize(("labelled", "accepted"), [(3, [False, False]), (0, [True, False])])
def test_the_nearest_mean_has_a_vote(labelled: int, accepted: list[bool]) -> None:
    """Means lie on the axes, so .8, .2 is nearest to class 5 as well: (.8 + p) / 2 with p by cosines."""
    length = (0.8**2 + 0.2**2) ** 0.5
    p = 1 / (1 + np.exp(-10 * (0.8 - 0.2) / length))
    both = (0.8 + p) / 2
    algorithm = NearestMeans(parameters(both + 1e-3 if labelled else 0.7))
    algorithm.begin_round(context(labelled))
    assert algorithm._judge(context(labelled), IMAGES).accepted.tolist() == accepted
    surer = NearestMeans(parameters(both - 1e-3))
    surer.begin_round(context())
    assert surer._judge(context(), IMAGES).accepted.tolist() == [True, False]


def test_adaptive_thresholds_are_lower_for_what_is_seldom_accepted() -> None:
    """At .75: of class 5 one was accepted and one refused; so class 0, never accepted, needs only .5."""
    algorithm = Adaptive(parameters(0.75))
    algorithm.begin_round(context())
    algorithm._judge(context(), IMAGES)
    found = algorithm._judge(context(), torch.tensor([[0.45, 0.55], [0.6, 0.4]]))
    assert found.labels.tolist() == [1, 0]
    assert found.accepted.tolist()[0]


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
