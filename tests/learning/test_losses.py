from __future__ import annotations

import math

import pytest
import torch

from engram.learning.losses import cross_entropy, distillation, elastic, linear, proximal


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    loss = cross_entropy(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_cross_entropy_of_nothing_is_zero_and_has_a_gradient() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.shape == (0, 3)
    assert loss.item() == 0.0


def test_distillation_by_hand() -> None:
    # T = 2: the teacher's odds are 3 : 1, the student's 1 : 1.
    teacher, student = torch.tensor([[2 * math.log(3.0), 0.0]]), torch.zeros(1, 2)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert distillation(student, teacher, 2.0).item() == pytest.approx(4 * divergence)


def test_distillation_is_the_mean_over_the_batch() -> None:
    teacher, student = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    one = distillation(student, teacher, 2.0)
    assert torch.isclose(distillation(student.repeat(5, 1), teacher.repeat(5, 1), 2.0), one)


def test_distillation_from_an_equal_teacher_is_zero() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    assert distillation(logits, logits.clone(), 3.0).item() == pytest.approx(0.0, abs=1e-7)


def test_proximal_is_the_squared_norm() -> None:
    parameters = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[2.0]])}
    anchor = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([[-2.0]])}
    assert proximal(parameters, anchor).item() == 9 + 16  # the norm itself would be 5


def test_elastic_by_hand_and_only_on_old_rows() -> None:
    parameters = {"head.weight": torch.tensor([[1.0], [2.0], [9.0]]), "scale": torch.tensor(2.0)}
    anchor = {"head.weight": torch.tensor([[0.0], [4.0]]), "scale": torch.tensor(1.0)}
    fisher = {"head.weight": torch.tensor([[2.0], [0.5]]), "scale": torch.tensor(3.0)}
    assert elastic(parameters, anchor, fisher).item() == 2 * 1 + 0.5 * 4 + 3 * 1


def test_linear_by_hand() -> None:
    weight = torch.tensor([3.0, -1.0], requires_grad=True)
    loss = linear({"w": weight}, {"w": torch.tensor([1.0, -1.0])}, {"w": torch.tensor([0.5, 7.0])})
    assert loss.item() == 1.0
    (gradient,) = torch.autograd.grad(loss, weight)
    assert gradient.tolist() == [0.5, 7.0]
