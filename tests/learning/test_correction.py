"""Bias correction: its grid, its fold into the head, and the samples that it holds out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engram.data.types import TaskShare, WorkerShare
from engram.learning.algorithm import TaskScope
from engram.learning.correction import (
    ALPHAS,
    BETAS,
    BiasCorrection,
    best_bias,
    folded,
    grid_losses,
)

if TYPE_CHECKING:
    from engram.federation.messages import Tensors
    from tests.learning.conftest import MakeJob, MakeWorld, World

SECOND = TaskScope(task=2, classes=(3, 1), seen=(5, 0, 3, 1))
BIC = {"exemplarsPerWorker": 30, "classifierCorrection": "bic"}


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def place_of(alpha: float, beta: float) -> tuple[int, int]:
    return int(np.argmin(abs(ALPHAS - alpha))), int(np.argmin(abs(BETAS - beta)))


def test_grid_holds_no_change_and_is_symmetric() -> None:
    assert 1.0 in ALPHAS
    assert 0.0 in BETAS
    assert np.allclose(ALPHAS * ALPHAS[::-1], 1)
    assert np.allclose(BETAS, -BETAS[::-1])


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (2.0, -1.5), (0.5, 3.0), (0.25, -4.0)])
def test_grid_losses_are_cross_entropies_of_the_corrected_scores(alpha: float, beta: float) -> None:
    logits = 3 * torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0, 1, 2, 3, 4, 4, 0])
    sums = grid_losses(logits, rows, 3)
    scores = logits.double().clone()
    scores[:, 3:] = alpha * scores[:, 3:] + beta
    losses = torch.nn.functional.cross_entropy(scores, rows, reduction="none")
    found = sums[(slice(None), *place_of(alpha, beta))]
    assert found.tolist() == pytest.approx([losses[rows < 3].sum().item(), losses[rows >= 3].sum().item()])


def test_sums_of_workers_are_the_sums_of_all_samples() -> None:
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3])
    parts = grid_losses(logits[:2], rows[:2], 2) + grid_losses(logits[2:], rows[2:], 2)
    assert np.allclose(parts, grid_losses(logits, rows, 2))


def test_finds_the_factor_and_offset_that_were_put_in() -> None:
    # Labels drawn from the true scores; the new rows' are then spoilt by the inverse.
    generator = torch.Generator().manual_seed(2)
    scores = 2 * torch.randn(4000, 4, generator=generator)
    rows = torch.multinomial(scores.softmax(1), 1, generator=generator).squeeze(1)
    spoilt = scores.clone()
    spoilt[:, 2:] = (scores[:, 2:] + 1.0) / 0.5
    counts = np.array([int((rows < 2).sum()), int((rows >= 2).sum())])
    alpha, beta = best_bias(grid_losses(spoilt, rows, 2), counts, SECOND)
    assert alpha == pytest.approx(0.5, rel=0.1)
    assert beta == pytest.approx(-1.0, abs=0.15)


def test_old_and_new_weigh_by_their_classes_and_not_by_their_samples() -> None:
    losses = np.ones((2, len(ALPHAS), len(BETAS)))
    losses[0, 3, 4] = 0.0  # best for the old: sums over 1 sample and over 100
    losses[1] = 100.0
    losses[1, 5, 6] = 50.0
    three_old = TaskScope(task=4, classes=(9,), seen=(1, 2, 3, 9))
    assert best_bias(losses, np.array([1, 100]), three_old) == (ALPHAS[3], BETAS[4])
    three_new = TaskScope(task=2, classes=(1, 2, 3), seen=(9, 1, 2, 3))
    assert best_bias(losses, np.array([1, 100]), three_new) == (ALPHAS[5], BETAS[6])


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0), (5, 5)])
def test_without_samples_or_gain_nothing_changes(counts: tuple[int, int]) -> None:
    losses = np.zeros((2, len(ALPHAS), len(BETAS)))
    assert best_bias(losses, np.array(counts), SECOND) == (1.0, 0.0)


def test_fold_gives_the_corrected_scores() -> None:
    generator = np.random.RandomState(0)
    weights: dict[str, NDArray[Any]] = {
        "head.weight": generator.standard_normal((4, 3)).astype(np.float32),
        "head.bias": generator.standard_normal(4).astype(np.float32),
    }
    features = generator.standard_normal((6, 3)).astype(np.float32)
    before = features @ weights["head.weight"].T + weights["head.bias"]
    corrected = folded(weights, 2, 0.5, -1.25)
    after = features @ corrected["head.weight"].T + corrected["head.bias"]
    assert np.array_equal(after[:, :2], before[:, :2])
    assert np.allclose(after[:, 2:], 0.5 * before[:, 2:] - 1.25, atol=1e-5)
    assert corrected["head.weight"].dtype == corrected["head.bias"].dtype == np.float32
    assert folded(weights, 2, 1.0, 0.0) is weights


class TestHeldOut:
    """The samples that training never sees."""

    def share(self, *counts: int) -> WorkerShare:
        nothing = np.empty(0, np.int64)
        tasks = tuple(TaskShare(100 * t + np.arange(count), nothing) for t, count in enumerate(counts))
        return WorkerShare("trainworker-edge-0", tasks)

    def test_are_a_fixed_share(self) -> None:
        correction, share = BiasCorrection(50, 10, 0.2), self.share(20, 4)
        labelled = share.tasks[0].labelled
        trained = correction.trained_on(share, 1, labelled)
        assert len(trained) == 16
        assert set(trained) < set(labelled)
        assert np.array_equal(trained, BiasCorrection(50, 10, 0.2).trained_on(share, 1, labelled))
        assert len(correction.trained_on(share, 2, share.tasks[1].labelled)) == 4  # .8 of a sample is none

    def run(self, make_job: MakeJob, make_world: MakeWorld, **parameters: Any) -> World:
        return make_world(make_job("replay", {**BIC, **parameters}))

    def test_never_become_exemplars_for_training(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = self.run(make_job, make_world)
        weights = world.task(1, None)
        state = world.consolidate(1, weights)["trainworker-edge-0"]
        assert state.metrics["exemplars"] == 20  # of 24 labelled samples a fifth is held out
        update = world.workers["trainworker-edge-0"].train(
            world.order("trainworker-edge-0", 2, 1, world.central.begin_task(2, weights)), lambda a, b: None
        )
        labelled = len(world.split.shares[0].tasks[1].labelled)
        assert update.metrics["labelled"] == labelled - int(0.2 * labelled)

    def test_survive_a_restart_of_the_worker(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = self.run(make_job, make_world)
        weights = world.task(1, None)
        states = {name: answer.state for name, answer in world.consolidate(1, weights).items()}
        second = world.round(2, 1, world.central.begin_task(2, weights))
        expected = world.consolidate(2, second)
        again = make_world(world.job)
        for name, worker in again.workers.items():
            worker.restore(states[name])
        again.central.restore(2, world.central.state())
        found = again.consolidate(2, second)
        for name in expected:
            assert same(found[name].results, expected[name].results)
            assert found[name].results["bias_counts"].min() > 0


class TestCheck:
    """What a worker may send."""

    def good(self) -> dict[str, NDArray[Any]]:
        losses = np.ones((2, len(ALPHAS), len(BETAS)))
        return {"bias_losses": losses, "bias_counts": np.array([1, 2])}

    def refused(self, **changed: NDArray[Any]) -> bool:
        try:
            BiasCorrection(50, 10, 0.2).check(SECOND, {**self.good(), **changed})
        except ValueError:
            return True
        return False

    def test_sums_and_counts(self) -> None:
        assert not self.refused()
        assert self.refused(bias_losses=np.ones((2, 3, 3)))
        assert self.refused(bias_losses=-self.good()["bias_losses"])
        assert self.refused(bias_losses=1e9 * self.good()["bias_losses"])
        assert self.refused(bias_counts=np.array([-1, 2]))
        assert self.refused(bias_counts=np.array([0, 2]))  # a loss of no sample
        assert self.refused(bias_counts=np.array([1.0, 2.0]))
        assert not self.refused(x=np.ones(1))  # of another part of the algorithm

    def test_nothing_is_accepted(self) -> None:
        BiasCorrection(50, 10, 0.2).check(SECOND, {})


@pytest.mark.parametrize("algorithm", ["replay", "glfc", "lga", "bic"])
def test_every_exemplar_algorithm_can_have_it(
    make_job: MakeJob, make_world: MakeWorld, algorithm: str
) -> None:
    world = make_world(make_job(algorithm, BIC))
    weights = world.central.begin_task(2, world.task(1, None))
    weights = world.round(2, 1, weights)
    results = world.consolidate(2, weights)
    for answer in results.values():
        world.central.check_results(2, weights, answer.results)
    final = world.central.close_task(2, weights, results)
    changed = {name for name in weights if not np.array_equal(final[name], weights[name])}
    assert changed <= {"head.weight", "head.bias"}
    assert np.array_equal(final["head.weight"][:2], weights["head.weight"][:2])
    assert not np.array_equal(final["head.bias"][2:], weights["head.bias"][2:])


def test_align_is_what_weight_alignment_was(make_job: MakeJob, make_world: MakeWorld) -> None:
    expected, _ = make_world(make_job("replay")).run()
    explicit, _ = make_world(make_job("replay", {"classifierCorrection": "align"})).run()
    assert same(explicit, expected)
    none, _ = make_world(make_job("replay", {"classifierCorrection": "none"})).run()
    older, _ = make_world(make_job("replay", {"weightAlignment": False})).run()
    assert same(none, older)
