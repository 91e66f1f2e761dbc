"""fot: outputs for old inputs stay where their whole energy is protected; finetune where none is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from engram.federation.messages import Tensors
from engram.learning.models import build_network
from tests.learning.conftest import World

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld

NORMALISED = {"name": "cnn", "parameters": {"channels": [4], "dense": 8, "norm": "batch"}}


def logits(world: World, weights: Tensors, rows: int) -> Tensor:
    """Return the answers to the first task's training images that workers hold."""
    network = build_network(world.job, (1, 8, 8), rows)
    network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    held = np.unique(np.concatenate([share.tasks[0].labelled for share in world.split.shares]))
    with torch.no_grad():
        answers: Tensor = network.eval()(torch.from_numpy(world.dataset.train.read(held)))
    return answers


def moved(before: Tensors, after: Tensors) -> set[str]:
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_a_threshold_that_protects_nothing_is_finetune(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected, _ = make_world(make_job("finetune")).run()
    weights, _ = make_world(make_job("fot", {"threshold": 0})).run()
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("sketch", [128, 40])
def test_answers_to_old_images_stay_where_all_of_their_inputs_are_protected(
    make_job: MakeJob, make_world: MakeWorld, sketch: int
) -> None:
    # The dense layer has 65 inputs; 40 columns hold all but little of their energy.
    world = make_world(make_job("fot", {"threshold": 1, "sketch": sketch}))
    first = world.task(1, None)
    start = world.central.begin_task(2, first)
    after = world.round(2, 2, world.round(2, 1, start))
    free = make_world(make_job("finetune"))
    loose = free.round(2, 2, free.round(2, 1, start))
    old = logits(world, start, 4)
    drift, expected = (logits(world, weights, 4) - old for weights in (after, loose))
    assert drift.abs().max() < 0.02 * expected.abs().max()
    assert moved(start, after)


def test_a_lower_threshold_leaves_more_to_learn(make_job: MakeJob, make_world: MakeWorld) -> None:
    def change(threshold: float) -> float:
        world = make_world(make_job("fot", {"threshold": threshold}))
        start = world.central.begin_task(2, world.task(1, None))
        after = world.round(2, 1, start)
        return float(sum(np.square(after[name] - start[name]).sum() for name in start))

    assert change(0.99) < 0.8 * change(0.5)


def test_what_is_no_layer_stays_after_the_first_task(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("fot", {"threshold": 0.5}, model=NORMALISED))
    start = world.central.begin_task(1, None)
    assert "features.1.weight" in moved(start, world.round(1, 1, start))
    start = world.central.begin_task(2, world.task(1, None))
    changed = moved(start, world.round(2, 1, start))
    assert "features.0.weight" in changed
    assert not {name for name in changed if name.startswith("features.1.")}


def test_bases_grow_from_task_to_task_and_stay_orthonormal(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("fot", {"threshold": 0.9}))
    weights = world.task(1, None)
    one = world.central.state()
    world.task(2, weights)
    two = world.central.state()
    assert one.keys() == two.keys() == {f"basis/{name}" for name in ("features.0", "features.5", "head")}
    for name, basis in two.items():
        assert basis.shape[1] >= one[name].shape[1]
        assert np.array_equal(basis[:, : one[name].shape[1]], one[name])
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-9)
    assert any(two[name].shape[1] > one[name].shape[1] for name in two)


def test_unlabelled_images_count_and_workers_without_any_do_not(
    make_job: MakeJob, make_world: MakeWorld
) -> None:
    states = []
    for kind in ("labelled", "unlabelled"):
        places = ((0, 1), (1, 1)) if kind == "unlabelled" else ()
        world = make_world(make_job("fot", workers=3), unlabelled=places, empty=((2, 1),))
        start = world.central.begin_task(1, None)
        results = world.consolidate(1, start)
        assert results["trainworker-edge-2"].results == {}
        world.central.close_task(1, start, results)
        states.append(world.central.state())
    assert states[0]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
