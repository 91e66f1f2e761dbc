"""feddyn: its equations on numbers, and that it is finetune where it is off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from engram.federation.messages import Update
from engram.learning.algorithm import TaskScope
from engram.learning.algorithms.feddyn import FedDyn
from engram.learning.variates import Variates
from engram.spec.algorithms import FedDynParameters
from tests.learning.conftest import ignore

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld

A, B = "trainworker-edge-0", "trainworker-edge-1"
SCOPE = TaskScope(1, (5, 0), (5, 0))


def bare(alpha: float, *workers: str) -> FedDyn:
    """Return the aggregator's side for one tensor w."""
    algorithm = FedDyn(FedDynParameters(alpha=alpha))
    algorithm.gradients, algorithm.trained = Variates(workers), ("w",)
    return algorithm


def one(value: float) -> dict[str, np.ndarray]:
    return {"w": np.array([value], np.float32), "steps": np.array(7)}


def step(algorithm: FedDyn, before: float, **after: float) -> float:
    """Return the new w where workers end at `after` with equal weights."""
    updates = {name: Update(1, 1, 1, one(value)) for name, value in after.items()}
    mean = one(float(np.mean(list(after.values()))))
    result = algorithm.server_step(SCOPE, 1, one(before), mean, updates)
    assert result["w"].dtype == np.float32
    assert result["steps"] == 7
    return float(result["w"][0])


def test_the_server_step_by_hand() -> None:
    algorithm = bare(0.5, "a", "b")
    # g_a = -.5 x 1, g_b = -.5 x 3, h = -1, w = 2 + 1 / .5.
    assert step(algorithm, 0, a=1, b=3) == 4
    assert algorithm.shared("b", SCOPE, 2)["local-gradient"]["w"].tolist() == [-1.5]
    # b is not sampled: g_a = -.5 - .5 x (3 - 4) = 0; the paper's h = -1 - .5 x (1/2) x (3 - 4) = -.75.
    assert step(algorithm, 4, a=3) == 3 + 0.75 / 0.5
    assert algorithm.shared("a", SCOPE, 3)["local-gradient"]["w"].tolist() == [0]
    assert algorithm.shared("", SCOPE, 3) == algorithm.shared("a", SCOPE, 0) == {}


def test_a_new_task_starts_from_zero() -> None:
    algorithm = bare(0.5, "a", "b")
    step(algorithm, 0, a=1, b=3)
    algorithm.close_task(SCOPE, one(4), {})
    assert algorithm.shared("b", SCOPE, 1) == {}
    assert step(algorithm, 0, a=1, b=3) == 4


def test_uneven_workers_meet_where_all_objectives_together_are_least() -> None:
    # L_k = s_k / 2 (w - b_k)^2, minimised exactly: s (w - b) - g + alpha (w - x) = 0.
    slopes, minima, alpha = {"a": 0.9, "b": 0.1}, {"a": 0.0, "b": 1.0}, 0.3
    algorithm, x = bare(alpha, "a", "b"), 5.0
    for round in range(1, 80):
        after = {}
        for name, slope in slopes.items():
            sent = algorithm.shared(name, SCOPE, round)
            own = float(sent["local-gradient"]["w"][0]) if sent else 0.0
            after[name] = (slope * minima[name] + own + alpha * x) / (slope + alpha)
        x = step(algorithm, x, **after)
    assert x == pytest.approx((0.9 * 0 + 0.1 * 1) / (0.9 + 0.1), abs=1e-3)


def test_off_it_is_finetune(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected, _ = make_world(make_job("finetune")).run()
    world = make_world(make_job("feddyn", {"alpha": 0}))
    assert not world.central.wants_models
    weights, _ = world.run()
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)


def test_a_step_goes_along_the_gradient_of_the_regularised_loss(
    make_job: MakeJob, make_world: MakeWorld
) -> None:
    # One step from x: there the quadratic term has no gradient yet.
    plain = {"localSteps": 1, "optimizer": {"learningRate": 0.1, "momentum": 0, "weightDecay": 0}}
    world, free = make_world(make_job("feddyn", training=plain)), make_world(make_job(training=plain))
    middle = world.round(1, 1, world.central.begin_task(1, None))
    for name in (A, B):
        order = world.order(name, 1, 2, middle)
        trained = world.workers[name].train(order, ignore).weights
        expected = free.workers[name].train(replace(order, shared={}), ignore).weights
        for tensor, gradient in order.shared["local-gradient"].items():
            np.testing.assert_allclose(trained[tensor], expected[tensor] + 0.1 * gradient, atol=1e-6)


def test_a_strong_regulariser_keeps_workers_near(make_job: MakeJob, make_world: MakeWorld) -> None:
    def moved(alpha: float) -> float:
        world = make_world(make_job("feddyn", {"alpha": alpha}))
        start = world.central.begin_task(1, None)
        after = world.workers[A].train(world.order(A, 1, 1, start), ignore).weights
        return float(sum(np.square(after[name] - start[name]).sum() for name in start))

    assert moved(5.0) < 0.5 * moved(0.0)
