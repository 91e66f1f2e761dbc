"""scaffold: its equations on numbers, and that it is finetune where no variate differs from the mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from engram.federation.messages import Tensors, Update
from engram.learning.algorithm import TaskScope
from engram.learning.algorithms.scaffold import Scaffold, step_sizes
from engram.learning.optimise import Sgd
from engram.learning.variates import Variates
from engram.spec.algorithms import ScaffoldParameters
from engram.spec.training import Optimizer, Training
from tests.learning.conftest import ignore

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld

A, B = "trainworker-edge-0", "trainworker-edge-1"
SCOPE = TaskScope(1, (5, 0), (5, 0))
PLAIN = {"localSteps": 1, "optimizer": {"learningRate": 0.1, "momentum": 0.9, "weightDecay": 0}}


def training(rate: float, momentum: float) -> Training:
    return Training(optimizer=Optimizer(learning_rate=rate, momentum=momentum))


def bare(*workers: str, rate: float = 1.0) -> Scaffold:
    """Return the aggregator's side for one tensor w and plain SGD."""
    algorithm = Scaffold(ScaffoldParameters())
    algorithm.variates, algorithm.trained = Variates(workers), ("w",)
    algorithm.training = training(rate, 0.0)
    return algorithm


def update(weights: Tensors, steps: float, samples: int = 1) -> Update:
    return Update(1, 1, samples, weights, {"steps": steps})


class TestStepSizes:
    """K eta, with momentum and schedule."""

    def test_without_momentum_they_are_k_eta(self) -> None:
        assert step_sizes(training(0.1, 0.0), 1, 5) == pytest.approx(0.5)

    def test_with_momentum_by_hand(self) -> None:
        # The first of three gradients moves the weights 1 + .5 + .25 times, the second 1 + .5, the last once.
        assert step_sizes(training(0.1, 0.5), 1, 3) == pytest.approx(0.1 * (1.75 + 1.5 + 1))

    def test_the_schedule_counts(self) -> None:
        spec = Training(
            optimizer=Optimizer(learning_rate=1, momentum=0),
            learning_rate_schedule="steps",
            rounds_per_task=4,
        )
        assert [step_sizes(spec, round, 2) for round in (1, 3, 4)] == pytest.approx([2, 0.2, 0.02])

    @pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
    def test_the_way_over_them_is_a_mean_of_the_gradients(self, momentum: float) -> None:
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = Sgd([weight], 0.1, momentum, 0.0)
        for _ in range(7):
            weight.grad = torch.full((1,), 3.0, dtype=torch.float64)
            optimizer.step()
        assert -weight.item() / step_sizes(training(0.1, momentum), 1, 7) == pytest.approx(3)


class TestVariates:
    """The aggregator's side on one number."""

    def test_option_two_by_hand(self) -> None:
        algorithm = bare("a", "b", rate=0.5)
        x = {"w": np.array([1.0], np.float32)}
        first = {name: update({"w": np.array([y], np.float32)}, 2) for name, y in (("a", 0), ("b", -2))}
        assert algorithm.server_step(SCOPE, 1, x, x, first) is x
        # (x - y) / (K eta) with K eta = 1; c is their mean.
        assert algorithm.variates.of("a")["w"].tolist() == [1]
        assert algorithm.variates.of("b")["w"].tolist() == [3]
        assert algorithm.shared("a", SCOPE, 2)["correction"]["w"].tolist() == [2 - 1]
        assert algorithm.shared("b", SCOPE, 2)["correction"]["w"].tolist() == [2 - 3]
        # c_a - c + (x - y) / (K eta) = 1 - 2 + (1 + 3); b was not sampled.
        algorithm.server_step(SCOPE, 2, x, x, {"a": update({"w": np.array([-3], np.float32)}, 2)})
        assert algorithm.variates.of("a")["w"].tolist() == [3]
        assert algorithm.variates.mean()["w"].tolist() == [3]

    def test_nothing_goes_down_where_nobody_trains(self) -> None:
        algorithm = bare("a")
        x = {"w": np.array([1.0], np.float32)}
        assert algorithm.shared("a", SCOPE, 1) == {}
        algorithm.server_step(SCOPE, 1, x, x, {"a": update({"w": np.zeros(1, np.float32)}, 1)})
        assert algorithm.shared("", SCOPE, 2) == algorithm.shared("a", SCOPE, 0) == {}
        assert algorithm.shared("newcomer", SCOPE, 2)["correction"]["w"].tolist() == [1]
        algorithm.close_task(SCOPE, x, {})
        assert algorithm.shared("a", SCOPE, 1) == {}

    @pytest.mark.parametrize("steps", [0.0, -1.0, 0.5, np.nan])
    def test_steps_that_nobody_takes_move_no_variate(self, steps: float) -> None:
        algorithm = bare("a")
        x = {"w": np.array([1.0], np.float32)}
        algorithm.server_step(SCOPE, 1, x, x, {"a": update({"w": np.zeros(1, np.float32)}, steps)})
        assert algorithm.variates.mean() == {}

    @pytest.mark.parametrize("steps", [np.inf, 1e300])
    def test_many_steps_do_no_harm(self, steps: float) -> None:
        algorithm = bare("a")
        x = {"w": np.array([1.0], np.float32)}
        algorithm.server_step(SCOPE, 1, x, x, {"a": update({"w": np.zeros(1, np.float32)}, steps)})
        assert algorithm.variates.of("a")["w"].tolist() == [0]

    def test_uneven_workers_meet_where_all_objectives_together_are_least(self) -> None:
        # L_k = s_k / 2 (w - b_k)^2: the mean of the workers' own minima is not the minimum of the mean.
        slopes, minima = {"a": 0.9, "b": 0.1}, {"a": 0.0, "b": 1.0}
        best = (0.9 * 0 + 0.1 * 1) / (0.9 + 0.1)

        def run(correct: bool) -> float:
            algorithm, x = bare("a", "b", rate=0.5), {"w": np.array([5.0], np.float32)}
            for round in range(1, 60):
                updates = {}
                for name in slopes:
                    sent = algorithm.shared(name, SCOPE, round) if correct else {}
                    extra = sent["correction"]["w"] if sent else np.zeros(1, np.float32)
                    w = x["w"].copy()
                    for _ in range(5):
                        w -= np.float32(0.5) * (np.float32(slopes[name]) * (w - minima[name]) + extra)
                    updates[name] = update({"w": w}, 5)
                mean = {"w": np.mean([u.weights["w"] for u in updates.values()], axis=0)}
                x = dict(algorithm.server_step(SCOPE, round, x, mean, updates))
            return float(x["w"][0])

        assert run(correct=True) == pytest.approx(best, abs=1e-3)
        assert abs(run(correct=False) - best) > 0.05


class TestInARun:
    """Both sides."""

    def test_one_worker_has_nothing_to_correct(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        expected, _ = make_world(make_job("finetune", workers=1)).run()
        weights, _ = make_world(make_job("scaffold", workers=1)).run()
        assert all(np.array_equal(weights[name], expected[name]) for name in expected)

    def test_a_step_goes_along_the_corrected_gradient(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world, plain = make_world(make_job("scaffold", training=PLAIN)), make_world(make_job(training=PLAIN))
        start = world.central.begin_task(1, None)
        middle = world.round(1, 1, start)
        # Without a variate the first round is finetune's.
        assert all(np.array_equal(array, middle[n]) for n, array in plain.round(1, 1, start).items())
        for name in (A, B):
            order = world.order(name, 1, 2, middle)
            correction = order.shared["correction"]
            trained = world.workers[name].train(order, ignore).weights
            free = plain.workers[name].train(replace(order, shared={}), ignore).weights
            for tensor, array in correction.items():
                assert np.abs(array).max() > 0
                np.testing.assert_allclose(trained[tensor], free[tensor] - 0.1 * array, atol=1e-6)

    def test_corrections_cancel_in_the_average(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("scaffold", training=PLAIN))
        world.round(1, 1, world.central.begin_task(1, None))
        samples = {
            name: len(share.tasks[0].labelled) for name, share in zip((A, B), world.split.shares, strict=True)
        }
        assert samples[A] != samples[B]
        for tensor in ("head.weight", "features.0.bias"):
            sent = [n * world.central.shared(name, 1, 2)["correction"][tensor] for name, n in samples.items()]
            np.testing.assert_allclose(sum(sent), 0, atol=1e-5)

    def test_statistics_of_normalisation_have_no_variate(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        model = {"name": "cnn", "parameters": {"channels": [4], "dense": 8, "norm": "batch"}}
        world = make_world(make_job("scaffold", model=model))
        world.round(1, 1, world.central.begin_task(1, None))
        names = world.central.shared(A, 1, 2)["correction"]
        assert "features.1.weight" in names
        assert not [name for name in names if "running" in name or "tracked" in name]

    def test_a_worker_without_data_does_not_weigh(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("scaffold", workers=1))
        lonely = make_world(make_job("scaffold", workers=2), empty=((1, 1), (1, 2), (1, 3)))
        weights, expected = lonely.run()[0], world.run()[0]
        assert all(np.array_equal(weights[name], expected[name]) for name in expected)
