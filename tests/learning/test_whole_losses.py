"""The whole loss of a step by hand: each algorithm's terms with their weights, on numbers for paper.

What single terms are is tested beside them (test_losses, test_glfc, test_pseudo); fedlwf, fedewc, bic, target
and mfcl have theirs from a run, in their own tests.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from engram.learning.algorithm import Algorithm, Batch
from engram.learning.algorithms.discmatch import DiscMatch
from engram.learning.algorithms.feddyn import FedDyn
from engram.learning.algorithms.fedprox import FedProx
from engram.learning.algorithms.glfc import Glfc
from engram.learning.algorithms.icarl import Icarl
from engram.learning.algorithms.joint import Joint
from engram.learning.algorithms.lga import Lga
from engram.learning.algorithms.scaffold import Scaffold
from engram.learning.algorithms.semifci import SemiFci
from engram.learning.helpers import KNOWN, MASKS
from engram.spec.algorithms import (
    DiscMatchParameters,
    FedDynParameters,
    FedProxParameters,
    GlfcParameters,
    IcarlParameters,
    JointParameters,
    LgaParameters,
    ScaffoldParameters,
    SemiFciParameters,
)
from tests.learning.answers import FIRST, Fixed, batch, context, logits

TEACHER = torch.tensor([2 * math.log(3), 0.0])
"""3 : 1 at temperature 2."""
DISTILLATION = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
"""T^2 KL of that teacher against a student who says 1 : 1."""
LABELLED = logits([0.4, 0.4, 0.2])
UNLABELLED = logits([0.1, 0.1, 0.8], [0.38, 0.38, 0.24])
"""Sure of the new class, and not sure; of the old ones 1 : 1, as the labelled image."""
GUESSED = -math.log(0.8) / 2


SLOPE = {"weight": torch.tensor([[1.0], [1.0]]), "bias": torch.tensor([0.0, 2.0])}
"""<slope, w - x> = 1 + 2 - 6 for the weights below."""


class TestOfWeights:
    """Terms that look at weights: w - x = (1, 2) and (0, -3), whose square is 14."""

    def loss(self, algorithm: Algorithm, group: str = "") -> float:
        network = nn.Linear(1, 2)
        with torch.no_grad():
            network.weight.copy_(torch.tensor([[1.0], [2.0]]))
            network.bias.zero_()
        shared = {group: SLOPE} if group else {}
        seen: Any = SimpleNamespace(
            network=network,
            weights={"weight": torch.zeros(2, 1), "bias": torch.tensor([0.0, 3.0])},
            groups=shared,
            shared=shared,
        )
        nothing = torch.empty(0, 1)
        step = Batch(torch.zeros(1, 1), torch.tensor([0]), nothing, torch.empty(0, dtype=torch.int64), 0)
        return algorithm.loss(seen, step).item()

    @pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
    def test_fedprox(self, mu: float) -> None:
        assert self.loss(FedProx(FedProxParameters(mu=mu))) == pytest.approx(math.log(2) + mu / 2 * 14)

    def test_feddyn(self) -> None:
        feddyn = FedDyn(FedDynParameters(alpha=0.5))
        assert self.loss(feddyn) == pytest.approx(math.log(2) + 0.25 * 14)
        assert self.loss(feddyn, "local-gradient") == pytest.approx(math.log(2) + 0.25 * 14 + 3)

    def test_scaffold(self) -> None:
        scaffold = Scaffold(ScaffoldParameters())
        assert self.loss(scaffold) == pytest.approx(math.log(2))
        assert self.loss(scaffold, "correction") == pytest.approx(math.log(2) - 3)


class TestOfOldModels:
    """Terms that ask an old model."""

    images = logits([0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6])
    targets = (0, 2, 2)
    costs = tuple(-math.log(chance) for chance in (0.5, 0.8, 0.6))

    def relations(self) -> list[float]:
        """KL of (3/4, 1/4, 0) and, for new samples, (3/8, 1/8, 1/2) against each answer."""
        old, new = (0.75, 0.25, 0.0), (0.375, 0.125, 0.5)
        answers = self.images.exp().tolist()
        return [
            sum(p * math.log(p / q) for p, q in zip(wanted, found, strict=True) if p)
            for wanted, found in zip((old, new, new), answers, strict=True)
        ]

    def loss(self, algorithm: Glfc) -> float:
        seen = context(torch.tensor([math.log(3), 0.0]))
        algorithm.teacher.begin(seen)
        return algorithm.loss(seen, batch(self.images, list(self.targets))).item()

    def weighed(self, factors: list[float], values: tuple[float, ...] | list[float]) -> float:
        return sum(factor * value for factor, value in zip(factors, values, strict=True)) / 3

    def test_icarl(self) -> None:
        icarl = Icarl(IcarlParameters(strength=3, temperature=2))
        seen = context(TEACHER)
        icarl.begin_round(seen)
        found = icarl.loss(seen, batch(LABELLED, [0])).item()
        assert found == pytest.approx(-math.log(0.4) + 3 * DISTILLATION)

    def test_glfc(self) -> None:
        glfc = Glfc(GlfcParameters(classification_strength=0.25, distillation_strength=2))
        # |p - 1| = .5 over its kind's mean .5, and .2 and .4 over .3.
        classification = self.weighed([1, 2 / 3, 4 / 3], self.costs)
        expected = 0.25 * classification + 2 * sum(self.relations()) / 3
        assert self.loss(glfc) == pytest.approx(expected, rel=1e-5)

    def test_lga(self) -> None:
        lga = Lga(LgaParameters(classification_strength=0.25, distillation_strength=2))
        # Task 2: roots of .2 and .4 over their mean.
        roots = [math.sqrt(0.2), math.sqrt(0.4)]
        factors = [1.0, *(2 * root / sum(roots) for root in roots)]
        expected = 0.25 * self.weighed(factors, self.costs) + 2 * self.weighed(factors, self.relations())
        assert self.loss(lga) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(
        "glfc",
        [
            Glfc(GlfcParameters(classification_strength=0.25)),
            Lga(LgaParameters(classification_strength=0.25)),
        ],
    )
    def test_the_first_task_has_classification_alone(self, glfc: Glfc) -> None:
        seen = context(scope=FIRST)
        glfc.teacher.begin(seen)
        images = torch.tensor([[0.5, 0.5]]).log()
        assert glfc.loss(seen, batch(images, [0])).item() == pytest.approx(math.log(2))


class TestOfGuesses:
    """Terms on images without a label."""

    def test_joint(self) -> None:
        joint = Joint(JointParameters(unlabelled_weight=0.5, threshold=0.6))
        joint.begin_round(context())
        found = joint.loss(context(), batch(LABELLED, [0], UNLABELLED)).item()
        assert found == pytest.approx(-math.log(0.4) + 0.5 * GUESSED)

    @pytest.mark.parametrize(("first", "third"), [(0.5, 3.0), (2.0, 0.25), (1.0, 0.0)])
    def test_semifci(self, first: float, third: float) -> None:
        """lambda_1 L_u + L_C + lambda_3 L_F, where L_C is plain cross-entropy."""
        semifci = SemiFci(
            SemiFciParameters(
                helpers=0,
                unlabelled_weight=first,
                threshold=0.6,
                candidates="seen",
                compensation_weight=0,
                fusion_weight=third,
                temperature=2,
            )
        )
        seen = context(TEACHER)
        semifci.begin_round(seen)
        found = semifci.loss(seen, batch(LABELLED, [0], UNLABELLED)).item()
        assert found == pytest.approx(first * GUESSED - math.log(0.4) + third * DISTILLATION)
        semifci.end_round(metrics := context(metrics={}))
        assert metrics.metrics == {"pseudo_label_accept_ratio": 0.5, "pseudo_label_accuracy": 1.0}

    @pytest.mark.parametrize(("every", "times"), [(True, 2), (False, 1)])
    def test_discmatch(self, every: bool, times: int) -> None:
        discmatch = DiscMatch(
            DiscMatchParameters(
                unlabelled_weight=0.5,
                threshold=0.6,
                candidates="seen",
                strength=3,
                temperature=2,
                distil_unlabelled=every,
            )
        )
        seen = context(TEACHER)
        discmatch.begin_round(seen)
        found = discmatch.loss(seen, batch(LABELLED, [0], UNLABELLED)).item()
        assert found == pytest.approx(-math.log(0.4) + 3 * times * DISTILLATION + 0.5 * GUESSED)

    @pytest.mark.parametrize(("candidates", "accepted"), [("task", True), ("seen", False)])
    def test_a_helper_that_sees_old_classes_everywhere_is_asked_of_the_task_s_alone(
        self, candidates: str, accepted: bool
    ) -> None:
        """Own .8 and .24, the helper .05 for the new class: (.8 + .05) / 2 is less than .9."""
        semifci = SemiFci(
            SemiFciParameters.model_validate(
                {
                    "helpers": 1,
                    "threshold": 0.9,
                    "candidates": candidates,
                    "compensationWeight": 0,
                    "fusionWeight": 0,
                }
            )
        )
        seen = context()
        seen.groups = {"helper-1": {}, MASKS: {}}
        seen.shared = {MASKS: {KNOWN: torch.ones(1, 3, dtype=torch.bool)}}
        seen.frozen = lambda weights, spent=None: Fixed(torch.tensor([0.9, 0.05, 0.05]).log())
        semifci.begin_round(seen)
        found = semifci.loss(seen, batch(LABELLED, [0], UNLABELLED)).item()
        guessed = -(math.log(0.8) + math.log(0.24)) / 2
        assert found == pytest.approx(-math.log(0.4) + (guessed if accepted else 0))

    def test_among_the_task_s_classes_the_new_one_is_certain(self) -> None:
        """Both unlabelled images are taken for the only new class; the loss sees all rows."""
        guessed = -(math.log(0.8) + math.log(0.24)) / 2
        for algorithm in (
            DiscMatch(DiscMatchParameters(threshold=1, strength=0)),
            SemiFci(SemiFciParameters(threshold=1, helpers=0, compensation_weight=0, fusion_weight=0)),
        ):
            algorithm.begin_round(context())
            found = algorithm.loss(context(), batch(LABELLED, [0], UNLABELLED)).item()
            assert found == pytest.approx(-math.log(0.4) + guessed)
