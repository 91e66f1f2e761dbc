"""semifci: the proposal's loss, its helpers and what becomes of it when its terms weigh nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engram.errors import ConfigurationError
from engram.federation.messages import Tensors
from engram.learning.algorithm import Batch, TaskScope
from engram.learning.algorithms import build_algorithm
from engram.learning.algorithms.semifci import SemiFci
from engram.learning.helpers import KNOWN, MASKS
from engram.learning.pseudo import PseudoLabels
from engram.learning.self_training import SelfTraining
from engram.learning.teacher import blended
from engram.spec.algorithms import SemiFciParameters

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World

SCARCE: Mapping[str, Any] = {"dataset": {"labelRatio": 0.34}}
FIRST = "trainworker-edge-0"
OFF = {"compensationWeight": 0, "fusionWeight": 0}
PROPOSED: Mapping[str, Any] = {
    "candidates": "seen",
    "pseudoExemplars": False,
    "compensation": "gradients",
    "compensationWeight": 1,
}


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def world(
    make_job: MakeJob,
    make_world: MakeWorld,
    parameters: Mapping[str, Any],
    name: str = "semifci",
    **spec: Any,
) -> World:
    basis: dict[str, Any] = {"exemplarsPerWorker": 6, **parameters}
    if name == "semifci":
        basis = {"helpers": 1, **basis}
    return make_world(make_job(name, basis, **{**SCARCE, **spec}))


class TestWithoutTerms:
    """What is left when a term weighs nothing."""

    def test_all_terms_off_is_replay(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        expected, _ = world(make_job, make_world, {}, "replay").run()
        off = {**OFF, "unlabelledWeight": 0, "helpers": 0}
        weights, _ = world(make_job, make_world, off).run()
        assert same(weights, expected)

    @pytest.mark.parametrize(
        "parameters",
        [
            {**OFF, "threshold": 0.3},
            {"unlabelledWeight": 0, "fusionWeight": 0},
            {"unlabelledWeight": 0, "compensationWeight": 0},
        ],
    )
    def test_each_term_changes_something(
        self, make_job: MakeJob, make_world: MakeWorld, parameters: Mapping[str, Any]
    ) -> None:
        expected, _ = world(make_job, make_world, {}, "replay").run()
        weights, _ = world(make_job, make_world, {"helpers": 0, **parameters}).run()
        assert not same(weights, expected)

    def test_as_proposed_and_without_helpers_it_is_fedcimatch(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        weights, _ = world(make_job, make_world, {**PROPOSED, "helpers": 0, "threshold": 0.3}).run()
        other, _ = world(make_job, make_world, {"threshold": 0.3}, "fedcimatch").run()
        assert same(weights, other)

    @pytest.mark.parametrize("name", list(PROPOSED))
    def test_each_departure_from_the_proposal_changes_something(
        self, make_job: MakeJob, make_world: MakeWorld, name: str
    ) -> None:
        basis = {"helpers": 0, "threshold": 0.3, "exemplarsPerWorker": 24}
        weights, _ = world(make_job, make_world, basis).run()
        other, _ = world(make_job, make_world, {**basis, name: PROPOSED[name]}).run()
        assert not same(weights, other)

    def test_warm_up_uses_no_unlabelled_data(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        made = world(make_job, make_world, {"warmupRounds": 1})
        share = made.split.shares[0]
        algorithm = SemiFci(SemiFciParameters(warmup_rounds=1))
        assert len(algorithm.unlabelled(share, 2, 1)) == 0
        assert algorithm.unlabelled(share, 2, 2).tolist() == share.tasks[1].unlabelled.tolist()


def test_the_loss_with_gradient_weights_by_hand() -> None:
    """Old sample p = .5, new samples p = .8 and .6: |G| .5, .2, .4, over their kinds' means 1, 2/3, 4/3."""
    chances = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]])
    targets = torch.tensor([0, 2, 2])
    scope = TaskScope(task=2, classes=(9,), seen=(5, 0, 9))
    costs = -torch.tensor([0.5, 0.8, 0.6]).log()
    for weight in (0.0, 0.25, 1.0):
        algorithm = SemiFci(SemiFciParameters(compensation="gradients", compensation_weight=weight))
        factors = weight * torch.tensor([1, 2 / 3, 4 / 3]) + (1 - weight)
        found = algorithm._classification(scope, chances.log(), targets)
        assert torch.allclose(found, (factors * costs).mean(), atol=1e-6)
    assert algorithm._classification(scope, torch.empty(0, 3), targets[:0]) == 0


class TestPrevalence:
    """The offset that labelled and unlabelled images see in training."""

    chances = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    scope = TaskScope(task=2, classes=(9,), seen=(5, 0, 9))

    def test_the_labelled_loss_by_hand(self) -> None:
        """The new row counts three times: .5 / 1.4 and 3 x .6 / 2.2."""
        algorithm = SemiFci(SemiFciParameters())
        algorithm.offset = torch.tensor([0.0, 0.0, math.log(3)])
        found = algorithm._classification(self.scope, self.chances.log(), torch.tensor([0, 2]))
        assert found.item() == pytest.approx(-(math.log(0.5 / 1.4) + math.log(1.8 / 2.2)) / 2)

    def test_unlabelled_images_see_it_too_and_predictions_do_not(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        class Seen(torch.nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return TestPrevalence.chances.log()[: len(images)]

        batch = Batch(
            images=torch.empty(0, 1, 8, 8),
            targets=torch.empty(0, dtype=torch.int64),
            unlabelled=torch.zeros(2, 1, 8, 8),
            hidden=torch.tensor([0, 2]),
            step=0,
        )
        context: Any = SimpleNamespace(network=Seen(), weak=torch.clone, strong=torch.clone)
        judged = PseudoLabels(torch.tensor([2, 2]), torch.tensor([True, True]))
        offset = torch.tensor([0.0, 0.0, math.log(3)])
        training = SelfTraining(SemiFciParameters())
        passed = training.forward(context, batch, lambda images: judged, offset)
        assert passed.loss.item() == pytest.approx(-(math.log(0.6 / 1.4) + math.log(1.8 / 2.2)) / 2)
        assert torch.equal(passed.unlabelled, self.chances.log())

    def test_it_counts_what_the_worker_trains_on(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        share = world(make_job, make_world, {}).split.shares[0]
        algorithm = SemiFci(SemiFciParameters(compensation_weight=0.5))
        algorithm.memory.positions = {5: np.array([1, 2, 3]), 0: np.array([4, 6, 7])}
        labelled = len(share.tasks[1].labelled)
        for round, unlabelled in ((1, 0), (2, 1)):
            scope = TaskScope(task=2, classes=(9, 8), seen=(5, 0, 9, 8))
            context: Any = SimpleNamespace(scope=scope, share=share, round=round, device=torch.device("cpu"))
            found = algorithm._offset(context)
            assert found is not None
            new = labelled / (labelled + 6) + unlabelled
            expected = 0.5 * math.log(new / (6 / (labelled + 6)))
            assert found.tolist() == pytest.approx([0, 0, expected, expected])


class TestExchange:
    """What goes down, and when."""

    def test_helpers_go_down_after_the_warm_up_and_end_with_the_task(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        made = world(make_job, make_world, {})
        assert made.central.wants_models
        weights = made.round(1, 1, made.central.begin_task(1, None))
        assert MASKS not in made.central.shared(FIRST, 1, 1)
        groups = made.central.shared(FIRST, 1, 2)
        assert groups.keys() == {"helper-1", MASKS}
        assert groups["helper-1"].keys() == weights.keys()
        final = made.central.close_task(1, weights, made.consolidate(1, weights))
        made.central.begin_task(2, final)
        assert made.central.shared(FIRST, 2, 2).keys() == {"teacher"}

    def test_the_helper_of_one_worker_is_the_other_one_s_model(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        made = world(make_job, make_world, {})
        weights = made.central.begin_task(1, None)
        order = made.order("trainworker-edge-1", 1, 1, weights)
        other = made.workers["trainworker-edge-1"].train(order, lambda done, loss: None)
        made.round(1, 1, weights)
        assert same(made.central.shared(FIRST, 1, 2)["helper-1"], other.weights)

    def test_helpers_speak_only_of_classes_whose_labels_they_have_had(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        job = make_job("semifci", {"exemplarsPerWorker": 6, "helpers": 1}, **SCARCE)
        made = make_world(job, empty=((1, 1),))
        weights = made.task(1, None)
        made.round(2, 1, made.central.begin_task(2, weights))
        assert made.central.shared(FIRST, 2, 2)[MASKS][KNOWN].tolist() == [[False, False, True, True]]

    def test_without_helpers_no_models_are_kept(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        made = world(make_job, make_world, {"helpers": 0})
        assert not made.central.wants_models
        made.round(1, 1, made.central.begin_task(1, None))
        assert made.central.shared(FIRST, 1, 2) == {}

    def test_it_survives_a_restart_in_the_middle_of_a_task(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        made = world(make_job, make_world, {"threshold": 0.3})
        weights = made.round(2, 1, made.central.begin_task(2, made.task(1, None)))
        again = make_world(made.job)
        again.central.restore(2, made.central.state())
        for worker in made.workers:
            before, after = (one.central.shared(worker, 2, 2) for one in (made, again))
            assert before.keys() == after.keys()
            assert all(same(before[name], after[name]) for name in before)
        again.workers = made.workers
        assert same(made.round(2, 2, weights), again.round(2, 2, weights))


class TestBestOldModel:
    """theta_best = alpha theta_best + (1 - alpha) x the task's final model."""

    def test_blends_by_value_and_takes_new_rows_as_they_are(self) -> None:
        old = {"head.bias": np.array([1.0, 3.0], np.float32), "n": np.array(3)}
        new = {"head.bias": np.array([3.0, 5.0, 7.0], np.float32), "n": np.array(9)}
        mixed = blended(old, new, 0.5)
        assert mixed["head.bias"].tolist() == [2, 4, 7]
        assert mixed["n"] == 9
        assert new["head.bias"].tolist() == [3, 5, 7]
        assert blended({}, new, 0.5)["head.bias"].tolist() == [3, 5, 7]
        assert blended(old, new, 0.0)["head.bias"].tolist() == [3, 5, 7]

    def test_is_the_last_task_s_final_model_by_default(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        made = world(make_job, make_world, {})
        final = made.task(1, None)
        assert same(made.central.shared(FIRST, 2, 1)["teacher"], final)


@pytest.mark.parametrize(
    "parameters",
    [
        {"agreement": "required"},
        {"agreement": "proposal"},
        {"thresholds": "adaptive"},
        {"candidates": "task"},
        {"helperChoice": "random"},
        {"bestMomentum": 0.5},
        {"classifierCorrection": "none"},
    ],
)
def test_every_option_runs_and_tells_how_pseudo_labels_do(
    make_job: MakeJob, make_world: MakeWorld, parameters: Mapping[str, Any]
) -> None:
    made = world(make_job, make_world, {"threshold": 0.5, **parameters})
    weights = made.round(1, 1, made.central.begin_task(1, None))
    order = made.order(FIRST, 1, 2, weights)
    metrics = made.workers[FIRST].train(order, lambda done, loss: None).metrics
    assert 0 < metrics["pseudo_label_accept_ratio"] <= 1
    assert 0 <= metrics["pseudo_label_accuracy"] <= 1
    assert metrics["unlabelled"] == len(made.split.shares[0].tasks[0].unlabelled)
    made.run()


def test_a_worker_without_labels_takes_part(make_job: MakeJob, make_world: MakeWorld) -> None:
    job = make_job("semifci", {"exemplarsPerWorker": 6, "helpers": 1, "threshold": 0.2}, **SCARCE)
    made = make_world(job, unlabelled=((1, 1), (1, 2), (1, 3)))
    weights = made.round(1, 1, made.central.begin_task(1, None))
    order = made.order("trainworker-edge-1", 1, 2, weights)
    update = made.workers["trainworker-edge-1"].train(order, lambda done, loss: None)
    assert update.samples == len(made.split.shares[1].tasks[0].unlabelled)
    made.run()


def test_joint_learns_from_pseudo_labels_if_asked(make_job: MakeJob, make_world: MakeWorld) -> None:
    plain, _ = make_world(make_job("joint", **SCARCE)).run()
    job = make_job("joint", {"unlabelledWeight": 1, "threshold": 0.3}, **SCARCE)
    made = make_world(job)
    weights, _ = made.run()
    assert not same(weights, plain)
    share = made.split.shares[0]
    used = build_algorithm(job).unlabelled(share, 2, 2)
    assert len(used) == sum(len(part.unlabelled) for part in share.tasks[:2])


@pytest.mark.parametrize(
    ("algorithm", "parameters", "spec", "message"),
    [
        (
            "semifci",
            {"helpers": 2},
            SCARCE,
            r"helpers: 2 helpers, but there is 1 other worker: write at most 1",
        ),
        (
            "semifci",
            {"helpers": 1},
            {},
            r"labelRatio: 1 leaves no worker with unlabelled data, and semifci",
        ),
        ("joint", {"unlabelledWeight": 1}, {}, r"labelRatio: 1 leaves no.* and joint .*unlabelledWeight: 0"),
        ("fedcimatch", {"helpers": 1}, SCARCE, r"helpers: 1 is too large"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    make_job: MakeJob, algorithm: str, parameters: Mapping[str, Any], spec: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_job(algorithm, parameters, **spec)


def test_without_weight_on_unlabelled_data_every_label_may_be_visible(make_job: MakeJob) -> None:
    assert build_algorithm(make_job("semifci", {"helpers": 1, "unlabelledWeight": 0})).memory.budget == 50
