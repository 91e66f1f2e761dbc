"""glfc: its equations on small numbers, its old model, and what becomes of it without its terms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from engram.federation.messages import Consolidated, Tensors, Update
from engram.learning.algorithm import TaskScope
from engram.learning.algorithms import build_algorithm
from engram.learning.algorithms.glfc import Glfc
from engram.learning.losses import gradient_weights, relation_distillation, weighted_cross_entropy
from engram.learning.models import build_network
from engram.learning.state import unpack
from engram.spec.algorithms import GlfcParameters

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World

OFF = {"gradientCompensation": False, "classificationStrength": 1, "distillationStrength": 0}
FIRST = TaskScope(task=1, classes=(5, 0), seen=(5, 0))
SECOND = TaskScope(task=2, classes=(3, 1), seen=(5, 0, 3, 1))


def chances(*rows: tuple[float, ...]) -> torch.Tensor:
    """Logits whose softmax is `rows`."""
    return torch.tensor(rows).log()


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


class TestGradientCompensation:
    """The weight in L_GC."""

    def test_by_hand(self) -> None:
        # |p - 1| of the own class: old .2 and .6, mean .4; new .9 and .3, mean .6.
        logits = chances((0.8, 0.1, 0.1), (0.4, 0.4, 0.2), (0.5, 0.4, 0.1), (0.2, 0.1, 0.7))
        targets = torch.tensor([0, 1, 2, 2])
        weights = gradient_weights(logits, targets, (targets >= 2).long())
        assert weights.tolist() == pytest.approx([0.5, 1.5, 1.5, 0.5], abs=1e-5)

    def test_are_of_the_logits_and_not_of_the_labels(self) -> None:
        # The trap: a one-hot where the logits belong makes every gradient, so every weight, the same.
        targets = torch.tensor([0, 0, 1, 1])
        kinds = torch.zeros(4)
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
        assert gradient_weights(logits, targets, kinds).std() > 0.1
        assert gradient_weights(one_hot(targets, 3).float(), targets, kinds).std() < 1e-6

    def test_glfc_gives_them_the_logits(self) -> None:
        logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
        targets = torch.tensor([0, 0, 1, 2, 2, 3])
        weights = Glfc(GlfcParameters()).weights(SECOND, logits, targets)
        assert torch.equal(weights, gradient_weights(logits, targets, torch.tensor([0, 0, 0, 1, 1, 1])))
        assert weights[0] != weights[1]
        assert weights[:3].mean() == pytest.approx(1) == weights[3:].mean()

    def test_few_old_samples_pull_as_much_as_many_new_ones_pull_each(self) -> None:
        # Old samples fit badly (gradient .9), new ones well (.1): without kinds old ones would outweigh them.
        logits = chances((0.1, 0.9), (0.1, 0.9), (0.1, 0.9))
        targets = torch.tensor([0, 1, 1])
        assert gradient_weights(logits, targets, targets).tolist() == pytest.approx([1, 1, 1])

    def test_exponent(self) -> None:
        logits = chances((0.36, 0.64), (0.84, 0.16))  # gradients .64 and .16, square roots .8 and .4
        weights = gradient_weights(logits, torch.tensor([0, 0]), torch.zeros(2), 0.5)
        assert weights.tolist() == pytest.approx([0.8 / 0.6, 0.4 / 0.6], abs=1e-5)
        assert gradient_weights(logits, torch.tensor([0, 0]), torch.zeros(2), 0.0).tolist() == [1, 1]

    def test_samples_without_a_gradient_weigh_one_and_not_nan(self) -> None:
        logits = torch.tensor([[200.0, 0.0], [0.0, 0.0]])
        assert gradient_weights(logits, torch.tensor([0, 1]), torch.tensor([0, 1])).tolist() == [1, 1]

    def test_carry_no_gradient_themselves(self) -> None:
        logits = torch.zeros(2, 2, requires_grad=True)
        assert not gradient_weights(logits, torch.tensor([0, 1]), torch.zeros(2)).requires_grad

    def test_weighted_cross_entropy_by_hand(self) -> None:
        logits = chances((0.5, 0.5), (0.25, 0.75))
        loss = weighted_cross_entropy(logits, torch.tensor([0, 0]), torch.tensor([0.5, 1.5]))
        assert loss.item() == pytest.approx((0.5 * math.log(2) + 1.5 * math.log(4)) / 2)

    def test_of_an_empty_batch_is_zero(self) -> None:
        logits, nothing = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, dtype=torch.int64)
        weights = gradient_weights(logits, nothing, nothing)
        assert weighted_cross_entropy(logits, nothing, weights).item() == 0
        assert relation_distillation(logits, torch.zeros(0, 2), nothing).item() == 0


class TestRelationDistillation:
    """L_RD."""

    def test_old_sample_learns_the_teacher_s_answer(self) -> None:
        # Y = (.75, .25, 0); the student says 1/3 each.
        loss = relation_distillation(torch.zeros(1, 3), chances((0.75, 0.25)), torch.tensor([1]))
        assert loss.item() == pytest.approx(0.75 * math.log(0.75 * 3) + 0.25 * math.log(0.25 * 3), abs=1e-6)

    def test_new_sample_learns_its_label_and_where_the_teacher_sees_it(self) -> None:
        # (.75, .25, 1) over its sum 2.
        loss = relation_distillation(torch.zeros(1, 3), chances((0.75, 0.25)), torch.tensor([2]))
        expected = sum(p * math.log(p * 3) for p in (0.375, 0.125, 0.5))
        assert loss.item() == pytest.approx(expected, abs=1e-6)

    def test_is_zero_for_a_student_that_has_learned_it(self) -> None:
        student = chances((0.375, 0.125, 0.5))
        loss = relation_distillation(student, chances((0.75, 0.25)), torch.tensor([2]))
        assert loss.item() == pytest.approx(0, abs=1e-6)

    def test_mean_and_weights(self) -> None:
        answers, targets = chances((0.75, 0.25), (0.75, 0.25)), torch.tensor([1, 2])
        alone = [
            relation_distillation(torch.zeros(1, 3), answers[:1], targets[i : i + 1]).item() for i in (0, 1)
        ]
        both = relation_distillation(torch.zeros(2, 3), answers, targets)
        assert both.item() == pytest.approx(sum(alone) / 2)
        weighted = relation_distillation(torch.zeros(2, 3), answers, targets, torch.tensor([0.5, 2.0]))
        assert weighted.item() == pytest.approx((0.5 * alone[0] + 2 * alone[1]) / 2)


class TestRuns:
    """A whole run."""

    def test_without_its_terms_it_is_replay(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        expected, _ = make_world(make_job("replay", {"weightAlignment": False})).run()
        weights, _ = make_world(make_job("glfc", OFF)).run()
        assert same(weights, expected)

    @pytest.mark.parametrize(
        "on", [{"gradientCompensation": True}, {"distillationStrength": 0.5}, {"classificationStrength": 0.5}]
    )
    def test_with_any_of_them_it_is_not(
        self, make_job: MakeJob, make_world: MakeWorld, on: dict[str, Any]
    ) -> None:
        expected, _ = make_world(make_job("glfc", OFF)).run()
        weights, _ = make_world(make_job("glfc", {**OFF, **on})).run()
        assert not same(weights, expected)

    def test_first_task_has_no_other_term_than_compensation(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        expected = make_world(make_job("finetune")).task(1, None)
        parameters = {"gradientCompensation": False}
        assert same(make_world(make_job("glfc", parameters)).task(1, None), expected)

    def test_without_distillation_no_old_model_goes_down(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        for strength, groups in ((0, set()), (0.5, {"teacher"})):
            world = make_world(make_job("glfc", {"distillationStrength": strength}))
            world.task(1, None)
            assert set(world.central.shared("trainworker-edge-0", 2, 1)) == groups

    def test_it_learns_and_remembers(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        training = {"roundsPerTask": 3, "localSteps": 10}
        world = make_world(make_job("glfc", training=training))
        _, counts = world.run()
        assert all(np.isfinite(world.losses))
        assert sum(counts[-1].right.values()) / sum(counts[-1].total.values()) > 0.5


class TestOldModel:
    """Which model becomes the teacher."""

    def counted(self, right: int, total: int = 10) -> Tensors:
        return {"right_of_total": np.array([right, total])}

    def update(self, round: int, right: int, total: int = 10) -> Update:
        return Update(1, round, 5, info=self.counted(right, total))

    def model(self, value: float, rows: int = 2) -> Tensors:
        return {"head.bias": np.full(rows, value, np.float32)}

    def teacher(self, algorithm: Glfc) -> float:
        return float(algorithm.shared("", SECOND, 1)["teacher"]["head.bias"][0])

    def test_is_the_best_of_the_task_and_not_its_last(self) -> None:
        glfc = Glfc(GlfcParameters())
        # The counts of a round tell of the model before it; those of round 1 tell of none of this task.
        glfc.close_round(FIRST, 1, self.model(1), {"a": self.update(1, 10)})
        glfc.close_round(FIRST, 2, self.model(2), {"a": self.update(2, 6)})
        glfc.close_round(FIRST, 3, self.model(3), {"a": self.update(3, 9)})
        results = {"a": Consolidated(1, 5, self.counted(8))}
        assert glfc.close_task(FIRST, self.model(3), results)["head.bias"][0] == 3
        assert self.teacher(glfc) == 2

    def test_may_be_the_last(self) -> None:
        glfc = Glfc(GlfcParameters())
        glfc.close_round(FIRST, 1, self.model(1), {"a": self.update(1, 10)})
        glfc.close_round(FIRST, 2, self.model(2), {"a": self.update(2, 6)})
        glfc.close_task(FIRST, self.model(2), {"a": Consolidated(1, 5, self.counted(7))})
        assert self.teacher(glfc) == 2

    def test_is_the_last_when_nobody_counted(self) -> None:
        glfc = Glfc(GlfcParameters())
        glfc.close_round(FIRST, 1, self.model(1), {})
        glfc.close_task(FIRST, self.model(1), {})
        assert self.teacher(glfc) == 1

    def test_is_reset_at_the_change_of_task(self) -> None:
        glfc = Glfc(GlfcParameters())
        glfc.close_round(FIRST, 1, self.model(1), {})
        glfc.close_task(FIRST, self.model(1), {"a": Consolidated(1, 5, self.counted(10))})
        third = TaskScope(3, (4, 2), (5, 0, 3, 1, 4, 2))
        for right in (2, 3):  # worse than the first task's model, but of this task
            update = replace(self.update(1, right), task=2)
            glfc.close_round(SECOND, 1, self.model(right, 4), {"a": update})
        glfc.close_task(SECOND, self.model(3, 4), {"a": Consolidated(2, 5, self.counted(1))})
        assert len(glfc.shared("", third, 1)["teacher"]["head.bias"]) == 4

    def test_a_late_update_tells_of_another_model(self) -> None:
        glfc = Glfc(GlfcParameters())
        glfc.close_round(FIRST, 1, self.model(1), {})
        glfc.close_round(FIRST, 2, self.model(2), {"a": self.update(2, 5)})
        glfc.close_round(FIRST, 3, self.model(3), {"a": self.update(1, 10), "b": self.update(3, 4)})
        glfc.close_task(FIRST, self.model(3), {})
        assert self.teacher(glfc) == 1

    @pytest.mark.parametrize("counts", [(11, 10), (-1, 10), (10**6, 10**6)])
    def test_counts_that_cannot_be_are_left_out(self, counts: tuple[int, int]) -> None:
        glfc = Glfc(GlfcParameters())
        glfc.close_round(FIRST, 1, self.model(1), {})
        glfc.close_round(FIRST, 2, self.model(2), {"a": self.update(2, *counts), "b": self.update(2, 1)})
        glfc.close_round(FIRST, 3, self.model(3), {"b": self.update(3, 2)})
        glfc.close_task(FIRST, self.model(3), {})
        assert self.teacher(glfc) == 2

    def test_survives_a_restart(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        for rounds in (0, 1, 2):
            world = make_world(make_job("glfc"))
            weights = world.central.begin_task(2, world.task(1, None))
            for number in range(1, rounds + 1):
                weights = world.round(2, number, weights)
            again = make_world(world.job)
            again.central.restore(2, world.central.state())
            for name, group in world.central.shared("", 2, 1).items():
                assert same(group, again.central.shared("", 2, 1)[name])
            results = world.consolidate(2, weights)
            for central in (world.central, again.central):
                central.close_task(2, weights, results)
            third = [central.shared("", 3, 1)["teacher"] for central in (world.central, again.central)]
            assert same(*third)

    def test_is_kept_by_value(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("glfc"))
        final = world.task(1, None)
        before = {name: array.copy() for name, array in world.central.shared("", 2, 1)["teacher"].items()}
        for array in final.values():
            array += 1
        assert same(world.central.shared("", 2, 1)["teacher"], before)


class TestCounts:
    """What a worker counts for the choice of the old model."""

    def right(self, world: World, weights: Tensors, positions: Any, rows: int) -> int:
        network = build_network(world.job, (1, 8, 8), rows)
        network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        seen = list(world.central.seen(rows // 2))
        images = torch.from_numpy(world.dataset.train.read(positions))
        labels = world.dataset.train.labels[positions]
        found = network(images).argmax(1).tolist()
        return sum(seen[row] == label for row, label in zip(found, labels.tolist(), strict=True))

    def test_are_of_the_received_model_and_not_of_the_trained_one(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        parameters = {"exemplarsPerWorker": 12}
        world = make_world(make_job("glfc", parameters, training={"localSteps": 40}), only=(0,))
        first = world.task(1, None)
        _, kept = unpack(world.consolidate(1, first)["trainworker-edge-0"].state)
        weights = world.central.begin_task(2, first)
        update = world.workers["trainworker-edge-0"].train(
            world.order("trainworker-edge-0", 2, 1, weights), lambda done, loss: None
        )
        labelled = world.split.shares[0].tasks[1].labelled
        labels = world.dataset.train.labels[labelled]
        exemplars = kept["exemplars/positions"].reshape(2, 6)  # of which 12 / 4 classes count
        counted = [*exemplars[:, :3], *(labelled[labels == label][:3] for label in (3, 1))]
        positions = np.concatenate(counted).astype(np.int64)
        right = self.right(world, weights, positions, 4)
        assert update.info["right_of_total"].tolist() == [right, 12]
        assert right != self.right(world, update.weights, positions, 4)

    def test_first_task_counts_its_own_samples(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("glfc", {"exemplarsPerWorker": 8}), only=(0,))
        weights = world.round(1, 1, world.central.begin_task(1, None))
        results = world.consolidate(1, weights)["trainworker-edge-0"].results
        labelled = world.split.shares[0].tasks[0].labelled
        labels = world.dataset.train.labels[labelled]
        chosen = np.concatenate([labelled[labels == label][:4] for label in (5, 0)])
        assert results["right_of_total"].tolist() == [self.right(world, weights, chosen, 2), 8]

    def test_a_model_that_knows_nothing_new_does_not_win(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        # The first models of a task are the best on old classes. With them alone the teacher would never
        # have heard of the task's own classes.
        world = make_world(make_job("glfc", training={"roundsPerTask": 4, "localSteps": 12}))
        world.task(2, world.task(1, None))
        teacher = world.central.shared("", 3, 1)["teacher"]
        new = np.concatenate([np.arange(24 * label, 24 * label + 24) for label in (3, 1)])
        assert self.right(world, teacher, new, 4) > 36

    def test_worker_without_data_of_a_class_counts_what_it_has(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        world = make_world(make_job("glfc"), empty=((1, 1),))
        weights = world.round(1, 1, world.central.begin_task(1, None))
        answers = world.consolidate(1, weights)
        assert answers["trainworker-edge-1"].results["right_of_total"].tolist() == [0, 0]
        assert answers["trainworker-edge-0"].results["right_of_total"][1] > 0


def test_parameters_reach_the_algorithm(make_job: MakeJob) -> None:
    glfc = build_algorithm(make_job("glfc", {"exemplarsPerWorker": 7, "classificationStrength": 0.25}))
    assert isinstance(glfc, Glfc)
    assert (glfc.memory.budget, glfc.classification, glfc.distillation) == (7, 0.25, 0.5)
