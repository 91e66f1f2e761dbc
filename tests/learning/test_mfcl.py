"""mfcl: split cross-entropy, a head that is tuned on all classes, and features that the old head keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from engram.learning.algorithms.mfcl import weighted_distance
from engram.learning.models import build_network
from engram.learning.seeds import generator
from engram.learning.synthesis import ImageGenerator
from tests.learning.test_generator import BATCH, QUICK, digest

if TYPE_CHECKING:
    from engram.federation.messages import Tensors
    from tests.learning.conftest import MakeJob, MakeWorld

FIRST = "trainworker-edge-0"
SPLIT = """
from engram.learning.algorithm import Algorithm
from engram.learning.losses import cross_entropy

class Split(Algorithm):
    def loss(self, context, batch):
        old = context.scope.old
        return cross_entropy(context.network(batch.images)[:, old:], batch.targets - old)
"""


def first_step(make_job: MakeJob, make_world: MakeWorld, **parameters: object) -> tuple[Tensors, Tensors]:
    """Return the weights before and after one step of the first worker in task 2."""
    training = {"localSteps": 1, "optimizer": {"weightDecay": 0}}
    job = make_job("mfcl", {**QUICK["mfcl"], **parameters}, model=BATCH, training=training)
    world = make_world(job, only=(0,))
    start = world.central.begin_task(2, world.task(1, None))
    return start, world.workers[FIRST].train(world.order(FIRST, 2, 1, start), lambda a, b: None).weights


def test_without_weights_it_is_finetune_among_the_new_classes(
    make_job: MakeJob, make_world: MakeWorld, module_folder: Path
) -> None:
    (module_folder / "split_own.py").write_text(SPLIT)
    expected, _ = make_world(make_job("split_own:Split", model=BATCH)).run()
    parameters = {**QUICK["mfcl"], "fineTuning": 0, "distillation": 0}
    world = make_world(make_job("mfcl", parameters, model=BATCH))
    weights, _ = world.run()
    assert digest(weights) == digest(expected)
    assert world.central.state() == {}


def test_old_head_decides_which_change_of_features_counts() -> None:
    features, old = torch.tensor([[1.0, 5.0], [2.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    head = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    # Changes (2, 0) and (4, 0) before two rows: (4 + 16) / 2 images / 2 rows. The second feature is free.
    assert weighted_distance(features, old, head).item() == 5


def test_only_the_head_is_tuned_on_all_classes(make_job: MakeJob, make_world: MakeWorld) -> None:
    start, weak = first_step(make_job, make_world, fineTuning=0.1, distillation=0)
    _, strong = first_step(make_job, make_world, fineTuning=5, distillation=0)
    assert np.array_equal(weak["features.0.weight"], strong["features.0.weight"])
    assert not np.array_equal(weak["head.weight"][:2], strong["head.weight"][:2])
    assert not np.array_equal(weak["features.0.weight"], start["features.0.weight"])


def test_without_tuning_old_rows_stay(make_job: MakeJob, make_world: MakeWorld) -> None:
    start, after = first_step(make_job, make_world, fineTuning=0, distillation=1)
    assert np.array_equal(after["head.weight"][:2], start["head.weight"][:2])
    assert not np.array_equal(after["head.weight"][2:], start["head.weight"][2:])


def test_loss_by_hand(make_job: MakeJob, make_world: MakeWorld) -> None:
    """All three terms of one step, from what the worker was sent."""
    parameters = {**QUICK["mfcl"], "fineTuning": 2.0, "distillation": 3.0}
    training = {"localSteps": 1, "batchSize": 4}
    world = make_world(make_job("mfcl", parameters, model=BATCH, training=training), only=(0,))
    start = world.central.begin_task(2, world.task(1, None))
    order = world.order(FIRST, 2, 1, start)
    found = world.workers[FIRST].train(order, lambda a, b: None).metrics["loss"]

    old, network = (build_network(world.job, (1, 8, 8), rows) for rows in (2, 4))
    maker = ImageGenerator((1, 8, 8), 4, 2)
    for module, weights in ((old, order.shared["teacher"]), (maker, order.shared["generator"])):
        module.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        module.eval()
    network.load_state_dict({name: torch.tensor(array) for name, array in start.items()})
    positions = world.split.shares[0].tasks[1].labelled
    chosen = torch.randperm(len(positions), generator=generator(0, "labelled", FIRST, 2, 1, 0))[:4].numpy()
    labels = world.dataset.train.labels[positions[chosen]]
    targets = torch.tensor([{3: 2, 1: 3}[int(label)] for label in labels])
    with torch.no_grad():
        made = maker(torch.randn(8, 4, generator=generator(0, "synthetic", FIRST, 2, 1, 0)))
        images = torch.cat([torch.from_numpy(world.dataset.train.read(positions[chosen])), made])
        features = network.train().features(images)
        logits = network.head(features)
        own = functional.cross_entropy(logits[:4, 2:], targets - 2)
        every = functional.cross_entropy(logits, torch.cat([targets, old(made).argmax(1)]))
        change = (features - old.features(images)) @ old.head.weight.T
    assert found == pytest.approx((own + 2 * every + 3 * change.square().mean()).item(), rel=1e-4)


def test_generator_goes_on_from_the_last_task_s(make_job: MakeJob, make_world: MakeWorld) -> None:
    parameters = {**QUICK["mfcl"], "generatorSteps": 1, "generatorLearningRate": 1e-6}
    world = make_world(make_job("mfcl", parameters, model=BATCH))
    weights = world.task(1, None)
    before = world.central.shared("", 2, 1)["generator"]["project.weight"]
    world.task(2, weights)
    after = world.central.shared("", 3, 1)["generator"]["project.weight"]
    assert np.abs(after - before).max() <= 2e-6
    assert not np.array_equal(after, before)
