"""fedlwf and fedewc with `unlabelled: true`: what images without labels are used for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engram.federation.messages import Tensors, Train
from engram.learning.algorithms import build_algorithm
from engram.learning.models import build_network
from tests.learning.conftest import ignore

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World

FIRST = "trainworker-edge-0"
SCARCE = {"labelRatio": 0.5}
"""Every other sample of each worker goes without its label."""
STILL = {
    "localSteps": 1,
    "batchSize": 24,
    "optimizer": {"learningRate": 0.1, "momentum": 0, "weightDecay": 0},
}


def same(one: Tensors, other: Tensors) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


class TestFedLwf:
    """Distillation on unlabelled images."""

    def test_unlabelled_samples_are_used_where_there_is_a_teacher(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        world = make_world(make_job("fedlwf", {"unlabelled": True}, dataset=SCARCE))
        share = world.split.shares[0]
        algorithm = build_algorithm(world.job)
        assert len(algorithm.unlabelled(share, 1, 1)) == 0
        assert algorithm.unlabelled(share, 2, 1).tolist() == share.tasks[1].unlabelled.tolist()
        weights = world.central.begin_task(2, world.task(1, None))
        update = world.workers[FIRST].train(world.order(FIRST, 2, 1, weights), ignore)
        assert (update.metrics["labelled"], update.metrics["unlabelled"]) == (12, 12)
        assert update.samples == 24

    def test_off_they_change_nothing(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        runs = []
        for name, parameters in (
            ("fedlwf", {}),
            ("fedlwf", {"unlabelled": True, "strength": 0}),
            ("finetune", {}),
        ):
            aggregation = {"weighting": "labelled"}
            world = make_world(make_job(name, parameters, aggregation=aggregation, dataset=SCARCE))
            runs.append(world.run()[0])
        assert not same(runs[0], runs[2])
        assert same(runs[1], runs[2])

    def test_the_distillation_is_the_mean_over_all_images(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        # One step on all 12 labelled and all 12 unlabelled images, twice each: its loss can be computed.
        parameters = {"unlabelled": True, "strength": 2.0, "temperature": 1.0}
        job = make_job("fedlwf", parameters, training=STILL, dataset=SCARCE)
        world = make_world(job)
        weights = world.central.begin_task(2, world.task(1, None))
        shifted = {**weights, "head.bias": weights["head.bias"] + np.arange(4, dtype=np.float32)}
        update = world.workers[FIRST].train(world.order(FIRST, 2, 1, shifted), ignore)
        part = world.split.shares[0].tasks[1]
        student, teacher = (build_network(job, (1, 8, 8), rows) for rows in (4, 2))
        student.load_state_dict({name: torch.tensor(array) for name, array in shifted.items()})
        kept = world.central.shared("", 2, 1)["teacher"]
        teacher.load_state_dict({name: torch.tensor(array) for name, array in kept.items()})
        with torch.no_grad():
            read = world.dataset.train.read
            images = [torch.from_numpy(read(positions)) for positions in (part.labelled, part.unlabelled)]
            rows = torch.tensor(
                [{5: 0, 0: 1, 3: 2, 1: 3}[c] for c in world.dataset.train.labels[part.labelled]]
            )
            own, old = student(torch.cat(images)), teacher(torch.cat(images)).softmax(1)
            loss = torch.nn.functional.cross_entropy(own[: len(rows)], rows)
            divergence = (old * (old.log() - own[:, :2].log_softmax(1))).sum(1).mean()
        assert abs(update.metrics["loss"] - float(loss + 2 * divergence)) < 1e-4

    def test_a_worker_without_labels_takes_part(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("fedlwf", {"unlabelled": True}, dataset=SCARCE), unlabelled=((0, 2),))
        weights = world.central.begin_task(2, world.task(1, None))
        order: Train = world.order(FIRST, 2, 1, {**weights, "head.bias": weights["head.bias"] + 1})
        update = world.workers[FIRST].train(order, ignore)
        assert update.samples == 24
        assert not same(update.weights, order.weights)


class TestFedEwc:
    """Fisher information on unlabelled images."""

    def fisher(self, world: World, weights: Tensors) -> Tensors:
        return world.consolidate(1, weights)[FIRST].results

    def test_it_is_the_mean_over_labelled_and_unlabelled_images(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        # A model that is sure of row 0 draws that label for every image; the bias' gradient is then known.
        found: list[Any] = []
        for parameters in ({}, {"unlabelled": True}):
            world = make_world(make_job("fedewc", parameters, dataset=SCARCE))
            weights = dict(world.central.begin_task(1, None))
            weights["head.weight"] = np.zeros_like(weights["head.weight"])
            weights["head.bias"] = np.array([6, 0], np.float32)
            found.append(self.fisher(world, weights)["head.bias"])
        wrong = 1 / (1 + np.exp(6.0))
        labels = world.dataset.train.labels[world.split.shares[0].tasks[0].labelled]
        expected = np.where(labels == 5, wrong**2, (1 - wrong) ** 2)
        np.testing.assert_allclose(found[0], expected.mean(), rtol=1e-4)
        drawn = np.full(12, wrong**2)
        np.testing.assert_allclose(found[1], np.concatenate([expected, drawn]).mean(), rtol=1e-4)

    def test_draws_are_the_same_again(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            world = make_world(make_job("fedewc", {"unlabelled": True}, dataset=SCARCE))
            results.append(self.fisher(world, world.central.begin_task(1, None)))
        assert same(results[0], results[1])
