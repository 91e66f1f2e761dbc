"""Each algorithm's equation on small numbers, and what becomes of it when its own term is zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engram.errors import ConfigurationError
from engram.federation.messages import Consolidated, Tensors
from engram.learning.algorithm import Algorithm, TaskScope
from engram.learning.algorithms import BUILT_IN, build_algorithm
from engram.learning.algorithms.fedewc import FedEwc, accumulated, averaged
from engram.learning.algorithms.icarl import Icarl, class_means, nearest_mean_scores
from engram.learning.correction import aligned
from engram.learning.models import build_network
from engram.spec.algorithms import ALGORITHMS, FedEwcParameters, IcarlParameters

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World

SECOND = TaskScope(task=2, classes=(3,), seen=(5, 0, 3))


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_every_name_of_the_job_file_has_a_class_and_its_parameters() -> None:
    assert BUILT_IN.keys() == ALGORITHMS.keys()
    assert all(kind.Parameters is ALGORITHMS[name] for name, kind in BUILT_IN.items())


@pytest.mark.parametrize(
    ("algorithm", "parameters"),
    [
        ("fedprox", {"mu": 0}),
        ("fedlwf", {"strength": 0}),
        ("fedewc", {"strength": 0}),
        ("replay", {"exemplarsPerWorker": 0, "weightAlignment": False}),
        ("replay", {"exemplarsPerWorker": 0, "classifierCorrection": "none"}),
        ("feddyn", {"alpha": 0}),
        ("fot", {"threshold": 0}),
    ],
)
def test_without_its_own_term_it_is_finetune(
    make_job: MakeJob, make_world: MakeWorld, algorithm: str, parameters: Mapping[str, Any]
) -> None:
    expected, _ = make_world(make_job("finetune")).run()
    weights, _ = make_world(make_job(algorithm, parameters)).run()
    assert same(weights, expected)


def test_icarl_without_distillation_trains_as_replay(make_job: MakeJob, make_world: MakeWorld) -> None:
    """Its classifier is another matter: it decides nothing in training."""
    expected, _ = make_world(make_job("replay", {"weightAlignment": False})).run()
    weights, _ = make_world(make_job("icarl", {"strength": 0})).run()
    assert same(weights, expected)


def test_joint_is_finetune_where_there_is_nothing_older(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected = make_world(make_job("finetune")).task(1, None)
    assert same(make_world(make_job("joint")).task(1, None), expected)


@pytest.mark.parametrize(
    "algorithm",
    [
        "fedprox",
        "fedlwf",
        "fedewc",
        "replay",
        "icarl",
        "joint",
        "glfc",
        "lga",
        "bic",
        "scaffold",
        "feddyn",
        "fot",
    ],
)
def test_with_its_own_term_it_is_not(make_job: MakeJob, make_world: MakeWorld, algorithm: str) -> None:
    expected, _ = make_world(make_job("finetune")).run()
    weights, _ = make_world(make_job(algorithm)).run()
    assert not same(weights, expected)


def test_fedprox_pulls_towards_the_global_weights(make_job: MakeJob, make_world: MakeWorld) -> None:
    def moved(mu: float) -> float:
        world = make_world(make_job("fedprox", {"mu": mu}))
        start = world.central.begin_task(1, None)
        after = world.round(1, 1, start)
        return float(sum(np.square(after[name] - start[name]).sum() for name in start))

    assert moved(5.0) < 0.5 * moved(0.0)


class TestAlignment:
    """replay's weight alignment."""

    def head(self, *rows: tuple[float, float]) -> Tensors:
        return {
            "features.w": np.ones(2, np.float32),
            "head.weight": np.array(rows, np.float32),
            "head.bias": np.ones(len(rows), np.float32),
        }

    def test_new_rows_shrink_to_the_mean_norm_of_old_ones(self) -> None:
        # Old norms 5 and 1, mean 3; new norms 10 and 2, mean 6: gamma = 1/2.
        weights = self.head((3, 4), (0, 1), (6, 8), (2, 0))
        result = aligned(weights, 2)
        assert result["head.weight"].tolist() == [[3, 4], [0, 1], [3, 4], [1, 0]]
        assert result["head.bias"] is weights["head.bias"]
        assert result["head.weight"].dtype == np.float32
        assert weights["head.weight"][2].tolist() == [6, 8]

    @pytest.mark.parametrize("old", [0, 2])
    def test_without_old_or_new_rows_nothing_happens(self, old: int) -> None:
        weights = self.head((3, 4), (0, 1))
        assert aligned(weights, old) is weights

    def test_shorter_new_rows_are_not_stretched(self) -> None:
        weights = self.head((3, 4), (0, 1))
        assert aligned(weights, 1) is weights

    def test_switch(self, make_job: MakeJob) -> None:
        weights = self.head((3, 4), (0, 1), (60, 80))
        on = build_algorithm(make_job("replay"))
        off = build_algorithm(make_job("replay", {"weightAlignment": False}))
        assert not same(on.close_task(SECOND, weights, {}), weights)
        assert same(off.close_task(SECOND, weights, {}), weights)


class TestEwc:
    """fedewc's Fisher information."""

    def test_average_is_weighted_by_samples(self) -> None:
        result = averaged([(1, {"w": np.array([4.0], np.float32)}), (3, {"w": np.array([8.0], np.float32)})])
        assert result["w"].tolist() == [7.0]
        assert result["w"].dtype == np.float32

    def test_running_fisher_decays_and_grows_with_the_head(self) -> None:
        running = {"head.bias": np.array([2.0, 4.0], np.float32)}
        fresh = {"head.bias": np.array([1.0, 1.0, 1.0], np.float32)}
        assert accumulated(running, fresh, 0.5)["head.bias"].tolist() == [2.0, 3.0, 1.0]
        assert accumulated({}, fresh, 0.5)["head.bias"].tolist() == [1.0, 1.0, 1.0]
        assert same(accumulated(running, {}, 0.5), running)

    def test_workers_without_data_do_not_count(self) -> None:
        algorithm = FedEwc(FedEwcParameters(strength=1, decay=1))
        results = {
            "a": Consolidated(1, 0),
            "b": Consolidated(1, 5, {"head.bias": np.ones(3, np.float32)}),
        }
        weights = {"head.bias": np.full(3, 9, np.float32), "n": np.array(3)}
        algorithm.close_task(TaskScope(1, (5, 0, 3), (5, 0, 3)), weights, results)
        groups = algorithm.shared("a", SECOND, 1)
        assert groups["fisher"]["head.bias"].tolist() == [1, 1, 1]
        assert list(groups["anchor"]) == ["head.bias"]
        weights["head.bias"][:] = 0
        assert algorithm.shared("a", SECOND, 1)["anchor"]["head.bias"].tolist() == [9, 9, 9]

    def test_fisher_is_the_mean_squared_gradient_of_single_samples(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        world = make_world(make_job("fedewc"))
        weights = world.central.begin_task(1, None)
        results = world.consolidate(1, weights)["trainworker-edge-0"]
        positions = world.split.shares[0].tasks[0].labelled
        assert results.samples == len(positions)
        network = build_network(world.job, (1, 8, 8), 6)
        network.resize(2)
        network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        # The gradient of the bias is softmax - one-hot.
        images = torch.from_numpy(world.dataset.train.read(positions))
        chances = network(images).softmax(1).detach()
        labels = world.dataset.train.labels[positions]
        hot = torch.from_numpy(np.stack([labels == 5, labels == 0], axis=1)).float()
        expected = (chances - hot).square().mean(0)
        assert np.allclose(results.results["head.bias"], expected.numpy(), atol=1e-6)

    def test_penalty_by_hand(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        losses = []
        for strength in (0.0, 10.0):
            world = make_world(
                make_job("fedewc", {"strength": strength}, training={"localSteps": 1}), only=(0,)
            )
            weights = world.central.begin_task(2, world.task(1, None))
            moved = {**weights, "features.0.bias": weights["features.0.bias"] + np.float32(0.1)}
            fisher = world.central.shared("", 2, 1)["fisher"]["features.0.bias"]
            order = world.order("trainworker-edge-0", 2, 1, moved)
            losses.append(world.workers["trainworker-edge-0"].train(order, lambda a, b: None).metrics["loss"])
        assert losses[1] - losses[0] == pytest.approx(10 / 2 * 0.01 * float(fisher.sum()), rel=1e-3)


def spoilt(results: Tensors) -> list[Tensors]:
    """What a worker might send in place of its results."""
    some: list[Tensors] = [{}, {"x": np.ones(3)}, {**results, "x": np.ones(3)}]
    for name, array in results.items():
        some += [{**results, name: bad} for bad in (array[:1], array.T[:1], -array, array.astype(np.int8))]
        some.append({other: kept for other, kept in results.items() if other != name})
    return some


@pytest.mark.parametrize(
    "algorithm", ["finetune", "fedlwf", "fedewc", "replay", "icarl", "glfc", "lga", "bic", "discmatch", "fot"]
)
def test_whatever_a_worker_sends_is_refused_or_does_no_harm(
    make_job: MakeJob, make_world: MakeWorld, algorithm: str
) -> None:
    scarce = {"dataset": {"labelRatio": 0.5}} if algorithm == "discmatch" else {}
    world = make_world(make_job(algorithm, **scarce))
    weights = world.round(1, 1, world.central.begin_task(1, None))
    honest = world.consolidate(1, weights)
    first = next(iter(honest))
    for answer in honest.values():
        world.central.check_results(1, weights, answer.results)
    refused = 0
    for results in spoilt(honest[first].results):
        try:
            world.central.check_results(1, weights, results)
        except ValueError:
            refused += 1
            continue
        answers = {**honest, first: replace(honest[first], results=results)}
        closed = world.central.close_task(1, weights, answers)
        assert all(np.isfinite(array).all() for array in closed.values())
        assert world.central.evaluate(1, closed).total
    assert bool(refused) == (algorithm in ("fedewc", "icarl", "glfc", "lga", "discmatch", "fot"))


class TestIcarl:
    """icarl's classifier."""

    def test_mean_is_of_all_samples_not_of_workers(self) -> None:
        # Worker a has three exemplars along x, worker b one along y: the sum points to (3, 1); a mean of
        # the workers' means would point to (1, 1).
        sums = [np.array([[3.0, 0.0]]), np.array([[0.0, 1.0]])]
        assert class_means(sums).tolist() == [pytest.approx([3 / 10**0.5, 1 / 10**0.5])]

    def test_class_without_exemplars_is_never_predicted(self) -> None:
        means = torch.from_numpy(class_means([np.array([[0.0, 0.0], [-1.0, 0.0]])]))
        scores = nearest_mean_scores(torch.tensor([[1.0, 0.0]]), means)
        assert scores[0, 0] == -torch.inf
        assert scores.argmax().item() == 1

    def test_largest_score_is_the_nearest_mean(self) -> None:
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(20, 5, generator=generator)
        means = torch.nn.functional.normalize(torch.randn(4, 5, generator=generator), dim=1)
        distances = torch.cdist(torch.nn.functional.normalize(features, dim=1), means)
        assert torch.equal(nearest_mean_scores(features, means).argmax(1), distances.argmin(1))

    def test_sums_run_over_all_exemplars_old_and_new(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("icarl", {"exemplarsPerWorker": 8}))
        weights = world.task(2, world.task(1, None))
        result = world.consolidate(2, weights)["trainworker-edge-0"]
        assert result.metrics["exemplars"] == 8
        sums = result.results["class_sums"]
        assert sums.shape == (4, 8)
        # Features of length 1: a sum over two exemplars is at most 2 long, and over none it is 0.
        lengths = np.linalg.norm(sums, axis=1)
        assert ((lengths > 1) & (lengths <= 2 + 1e-6)).all()

    def test_means_go_down_only_when_they_are_of_this_task(self) -> None:
        algorithm = Icarl(IcarlParameters())
        algorithm.close_task(
            TaskScope(1, (5, 0), (5, 0)), {}, {"a": Consolidated(1, 2, {"class_sums": np.eye(2)})}
        )
        assert "class-means" in algorithm.shared("", TaskScope(1, (5, 0), (5, 0)), 0)
        assert "class-means" not in algorithm.shared("", SECOND, 0)
        assert "class-means" not in algorithm.shared("", TaskScope(1, (5, 0), (5, 0)), 1)

    def test_head_decides_in_the_middle_of_a_task(self, make_job: MakeJob) -> None:
        network = build_network(make_job(), (1, 8, 8), 3)
        images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(Icarl(IcarlParameters()).scores(network, images, {}), network(images))


class TestTeacher:
    """The old model of fedlwf and icarl."""

    def begun(self, make_job: MakeJob, make_world: MakeWorld) -> tuple[World, Tensors]:
        world = make_world(make_job("fedlwf"))
        return world, world.task(1, None)

    def test_is_the_last_task_s_final_model(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world, final = self.begun(make_job, make_world)
        assert same(world.central.shared("trainworker-edge-0", 2, 1)["teacher"], final)
        assert world.central.shared("trainworker-edge-0", 2, 0) == {}

    def test_is_absent_in_the_first_task(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("fedlwf"))
        world.central.begin_task(1, None)
        assert world.central.shared("trainworker-edge-0", 1, 1) == {}

    def test_is_kept_by_value(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world, final = self.begun(make_job, make_world)
        kept = {name: array.copy() for name, array in final.items()}
        for array in final.values():
            array += 1
        assert same(world.central.shared("", 2, 1)["teacher"], kept)

    def test_stays_the_same_while_the_next_task_trains(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        world, final = self.begun(make_job, make_world)
        kept = {name: array.copy() for name, array in final.items()}
        weights = world.round(2, 1, world.central.begin_task(2, final))
        world.round(2, 2, weights)
        assert same(world.central.shared("", 2, 2)["teacher"], kept)

    def test_survives_a_restart(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        for name in ("fedlwf", "icarl", "fedewc", "glfc", "lga", "bic"):
            world = make_world(make_job(name))
            weights = world.task(1, None)
            again = make_world(world.job)
            again.central.restore(2, world.central.state())
            for round in (0, 1):
                old, new = world.central.shared("", 2, round), again.central.shared("", 2, round)
                assert old.keys() == new.keys()
                assert all(same(old[group], new[group]) for group in old)
            assert world.central.evaluate(1, weights) == again.central.evaluate(1, weights)

    def test_distils_more_with_more_strength(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        def drift(strength: float) -> float:
            training = {"localSteps": 20, "optimizer": {"learningRate": 0.01}}
            world = make_world(make_job("fedlwf", {"strength": strength}, training=training))
            first = world.task(1, None)
            second = world.task(2, first)
            images = torch.from_numpy(world.dataset.train.read(np.arange(72, 96)))
            old, new = (build_network(world.job, (1, 8, 8), rows) for rows in (2, 4))
            old.load_state_dict({name: torch.tensor(array) for name, array in first.items()})
            new.load_state_dict({name: torch.tensor(array) for name, array in second.items()})
            with torch.no_grad():
                return float((old(images).softmax(1) - new(images)[:, :2].softmax(1)).abs().mean())

        assert drift(10.0) < 0.5 * drift(0.0)


def test_joint_trains_on_all_tasks_so_far(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("joint"))
    share = world.split.shares[0]
    joint = build_algorithm(world.job)
    assert joint.labelled(share, 2).tolist() == [
        *share.tasks[0].labelled.tolist(),
        *share.tasks[1].labelled.tolist(),
    ]
    upfront = build_algorithm(make_job("joint", {"upfront": True}))
    assert len(upfront.labelled(share, 1)) == share.samples


class TestParameters:
    """spec.algorithm.parameters of a user's own algorithm."""

    def test_are_checked_by_its_own_type(self, make_job: MakeJob) -> None:
        job = make_job("own_algorithm:RehearsalWithMixup", {"blend": 2})
        with pytest.raises(ConfigurationError, match=r"spec\.algorithm\.parameters\.blend.*2"):
            build_algorithm(job)
        job = make_job("own_algorithm:RehearsalWithMixup", {"blnd": 0.1})
        with pytest.raises(ConfigurationError, match=r"parameters\.blnd.*known: blend, exemplarsPerWorker"):
            build_algorithm(job)

    def test_a_class_that_is_no_algorithm_is_refused(self, make_job: MakeJob) -> None:
        with pytest.raises(ConfigurationError, match=r"subclass of engram\.learning\.algorithm"):
            build_algorithm(make_job("fractions:Fraction"))

    @pytest.fixture(autouse=True)
    def _examples(self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        monkeypatch.syspath_prepend(request.config.rootpath / "examples")


def test_base_class_is_finetune() -> None:
    assert BUILT_IN["finetune"].__mro__[1] is Algorithm
    assert {name for name in vars(BUILT_IN["finetune"]) if not name.startswith("__")} == {"vectorised"}
