from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engram.learning.models import build_network
from engram.learning.tensors import from_module
from engram.spec.algorithms import ALGORITHMS, DataFreeParameters
from tests.learning.test_generator import QUICK

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld


def test_classes_in_learning_order(make_world: MakeWorld) -> None:
    central = make_world().central
    assert [central.seen(task) for task in (1, 2, 3)] == [(5, 0), (5, 0, 3, 1), (5, 0, 3, 1, 4, 2)]


def test_head_starts_and_grows_with_the_seeded_rows(make_world: MakeWorld) -> None:
    world = make_world()
    initial = from_module(build_network(world.job, (1, 8, 8), 6))
    first = world.central.begin_task(1, None)
    assert np.array_equal(first["head.weight"], initial["head.weight"][:2])
    assert np.array_equal(first["features.0.weight"], initial["features.0.weight"])
    trained = world.task(1, None)
    second = world.central.begin_task(2, trained)
    assert np.array_equal(second["head.weight"][:2], trained["head.weight"])
    assert np.array_equal(second["head.weight"][2:], initial["head.weight"][2:4])
    assert np.array_equal(second["head.bias"], [*trained["head.bias"], *initial["head.bias"][2:4]])


def test_begun_weights_are_by_value(make_world: MakeWorld) -> None:
    central = make_world().central
    first = central.begin_task(1, None)
    kept = {name: array.copy() for name, array in first.items()}
    for array in first.values():
        array += 1
    again = central.begin_task(1, None)
    assert all(np.array_equal(again[name], kept[name]) for name in kept)


def test_joint_upfront_has_every_class_at_once(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("joint", {"upfront": True}))
    assert world.central.seen(1) == (5, 0, 3, 1, 4, 2)
    _, counts = world.run()
    assert len(counts) == 1
    assert set(counts[0].right) == set(range(6))


def test_results_are_taken_in_the_order_of_names(make_job: MakeJob, make_world: MakeWorld) -> None:
    states = []
    for reverse in (False, True):
        world = make_world(make_job("icarl", workers=3))
        weights = world.round(1, 1, world.central.begin_task(1, None))
        results = world.consolidate(1, weights)
        world.central.close_task(1, weights, dict(sorted(results.items(), reverse=reverse)))
        states.append(world.central.state())
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_state_is_by_value(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("icarl"))
    weights = world.task(1, None)
    state = world.central.state()
    expected = world.central.evaluate(1, weights)
    for array in state.values():
        array[...] = 0
    assert world.central.evaluate(1, weights) == expected


class TestEvaluation:
    """Counts by the global model."""

    def test_over_seen_classes_only(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job(training={"localSteps": 30}))
        weights = world.task(1, None)
        counts = world.central.evaluate(1, weights)
        assert counts.total == {5: 10, 0: 10}
        assert counts.right.keys() == {5, 0}
        assert sum(counts.right.values()) >= 18
        assert counts.right_unseen == {}
        assert world.central.initial_counts() is None

    def test_counts_agree_with_predictions_by_hand(self, make_world: MakeWorld) -> None:
        import torch

        world = make_world()
        weights = world.task(2, world.task(1, None))
        network = build_network(world.job, (1, 8, 8), 4)
        network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        labels = world.dataset.test.labels
        chosen = np.flatnonzero(np.isin(labels, (5, 0, 3, 1)))
        predicted = network(torch.from_numpy(world.dataset.test.read(chosen))).argmax(1).numpy()
        guessed = np.array([5, 0, 3, 1])[predicted]
        expected = {c: int(((guessed == c) & (labels[chosen] == c)).sum()) for c in (5, 0, 3, 1)}
        assert world.central.evaluate(2, weights).right == expected

    def test_unseen_classes_compete_over_all_rows(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job(evaluation={"unseen": True}))
        initial = world.central.initial_counts()
        assert initial is not None
        assert set(initial.right) == set(initial.total) == set(range(6))
        weights = world.task(1, None)
        counts = world.central.evaluate(1, weights)
        assert set(counts.right) == {5, 0}
        assert set(counts.right_unseen) == {3, 1, 4, 2}
        assert set(counts.total) == set(range(6))
        # With nothing learned the rows of unseen classes are those of the initial model, and so are the
        # answers.
        fresh = world.central.begin_task(1, None)
        untrained = world.central.evaluate(1, fresh)
        assert untrained.right_unseen == {c: initial.right[c] for c in (3, 1, 4, 2)}

    def test_last_task_has_no_unseen_classes(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job(evaluation={"unseen": True}))
        _, counts = world.run()
        assert counts[-1].right_unseen == {}

    def test_validation_split_evaluates_on_held_out_training_data(self, make_world: MakeWorld) -> None:
        from dataclasses import replace

        from engram.learning import build_global

        world = make_world()
        split = replace(world.split, validation=True, test=np.arange(24, 30))
        central = build_global(world.job, world.dataset, split)
        counts = central.evaluate(2, world.central.begin_task(2, world.central.begin_task(1, None)))
        assert counts.total == {5: 0, 0: 0, 3: 0, 1: 6}


MODELS: tuple[dict[str, Any], ...] = (
    {"name": "cnn", "parameters": {"channels": [4], "dense": 8, "norm": "group"}},
    {"name": "lenet5", "parameters": {"norm": "batch"}},
    {"name": "resnet18", "parameters": {"width": 4}},
    {"name": "resnet32", "parameters": {"width": 4, "norm": "batch"}},
)
PAIRS = [
    pytest.param(algorithm, model, id=f"{algorithm}-{model['name']}")
    for algorithm, parameters in ALGORITHMS.items()
    for model in MODELS
    if not issubclass(parameters, DataFreeParameters) or model["parameters"].get("norm") == "batch"
]


@pytest.mark.parametrize(("algorithm", "model"), PAIRS)
def test_every_algorithm_runs_with_every_model(
    make_job: MakeJob, make_world: MakeWorld, algorithm: str, model: dict[str, Any]
) -> None:
    training = {"localSteps": 1, "roundsPerTask": 2}
    job = make_job(
        algorithm, QUICK.get(algorithm), model=model, training=training, dataset={"labelRatio": 0.5}
    )
    weights, counts = make_world(job).run()
    assert all(np.isfinite(array).all() for array in weights.values())
    assert [len(count.right) for count in counts] == [2, 4, 6]


def test_memory_beats_forgetting(make_job: MakeJob, make_world: MakeWorld) -> None:
    final = {}
    for algorithm in ("finetune", "replay", "icarl", "joint"):
        training = {"localSteps": 15, "roundsPerTask": 3}
        _, counts = make_world(make_job(algorithm, training=training)).run()
        final[algorithm] = sum(counts[-1].right.values()) / sum(counts[-1].total.values())
    assert final["finetune"] <= 0.4
    assert min(final["replay"], final["icarl"], final["joint"]) >= 0.8
