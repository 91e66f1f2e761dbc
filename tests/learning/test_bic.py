"""bic: its loss by hand, and what becomes of it without its terms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from engram.learning.algorithm import TaskScope
from engram.learning.algorithms.bic import Bic
from engram.spec.algorithms import BicParameters

if TYPE_CHECKING:
    from engram.federation.messages import Tensors
    from tests.learning.conftest import MakeJob, MakeWorld

FIRST = TaskScope(task=1, classes=(5, 0), seen=(5, 0))
THIRD = TaskScope(task=3, classes=(4, 2), seen=(5, 0, 3, 1, 4, 2))
OFF = {"strength": 0, "classifierCorrection": "none"}


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_distillation_weighs_as_much_as_old_classes_among_all() -> None:
    bic = Bic(BicParameters())
    assert bic.share_of_distillation(THIRD) == pytest.approx(4 / 6)
    assert bic.share_of_distillation(FIRST) == 0
    assert Bic(BicParameters(strength=0.25)).share_of_distillation(THIRD) == 0.25
    assert Bic(BicParameters(strength=0.25)).share_of_distillation(FIRST) == 0


def test_without_its_terms_it_is_replay(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected, _ = make_world(make_job("replay", {"weightAlignment": False})).run()
    weights, _ = make_world(make_job("bic", OFF)).run()
    assert same(weights, expected)


@pytest.mark.parametrize("on", [{"strength": 0.5}, {"classifierCorrection": "bic"}])
def test_with_any_of_them_it_is_not(
    make_job: MakeJob, make_world: MakeWorld, on: dict[str, float | str]
) -> None:
    expected, _ = make_world(make_job("bic", OFF)).run()
    weights, _ = make_world(make_job("bic", {**OFF, **on})).run()
    assert not same(weights, expected)


def test_loss_by_hand(make_job: MakeJob, make_world: MakeWorld) -> None:
    # A head whose answer does not depend on the image: scores 0, and ln 3 for the teacher's first row.
    losses = []
    for strength in (0.0, 0.5, 1.0):
        parameters = {"strength": strength, "classifierCorrection": "none"}
        world = make_world(make_job("bic", parameters, training={"localSteps": 1}), only=(0,))
        first = world.task(1, None)
        constant = {**first, "head.weight": np.zeros_like(first["head.weight"])}
        teacher = {**constant, "head.bias": np.array([math.log(9), 0], np.float32)}
        results = world.consolidate(1, first)
        world.central.close_task(1, teacher, results)
        start = world.central.begin_task(2, constant)
        start = {
            **start,
            "head.weight": np.zeros_like(start["head.weight"]),
            "head.bias": np.zeros(4, np.float32),
        }
        order = world.order("trainworker-edge-0", 2, 1, start)
        losses.append(world.workers["trainworker-edge-0"].train(order, lambda a, b: None).metrics["loss"])
    # T = 2: the teacher says 3/4 and 1/4 among the old rows, the student 1/2 each.
    distillation = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert losses == pytest.approx(
        [math.log(4), 0.5 * distillation + 0.5 * math.log(4), distillation], rel=1e-4
    )


def test_teacher_is_the_corrected_model(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("bic", {"exemplarsPerWorker": 30}))
    weights = world.round(2, 1, world.central.begin_task(2, world.task(1, None)))
    final = world.central.close_task(2, weights, world.consolidate(2, weights))
    teacher = world.central.shared("", 3, 1)["teacher"]
    assert same(teacher, final)
    assert not np.array_equal(teacher["head.bias"], weights["head.bias"])
    for array in final.values():
        np.copyto(array, 0)
    assert not same(world.central.shared("", 3, 1)["teacher"], final)


def test_it_learns_and_remembers(make_job: MakeJob, make_world: MakeWorld) -> None:
    training = {"roundsPerTask": 3, "localSteps": 10}
    world = make_world(make_job("bic", {"exemplarsPerWorker": 30}, training=training))
    _, counts = world.run()
    assert sum(counts[-1].right.values()) / sum(counts[-1].total.values()) > 0.5
    assert torch.isfinite(torch.tensor(world.losses)).all()
