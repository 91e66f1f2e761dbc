"""lga: what it does otherwise than glfc."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from engram.learning.algorithm import TaskScope
from engram.learning.algorithms.lga import Lga
from engram.learning.losses import relation_distillation
from engram.spec.algorithms import LgaParameters

if TYPE_CHECKING:
    from engram.federation.messages import Tensors
    from tests.learning.conftest import MakeJob, MakeWorld

FIRST = TaskScope(task=1, classes=(5, 0), seen=(5, 0))
SECOND = TaskScope(task=2, classes=(3, 1), seen=(5, 0, 3, 1))
THIRD = TaskScope(task=3, classes=(4, 2), seen=(5, 0, 3, 1, 4, 2))
OFF = {"gradientCompensation": False, "classificationStrength": 1, "distillationStrength": 0}


def logits_of(targets: torch.Tensor, gradients: list[float], rows: int) -> torch.Tensor:
    """Logits whose cross-entropies have these gradients by the own logit, p - 1 up to the sign."""
    chances = torch.stack([torch.full((rows,), g / (rows - 1)) for g in gradients])
    chances[torch.arange(len(targets)), targets] = 1 - torch.tensor(gradients)
    return chances.log()


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_every_task_is_normalised_by_its_own_mean() -> None:
    targets = torch.tensor([0, 1, 2, 2, 5, 4])
    # Task 3: exponent 2/3. Gradients whose powers are .25 and .49 | .36 and .64 | .16 and .16.
    powers = [0.25, 0.49, 0.36, 0.64, 0.16, 0.16]
    logits = logits_of(targets, [power**1.5 for power in powers], 6)
    weights = Lga(LgaParameters()).weights(THIRD, logits, targets)
    expected = [0.25 / 0.37, 0.49 / 0.37, 0.36 / 0.5, 0.64 / 0.5, 1, 1]
    assert weights.tolist() == pytest.approx(expected, abs=1e-4)


def test_exponent_grows_with_the_tasks() -> None:
    # 0, 1/2, 2/3: in the first task all samples weigh the same.
    lga = Lga(LgaParameters())
    targets = torch.tensor([0, 1])
    logits = logits_of(targets, [0.81, 0.25], 6)
    assert lga.weights(FIRST, logits, targets).tolist() == [1, 1]
    assert lga.weights(SECOND, logits, targets).tolist() == pytest.approx([0.9 / 0.7, 0.5 / 0.7], abs=1e-4)
    third = [0.81 ** (2 / 3), 0.25 ** (2 / 3)]
    expected = [2 * power / sum(third) for power in third]
    assert lga.weights(THIRD, logits, targets).tolist() == pytest.approx(expected, abs=1e-4)


def test_weights_stay_within_their_bounds() -> None:
    targets = torch.zeros(9, dtype=torch.int64)
    logits = logits_of(targets, [1e-6] * 8 + [0.99], 4)  # without bounds: near 0, and near 9
    weights = Lga(LgaParameters()).weights(SECOND, logits, targets)
    assert weights.tolist() == [0.5] * 8 + [5]


def test_distillation_has_the_weights_of_the_samples() -> None:
    lga = Lga(LgaParameters())
    logits, answers = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0, 0]])
    targets, weights = torch.tensor([0, 2]), torch.tensor([0.5, 5.0])
    found = lga.relation(logits, answers.repeat(2, 1), targets, weights)
    alone = [relation_distillation(logits[i : i + 1], answers, targets[i : i + 1]).item() for i in (0, 1)]
    assert found.item() == pytest.approx((0.5 * alone[0] + 5 * alone[1]) / 2, rel=1e-5)


def test_without_its_terms_it_is_replay(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected, _ = make_world(make_job("replay", {"weightAlignment": False})).run()
    weights, _ = make_world(make_job("lga", OFF)).run()
    assert same(weights, expected)


def test_without_weights_it_is_glfc_without_weights(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected, _ = make_world(make_job("glfc", {"gradientCompensation": False})).run()
    weights, _ = make_world(make_job("lga", {"gradientCompensation": False})).run()
    assert same(weights, expected)


def test_first_task_is_finetune(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected = make_world(make_job("finetune")).task(1, None)
    found = make_world(make_job("lga")).task(1, None)
    assert all(np.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_it_learns_and_remembers(make_job: MakeJob, make_world: MakeWorld) -> None:
    training = {"roundsPerTask": 3, "localSteps": 10}
    world = make_world(make_job("lga", training=training))
    _, counts = world.run()
    assert sum(counts[-1].right.values()) / sum(counts[-1].total.values()) > 0.5
