"""Counting pseudo-labels."""

from __future__ import annotations

import torch

from engram.learning.pseudo import PseudoLabelCount


def test_ratio_is_of_those_offered_and_accuracy_of_those_accepted() -> None:
    count = PseudoLabelCount()
    count.add(torch.tensor([0, 1, 1, 2]), torch.tensor([True, True, False, True]), torch.tensor([0, 1, 1, 0]))
    count.add(torch.tensor([3, 3]), torch.tensor([False, True]), torch.tensor([3, 2]))
    assert count.metrics() == {"pseudo_label_accept_ratio": 4 / 6, "pseudo_label_accuracy": 2 / 4}


def test_without_any_accepted_there_is_no_accuracy() -> None:
    count = PseudoLabelCount()
    count.add(torch.tensor([0, 1]), torch.tensor([False, False]), torch.tensor([0, 1]))
    assert count.metrics() == {"pseudo_label_accept_ratio": 0.0}


def test_without_unlabelled_data_there_is_nothing_to_say() -> None:
    count = PseudoLabelCount()
    nothing = torch.empty(0, dtype=torch.int64)
    assert count.metrics() == {}
    count.add(nothing, nothing.bool(), nothing)
    assert count.metrics() == {}
