"""discmatch: what each of its parts adds to icarl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engram.federation.messages import Tensors
from engram.learning.algorithms import build_algorithm
from engram.learning.memory import Memory, herding, herding_first
from engram.learning.models import build_network

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World

SCARCE: Mapping[str, Any] = {"dataset": {"labelRatio": 0.34}}
FIRST = "trainworker-edge-0"
OFF = {
    "unlabelledWeight": 0,
    "distilUnlabelled": False,
    "pseudoExemplars": False,
    "classifier": "means",
}


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def world(
    make_job: MakeJob, make_world: MakeWorld, parameters: Mapping[str, Any], name: str = "discmatch"
) -> World:
    return make_world(make_job(name, {"exemplarsPerWorker": 12, **parameters}, **SCARCE))


def test_with_all_parts_off_it_is_icarl(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected, counts = world(make_job, make_world, {}, "icarl").run()
    weights, found = world(make_job, make_world, OFF).run()
    assert same(weights, expected)
    assert found == counts


@pytest.mark.parametrize(
    "parameters",
    [
        {"unlabelledWeight": 1, "threshold": 0.5},
        {"unlabelledWeight": 1e-6, "distilUnlabelled": True},
        {"pseudoExemplars": True},
        {"unlabelledWeight": 1, "threshold": 0.5, "candidates": "seen"},
    ],
)
def test_each_part_changes_the_model(
    make_job: MakeJob, make_world: MakeWorld, parameters: Mapping[str, Any]
) -> None:
    expected, _ = world(make_job, make_world, {}, "icarl").run()
    weights, _ = world(make_job, make_world, {**OFF, **parameters}).run()
    assert not same(weights, expected)


def test_the_classifier_changes_predictions_and_not_the_model(
    make_job: MakeJob, make_world: MakeWorld
) -> None:
    expected, counts = world(make_job, make_world, OFF).run()
    weights, found = world(make_job, make_world, {**OFF, "classifier": "discriminant"}).run()
    assert same(weights, expected)
    assert found != counts


class TestExemplars:
    """Labelled samples first, pseudo-labelled ones where they leave room."""

    def test_herding_prefers_the_first_and_then_takes_of_all(self) -> None:
        features = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
        first = herding(features[:4], 4)
        chosen = herding_first(features, 7, 4)
        assert chosen[:4] == first
        assert len(set(chosen)) == 7
        assert herding_first(features, 3, 4) == herding(features[:4], 3)
        assert herding_first(features, 20, 0) == herding(features, 20)
        assert sorted(herding_first(features, 20, 4)) == list(range(9))

    def test_memory_keeps_labelled_ones_when_the_quota_shrinks(self) -> None:
        features = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
        memory = Memory(6)
        memory.learn({3: (np.arange(6) + 10, features)}, 1, {3: 2})
        assert set(memory.positions[3][:2]) == {10, 11}
        memory.learn({}, 3)
        assert set(memory.positions[3]) == {10, 11}

    def test_workers_hold_both_kinds(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        made = world(make_job, make_world, {"exemplarsPerWorker": 36})
        weights = made.task(1, None)
        answer = made.consolidate(1, weights)[FIRST]
        part = made.split.shares[0].tasks[0]
        assert answer.metrics["exemplars"] > len(part.labelled)
        assert answer.results["class_counts"].sum() == len(part.labelled) + len(part.unlabelled)


class TestExchange:
    """Teacher and classifier."""

    def test_the_classifier_goes_down_only_with_its_own_task(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        made = world(make_job, make_world, {})
        made.central.begin_task(2, made.task(1, None))
        assert made.central.shared("", 1, 0).keys() == {"classifier"}
        assert made.central.shared("", 2, 0) == {}
        assert made.central.shared("", 2, 1).keys() == {"teacher"}

    @pytest.mark.parametrize("classifier", ["discriminant", "means"])
    def test_it_survives_a_restart(self, make_job: MakeJob, make_world: MakeWorld, classifier: str) -> None:
        made = world(make_job, make_world, {"classifier": classifier})
        weights = made.task(1, None)
        again = make_world(made.job)
        again.central.restore(2, made.central.state())
        assert made.central.evaluate(1, weights) == again.central.evaluate(1, weights)
        for round in (0, 1):
            before, after = (one.central.shared(FIRST, 1, round) for one in (made, again))
            assert before.keys() == after.keys()
            assert all(same(before[name], after[name]) for name in before)

    def test_the_head_decides_in_the_middle_of_a_task(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        made = world(make_job, make_world, {})
        algorithm = build_algorithm(made.job)
        network = build_network(made.job, (1, 8, 8), 2)
        images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(algorithm.scores(network, images, {}), network(images))


def test_with_every_label_visible_it_runs_without_guessing(make_job: MakeJob, make_world: MakeWorld) -> None:
    job = make_job("discmatch", {"exemplarsPerWorker": 12, "unlabelledWeight": 0})
    weights, counts = make_world(job).run()
    assert all(np.isfinite(array).all() for array in weights.values())
    assert sum(counts[-1].right.values()) > 0
