"""Workers that train together: each learns what it would have learned alone, but for rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from engram.errors import ConfigurationError, NumericalError
from engram.federation.messages import Consolidate, Tensors, Train, Update
from engram.federation.roles import Crew
from engram.learning import build_crew, check_batched
from engram.learning.algorithms import BUILT_IN
from engram.learning.batched import clip_each

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World

VECTORISED = ["finetune", "joint", "fedprox", "fedlwf", "replay", "icarl"]
CLOSE = 1e-4


def ignore(done: float, loss: float) -> None:
    pass


def crew_of(world: World) -> Crew:
    identities = {identity.name: identity for identity in world.job.workers()}
    return build_crew(
        world.job,
        [(identities[share.worker], world.dataset, share, world.split) for share in world.split.shares],
    )


def together(crew: Crew, orders: Mapping[str, Train]) -> dict[str, Update]:
    """Let a crew train its orders and fetch each member's answer."""
    crew.train(orders, dict.fromkeys(orders, ignore))
    return {name: crew.members[name].train(order, ignore) for name, order in orders.items()}


def both(world: World, task: int, crew: Crew, weights: Tensors) -> list[tuple[Update, Update]]:
    """Train round 1 of a task alone and together; return the pairs of updates."""
    orders = {name: world.order(name, task, 1, weights) for name in world.workers}
    alone = {name: worker.train(orders[name], ignore) for name, worker in world.workers.items()}
    made = together(crew, orders)
    return [(alone[name], made[name]) for name in orders]


def agree(pairs: list[tuple[Update, Update]]) -> None:
    for alone, made in pairs:
        assert (made.task, made.round, made.samples) == (alone.task, alone.round, alone.samples)
        assert made.weights.keys() == alone.weights.keys()
        for name, array in alone.weights.items():
            assert made.weights[name].dtype == array.dtype
            assert np.allclose(made.weights[name], array, atol=CLOSE), name
        for metric in alone.metrics.keys() - {"seconds", "cpu_seconds"}:
            assert made.metrics[metric] == pytest.approx(alone.metrics[metric], abs=CLOSE), metric


@pytest.mark.parametrize("algorithm", VECTORISED)
@pytest.mark.parametrize("training", [{"gradientClip": 0.5, "augmentation": "shift1"}, {}])
def test_two_tasks_agree(
    make_job: MakeJob, make_world: MakeWorld, algorithm: str, training: Mapping[str, Any]
) -> None:
    world = make_world(make_job(algorithm, training=training, workers=3))
    crew = crew_of(world)
    first = world.central.begin_task(1, None)
    pairs = both(world, 1, crew, first)
    agree(pairs)
    assert not np.allclose(pairs[0][0].weights["head.weight"], pairs[1][0].weights["head.weight"], atol=CLOSE)
    # Both go on from the same weights, with exemplars and a teacher of the first task.
    middle = pairs[0][0].weights
    results = world.consolidate(1, middle)
    for name, member in crew.members.items():
        member.consolidate(Consolidate(1, middle, world.central.seen(1), world.central.shared(name, 1, 0)))
    second = world.central.begin_task(2, world.central.close_task(1, middle, results))
    agree(both(world, 2, crew, second))


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_other_optimisers_agree(make_job: MakeJob, make_world: MakeWorld, optimizer: str) -> None:
    # Few, small steps: Adam divides by the gradient's size, which blows up the last digits of small ones.
    training = {"localSteps": 3, "optimizer": {"name": optimizer, "learningRate": 1e-4}}
    world = make_world(make_job(training=training))
    agree(both(world, 1, crew_of(world), world.central.begin_task(1, None)))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_normalisation_layers_keep_each_worker_s_own_statistics(
    make_job: MakeJob, make_world: MakeWorld, norm: str
) -> None:
    model = {"name": "cnn", "parameters": {"channels": [4], "dense": 8, "norm": norm}}
    world = make_world(make_job(model=model))
    pairs = both(world, 1, crew_of(world), world.central.begin_task(1, None))
    agree(pairs)
    if norm == "batch":
        alone, _ = pairs[0]
        assert alone.weights["features.1.num_batches_tracked"] == alone.metrics["steps"]


def test_networks_with_dropout_train(make_job: MakeJob, make_world: MakeWorld, module_folder: Path) -> None:
    (module_folder / "own_batched_dropout.py").write_text(
        "from torch import nn\n"
        "def build(shape, parameters):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5))\n"
    )
    world = make_world(make_job(model={"name": "own_batched_dropout:build"}))
    weights = world.central.begin_task(1, None)
    orders = {name: world.order(name, 1, 1, weights) for name in world.workers}
    torch.manual_seed(1)
    first = together(crew_of(world), orders)
    torch.manual_seed(2)
    second = together(crew_of(world), orders)
    for name, update in first.items():
        assert np.array_equal(update.weights["head.weight"], second[name].weights["head.weight"])


def test_a_worker_without_data_abstains(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job(workers=3), empty=((1, 1),))
    pairs = both(world, 1, crew_of(world), world.central.begin_task(1, None))
    agree(pairs)
    assert [made.samples > 0 for _, made in pairs] == [True, False, True]


def test_a_member_that_its_crew_was_not_asked_to_train_trains_alone(
    make_job: MakeJob, make_world: MakeWorld
) -> None:
    world = make_world(make_job())
    crew = crew_of(world)
    weights = world.central.begin_task(1, None)
    name = next(iter(world.workers))
    order = world.order(name, 1, 1, weights)
    expected = world.workers[name].train(order, ignore)
    together(crew, {name: replace(order, round=2)})
    # What was made for another order is not the answer to this one.
    crew.train({name: replace(order, round=2)}, {name: ignore})
    made = crew.members[name].train(order, ignore)
    assert np.array_equal(made.weights["head.weight"], expected.weights["head.weight"])


def test_time_is_told_as_it_passed(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job(workers=3))
    weights = world.central.begin_task(1, None)
    orders = {name: world.order(name, 1, 1, weights) for name in world.workers}
    made = together(crew_of(world), orders)
    seconds = {update.metrics["seconds"] for update in made.values()}
    processor = {update.metrics["cpu_seconds"] for update in made.values()}
    assert len(seconds) == len(processor) == 1
    assert seconds.pop() > processor.pop() > 0


def test_progress_is_reported_for_each_worker(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job())
    weights = world.central.begin_task(1, None)
    orders = {name: world.order(name, 1, 1, weights) for name in world.workers}
    told: dict[str, list[float]] = {name: [] for name in orders}

    def tell(name: str) -> Callable[[float, float], None]:
        return lambda done, loss: told[name].append(done)

    crew_of(world).train(orders, {name: tell(name) for name in orders})
    assert list(told.values()) == [[pytest.approx(step / 6) for step in range(1, 7)]] * 2


def test_a_loss_that_is_not_finite_names_its_worker(make_job: MakeJob, make_world: MakeWorld) -> None:
    training = {"optimizer": {"learningRate": 1000.0, "momentum": 0.9}, "localSteps": 50}
    world = make_world(make_job(training=training))
    weights = world.central.begin_task(1, None)
    orders = {name: world.order(name, 1, 1, weights) for name in world.workers}
    with pytest.raises(NumericalError, match=r"trainworker-edge-\d, task 1, round 1: .*learningRate"):
        crew_of(world).train(orders, dict.fromkeys(orders, ignore))


def test_each_worker_s_gradient_is_clipped_by_its_own_norm() -> None:
    weight, bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2, 1))
    untouched = nn.Parameter(torch.zeros(2, 3))
    weight.grad = torch.tensor([[3.0, 0.0], [0.3, 0.0]])
    bias.grad = torch.tensor([[4.0], [0.4]])
    clip_each([weight, bias, untouched], 1.0)
    # Norms 5 and .5: the first is shortened to 1, the second stays.
    assert torch.allclose(weight.grad, torch.tensor([[0.6, 0.0], [0.3, 0.0]]))
    assert torch.allclose(bias.grad, torch.tensor([[0.8], [0.4]]))


class TestWhatCannot:
    """Jobs whose workers cannot train together are refused before anything starts."""

    def test_epochs(self, make_job: MakeJob) -> None:
        with pytest.raises(
            ConfigurationError, match=r"spec\.training\.localSteps.*--set training\.localSteps"
        ):
            check_batched(make_job(training={"localSteps": None}))

    def test_asynchronous_rounds(self, make_job: MakeJob) -> None:
        with pytest.raises(ConfigurationError, match=r"spec\.aggregation\.buffer\.size.*--batched"):
            check_batched(make_job(aggregation={"buffer": {"size": 1}}))

    @pytest.mark.parametrize("algorithm", sorted(BUILT_IN.keys() - set(VECTORISED)))
    def test_other_algorithms(self, make_job: MakeJob, algorithm: str) -> None:
        model = {"name": "cnn", "parameters": {"channels": [4], "dense": 8, "norm": "batch"}}
        job = make_job(algorithm, model=model, dataset={"labelRatio": 0.5})
        with pytest.raises(ConfigurationError, match=rf"loss of {algorithm} .*leave --batched out"):
            check_batched(job)

    def test_a_loss_of_one_s_own_unless_it_says_so(self, make_job: MakeJob, module_folder: Path) -> None:
        (module_folder / "own_batched.py").write_text(
            "from engram.learning.algorithms.replay import Replay\n"
            "class Silent(Replay):\n"
            "    def loss(self, context, batch):\n"
            "        return super().loss(context, batch)\n"
            "class Vectorised(Silent):\n"
            "    vectorised = True\n"
            "class Same(Replay):\n"
            "    pass\n"
        )
        with pytest.raises(ConfigurationError, match="vectorised = True"):
            check_batched(make_job("own_batched:Silent"))
        check_batched(make_job("own_batched:Vectorised"))
        check_batched(make_job("own_batched:Same"))
