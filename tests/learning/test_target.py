"""target: distillation on synthetic images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from engram.learning.algorithms.target import GROUP
from engram.learning.models import build_network
from engram.learning.synthesis.inversion import packed, unpacked
from tests.learning.test_generator import BATCH, QUICK, digest, quick_job

if TYPE_CHECKING:
    from engram.federation.messages import Tensors
    from engram.learning.models import Network
    from tests.learning.conftest import MakeJob, MakeWorld, World

FIRST = "trainworker-edge-0"


def network_of(world: World, weights: Tensors) -> Network:
    network = build_network(world.job, (1, 8, 8), len(weights["head.bias"]))
    network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return network


def test_without_weight_it_is_finetune(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected, _ = make_world(make_job(model=BATCH)).run()
    job = quick_job(make_job, "target", strength=0, newRowsOnly=False)
    world = make_world(job)
    weights, _ = world.run()
    assert digest(weights) == digest(expected)
    assert world.central.state() == {}


def test_cross_entropy_among_new_rows_leaves_the_old_ones_alone(
    make_job: MakeJob, make_world: MakeWorld
) -> None:
    training = {"optimizer": {"weightDecay": 0}}
    kept = {}
    for only in (True, False):
        parameters = {**QUICK["target"], "strength": 0, "newRowsOnly": only}
        world = make_world(make_job("target", parameters, model=BATCH, training=training))
        start = world.central.begin_task(2, world.task(1, None))
        after = world.round(2, 1, start)
        kept[only] = np.array_equal(after["head.weight"][:2], start["head.weight"][:2])
        assert not np.array_equal(after["head.weight"][2:], start["head.weight"][2:])
    assert kept == {True: True, False: False}


def test_distillation_by_hand(make_job: MakeJob, make_world: MakeWorld) -> None:
    """Equation 11: one step's loss with alpha 3 and 1 differs by 2 T^2 KL(teacher || model)."""
    losses = {}
    for strength in (1.0, 3.0):
        parameters = {**QUICK["target"], "syntheticImages": 1, "strength": strength, "temperature": 2}
        job = make_job("target", parameters, model=BATCH, training={"localSteps": 1})
        world = make_world(job, only=(0,))
        first = world.task(1, None)
        start = dict(world.central.begin_task(2, first))
        start["head.weight"] = -5 * start["head.weight"]
        update = world.workers[FIRST].train(world.order(FIRST, 2, 1, start), lambda a, b: None)
        losses[strength] = update.metrics["loss"]
    # The only image, eight times over, in the mode in which a network trains.
    group = world.central.shared(FIRST, 2, 1)[GROUP]
    image = unpacked({name: torch.tensor(array) for name, array in group.items()}).repeat(8, 1, 1, 1)
    assert image.shape == (8, 1, 8, 8)
    with torch.no_grad():
        wanted = network_of(world, first).eval()(image)
        model = network_of(world, start).train()(image)[:, :2]
    divergence = functional.kl_div((model / 2).log_softmax(1), (wanted / 2).softmax(1), reduction="none").sum(
        1
    )[0]
    assert losses[3.0] - losses[1.0] == pytest.approx(2 * 4 * divergence.item(), rel=1e-3)


def test_images_look_to_the_model_like_the_classes_that_they_are_of(
    make_job: MakeJob, make_world: MakeWorld
) -> None:
    parameters = {
        **QUICK["target"],
        "syntheticImages": 64,
        "generatorBatch": 32,
        "generatorSteps": 40,
        "generatorLearningRate": 0.01,
        "generatorWidth": 8,
        "studentSteps": 5,
    }
    world = make_world(make_job("target", parameters, model=BATCH, training={"localSteps": 20}))
    first = world.task(1, None)
    group = world.central.shared("", 2, 1)[GROUP]
    images = unpacked({name: torch.tensor(array) for name, array in group.items()})
    answers = network_of(world, first).eval()(images).argmax(1)
    assert (answers == torch.arange(64) % 2).float().mean() >= 0.95
    assert not torch.allclose(images[0], images[2])


def test_images_take_a_byte_a_pixel() -> None:
    images = torch.randn(7, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    images[:, 1] = 2.5
    tensors = packed(images)
    assert tensors["pixels"].dtype == np.uint8
    assert tensors["pixels"].nbytes == images.numel()
    again = unpacked({name: torch.tensor(array) for name, array in tensors.items()})
    steps = torch.tensor(tensors["step"])[:, None, None]
    assert ((again - images).abs() <= steps * 0.5001 + 1e-6).all()
