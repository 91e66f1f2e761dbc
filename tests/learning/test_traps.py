"""Errors of public implementations that belong to no single algorithm: a head that is not aggregated, and an
evaluation of one worker's model.

Others stand beside what they concern: herding in test_memory, teachers by reference in test_algorithms,
constant weights and a best model that is never reset in test_glfc, helpers of the wrong worker in
test_helpers, labels cut from ordered data in tests/data/test_scarcity, empty workers in test_local_learner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from engram.federation.aggregator import Aggregator
from engram.federation.compression.residuals import MemoryResiduals
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Train, Update
from engram.federation.outcome import Outcome
from engram.federation.roles import LocalLearner, Progress
from engram.federation.settings import Settings
from engram.learning import curriculum
from engram.run.observers import Silent

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World


class Noted:
    """A worker that keeps its newest update."""

    def __init__(self, worker: LocalLearner) -> None:
        self._worker = worker
        self.newest: Update | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._worker, name)

    def train(self, order: Train, progress: Progress) -> Update:
        self.newest = self._worker.train(order, progress)
        return self.newest


@pytest.fixture
def ended(make_job: MakeJob, make_world: MakeWorld) -> tuple[World, Outcome, list[Update]]:
    """A run through the real aggregator, with what its workers sent in the last round."""
    world = make_world(
        make_job("replay", {"exemplarsPerWorker": 6, "weightAlignment": False}, training={"localSteps": 10})
    )
    rounds = [plan.rounds for plan in curriculum(world.job, world.split.tasks)]
    aggregator = Aggregator(Settings.from_job(world.job, rounds), world.central, None, Silent())
    workers = {name: Noted(worker) for name, worker in world.workers.items()}
    outcome = run_in_process(aggregator, workers, lambda: False, lambda name: MemoryResiduals())  # type: ignore[arg-type]
    assert outcome.reason == "complete"
    return world, outcome, [worker.newest for worker in workers.values() if worker.newest is not None]


def test_the_classifier_is_aggregated_like_all_else(ended: tuple[World, Outcome, list[Update]]) -> None:
    _, outcome, updates = ended
    total = sum(update.samples for update in updates)
    assert len(updates) == 2
    for name in ("head.weight", "head.bias", "features.0.weight"):
        mean = sum(update.samples * update.weights[name].astype(np.float64) for update in updates) / total
        assert np.allclose(outcome.weights[name], mean, atol=1e-6)
        assert not np.allclose(updates[0].weights[name], updates[1].weights[name], atol=1e-4)


def test_what_is_evaluated_is_the_global_model_and_no_worker_s(
    ended: tuple[World, Outcome, list[Update]],
) -> None:
    world, outcome, updates = ended
    found = outcome.history.tasks[-1].counts.right
    assert found == world.central.evaluate(3, outcome.weights).right
    assert found != world.central.evaluate(3, updates[0].weights).right
