"""Whom to believe about an image without a label, and what it costs to disagree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.learning.pseudo import (
    AdaptiveThreshold,
    Agreement,
    PseudoLabelCount,
    PseudoLabels,
    agreed,
    consistency,
    within,
)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values)


NOBODY = torch.empty(0, 1, 3)


class TestAgreement:
    """One image, three classes, two helpers."""

    def judged(self, rule: Agreement, own: list[float], *helpers: list[float]) -> tuple[int, bool]:
        others = torch.stack([rows(helper) for helper in helpers]) if helpers else NOBODY
        labels, accepted = agreed(rows(own), others, rule, 0.6)
        return int(labels), bool(accepted)

    def test_most_votes_win(self) -> None:
        # Two helpers outvote the own model; the mean probability of class 1 is (.1 + .9 + .9) / 3 = .633.
        assert self.judged("votes", [0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.1, 0.9, 0.0]) == (1, True)
        # (.1 + .9 + .7) / 3 = .567 is not enough.
        assert self.judged("votes", [0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.1, 0.7, 0.2]) == (1, False)

    def test_ties_go_to_the_own_class(self) -> None:
        assert self.judged("votes", [0.1, 0.1, 0.8], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0])[0] == 2
        assert self.judged("votes", [0.1, 0.1, 0.8], [0.9, 0.1, 0.0])[0] == 2

    def test_required_takes_only_what_all_say(self) -> None:
        sure = [0.9, 0.05, 0.05]
        assert self.judged("required", sure, sure, sure) == (0, True)
        # The mean of class 0, (.9 + .9 + .4) / 3 = .73, would do; the third vote is for another class.
        assert self.judged("required", sure, sure, [0.4, 0.6, 0.0]) == (0, False)

    def test_the_proposal_s_rule_never_leaves_the_own_class(self) -> None:
        generator = torch.Generator().manual_seed(0)
        own = torch.randn(50, 4, generator=generator).softmax(1)
        others = (5 * torch.randn(3, 50, 4, generator=generator)).softmax(2)
        labels, _ = agreed(own, others, "proposal", 0.5)
        assert torch.equal(labels, own.argmax(1))
        assert not torch.equal(agreed(own, others, "votes", 0.5).labels, own.argmax(1))

    @pytest.mark.parametrize("rule", ["votes", "required", "proposal"])
    def test_without_helpers_it_is_fixmatch(self, rule: Agreement) -> None:
        assert self.judged(rule, [0.2, 0.7, 0.1]) == (1, True)
        assert self.judged(rule, [0.2, 0.55, 0.25]) == (1, False)

    def test_thresholds_may_differ_by_class(self) -> None:
        own = rows([0.7, 0.3], [0.3, 0.7])
        pseudo = agreed(own, torch.empty(0, 2, 2), "votes", torch.tensor([0.6, 0.8]))
        assert pseudo.accepted.tolist() == [True, False]


@pytest.mark.parametrize(("threshold", "same"), [(0.9, True), (0.7, False)])
def test_above_a_threshold_all_who_are_asked_agree_whatever_the_rule(threshold: float, same: bool) -> None:
    """Above 1 - .5 / 3 a mean of three probabilities takes more than a half of each."""
    drawn = torch.rand(3, 4000, 2, generator=torch.Generator().manual_seed(0)) ** 4
    own, *helpers = drawn / drawn.sum(dim=2, keepdim=True)
    rules: tuple[Agreement, ...] = ("votes", "required", "proposal")
    found = [agreed(own, torch.stack(helpers), rule, threshold) for rule in rules]
    taken = [torch.where(one.accepted, one.labels, -1) for one in found]
    assert 100 < int(found[0].accepted.sum()) < 4000
    assert (torch.equal(taken[0], taken[1]) and torch.equal(taken[0], taken[2])) is same


def test_within_leaves_only_rows_from_the_first_allowed_on() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0]])
    assert torch.allclose(within(logits, 1), torch.tensor([[0.0, 0.5, 0.5]]))
    assert torch.allclose(within(logits, 0), logits.softmax(1))


class TestConsistency:
    """The loss on pseudo-labels."""

    def test_refused_images_cost_nothing_but_count(self) -> None:
        logits = torch.log(rows([0.5, 0.5], [0.25, 0.75], [0.1, 0.9]))
        pseudo = PseudoLabels(torch.tensor([0, 1, 0]), torch.tensor([True, True, False]))
        expected = -(torch.tensor(0.5).log() + torch.tensor(0.75).log()) / 3
        assert torch.allclose(consistency(logits, pseudo), expected)

    def test_without_images_it_is_zero(self) -> None:
        nothing = torch.empty(0, dtype=torch.int64)
        assert consistency(torch.empty(0, 3), PseudoLabels(nothing, nothing.bool())) == 0


class TestAdaptiveThreshold:
    """FlexMatch's thresholds."""

    def test_seldom_accepted_classes_need_less(self) -> None:
        adaptive = AdaptiveThreshold(0.9, 3, torch.device("cpu"))
        sure, unsure = [0.95, 0.05, 0.0], [0.4, 0.3, 0.3]
        adaptive.learn(rows(*[sure] * 8, *[[0.05, 0.95, 0.0]] * 6, *[unsure] * 2))
        # beta = 8/8, 6/8, 0/8: threshold = .9, .9 x .75 / 1.25 = .54, and the least, .5.
        assert torch.allclose(adaptive.thresholds(), torch.tensor([0.9, 0.54, 0.5]))

    def test_refused_images_lower_all(self) -> None:
        adaptive = AdaptiveThreshold(0.9, 2, torch.device("cpu"))
        adaptive.learn(rows(*[[0.95, 0.05]] * 4, *[[0.5, 0.5]] * 5))
        # beta_0 = 4 / max(4, 5) = .8, threshold .9 x .8 / 1.2 = .6.
        assert torch.allclose(adaptive.thresholds(), torch.tensor([0.6, 0.5]))


class TestCount:
    """Counting pseudo-labels."""

    def taken(self, labels: list[int], accepted: list[bool]) -> PseudoLabels:
        return PseudoLabels(torch.tensor(labels, dtype=torch.int64), torch.tensor(accepted, dtype=torch.bool))

    def test_ratio_is_of_those_offered_and_accuracy_of_those_accepted(self) -> None:
        count = PseudoLabelCount()
        count.add(self.taken([0, 1, 1, 2], [True, True, False, True]), torch.tensor([0, 1, 1, 0]))
        count.add(self.taken([3, 3], [False, True]), torch.tensor([3, 2]))
        assert count.metrics() == {"pseudo_label_accept_ratio": 4 / 6, "pseudo_label_accuracy": 2 / 4}

    def test_without_any_accepted_there_is_no_accuracy(self) -> None:
        count = PseudoLabelCount()
        count.add(self.taken([0, 1], [False, False]), torch.tensor([0, 1]))
        assert count.metrics() == {"pseudo_label_accept_ratio": 0.0}

    def test_without_unlabelled_data_there_is_nothing_to_say(self) -> None:
        count = PseudoLabelCount()
        assert count.metrics() == {}
        count.add(self.taken([], []), torch.empty(0, dtype=torch.int64))
        assert count.metrics() == {}
