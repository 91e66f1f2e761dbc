from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engram.data.types import Indices
from engram.errors import MemoryShortageError, NumericalError
from engram.federation.messages import Consolidate, Evaluate, Tensors, Train
from engram.learning.device import gpu_metrics, memory_guard
from engram.learning.memory import Memory
from engram.learning.state import pack
from engram.learning.steps import batches, step_count

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World

FIRST, SECOND = "trainworker-edge-0", "trainworker-edge-1"


def ignore(done: float, loss: float) -> None:
    pass


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


class TestSteps:
    """How many steps, on which samples."""

    @pytest.mark.parametrize(
        ("labelled", "unlabelled", "expected"), [(16, 0, 4), (17, 0, 6), (1, 0, 2), (0, 20, 6), (8, 100, 2)]
    )
    def test_epochs_count_labelled_samples_and_exemplars(
        self, make_job: MakeJob, labelled: int, unlabelled: int, expected: int
    ) -> None:
        training = make_job(training={"localSteps": None, "localEpochs": 2}).spec.training
        assert step_count(training, labelled, unlabelled) == expected

    def test_local_steps_override_epochs(self, make_job: MakeJob) -> None:
        training = make_job(training={"localSteps": 3, "localEpochs": 2}).spec.training
        assert step_count(training, 1000, 0) == 3

    @pytest.mark.parametrize("count", [1, 3, 8, 9, 40])
    def test_batches_are_full_and_use_every_sample_alike(self, count: int) -> None:
        drawn = list(batches(count, 8, 10, lambda epoch: torch.Generator().manual_seed(epoch)))
        assert [len(batch) for batch in drawn] == [8] * 10
        uses = torch.bincount(torch.cat(drawn), minlength=count)
        assert int(uses.max() - uses.min()) <= 1

    def test_each_permutation_has_its_own_generator(self) -> None:
        epochs: list[int] = []

        def shuffle(epoch: int) -> torch.Generator:
            epochs.append(epoch)
            return torch.Generator().manual_seed(epoch)

        list(batches(4, 4, 3, shuffle))
        assert epochs == [0, 1, 2]

    def test_nothing_gives_empty_batches(self) -> None:
        assert [len(batch) for batch in batches(0, 8, 2, lambda epoch: torch.Generator())] == [0, 0]


class TestTraining:
    """A round on one worker."""

    def test_update_says_what_it_did(self, make_world: MakeWorld) -> None:
        world = make_world()
        seen: list[tuple[float, float]] = []
        order = world.order(FIRST, 1, 2, world.central.begin_task(1, None))
        update = world.workers[FIRST].train(order, lambda done, loss: seen.append((done, loss)))
        assert (update.task, update.round, update.samples) == (1, 2, 24)
        assert list(update.weights) == list(order.weights)
        assert update.metrics.keys() == {
            *("loss", "steps", "seconds", "cpu_seconds", "labelled", "exemplars", "unlabelled")
        }
        assert update.metrics["steps"] == 6
        assert [done for done, _ in seen] == pytest.approx([s / 6 for s in range(1, 7)])
        assert update.metrics["loss"] == pytest.approx(np.mean([loss for _, loss in seen]))

    def test_received_weights_are_left_alone(self, make_world: MakeWorld) -> None:
        world = make_world()
        weights = world.central.begin_task(1, None)
        before = {name: array.copy() for name, array in weights.items()}
        world.workers[FIRST].train(world.order(FIRST, 1, 1, weights), ignore)
        assert same(weights, before)

    def test_head_is_trained_and_returned_with_all_rows(self, make_world: MakeWorld) -> None:
        # A classifier that is not exchanged, or only its own rows, is a known trap.
        world = make_world()
        weights = world.central.begin_task(2, world.task(1, None))
        update = world.workers[FIRST].train(world.order(FIRST, 2, 1, weights), ignore)
        assert update.weights["head.weight"].shape == (4, 8)
        assert (update.weights["head.weight"] != weights["head.weight"]).any(axis=1).all()

    def test_learning_lowers_the_loss(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job(training={"localSteps": 30}))
        world.task(1, None)
        assert world.losses[-1] < 0.5 * world.losses[0]

    @pytest.mark.parametrize("weighting", ["used", "labelled", "uniform"])
    def test_worker_without_data_of_the_task_abstains(
        self, make_job: MakeJob, make_world: MakeWorld, weighting: str
    ) -> None:
        world = make_world(make_job("replay", aggregation={"weighting": weighting}), empty=((0, 2),))
        weights = world.central.begin_task(2, world.task(1, None))
        update = world.workers[FIRST].train(world.order(FIRST, 2, 1, weights), ignore)
        assert (update.samples, update.weights, update.metrics) == (0, {}, {})
        other = world.workers[SECOND].train(world.order(SECOND, 2, 1, weights), ignore)
        assert other.samples == (1 if weighting == "uniform" else 16 + 16)

    def test_worker_without_any_data_goes_through_a_whole_run(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        for name in ("finetune", "joint", "replay", "icarl", "fedewc", "fedlwf", "scaffold", "feddyn", "fot"):
            world = make_world(make_job(name), empty=((1, 1), (1, 2), (1, 3)))
            _, counts = world.run()
            assert len(counts) == 3

    def test_joint_takes_part_with_data_of_earlier_tasks(
        self, make_job: MakeJob, make_world: MakeWorld
    ) -> None:
        world = make_world(make_job("joint"), empty=((0, 2),))
        weights = world.central.begin_task(2, world.task(1, None))
        assert world.workers[FIRST].train(world.order(FIRST, 2, 1, weights), ignore).samples == 24

    def test_exemplars_join_the_next_task(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("replay", {"exemplarsPerWorker": 6}))
        weights = world.central.begin_task(2, world.task(1, None))
        update = world.workers[FIRST].train(world.order(FIRST, 2, 1, weights), ignore)
        assert (update.metrics["labelled"], update.metrics["exemplars"]) == (24, 6)
        assert update.samples == 30

    def test_not_finite_is_told_with_what_to_lower(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job(training={"optimizer": {"learningRate": 1000.0}, "localSteps": 50}))
        weights = world.central.begin_task(1, None)
        with pytest.raises(
            NumericalError,
            match=r"learningRate.*trainworker-edge-1, task 1, round 3.*lower learningRate \(now 1000\.0\)",
        ):
            world.workers[SECOND].train(world.order(SECOND, 1, 3, weights), ignore)

    def test_gradient_clip_bounds_a_step(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        optimizer = {"learningRate": 1.0, "momentum": 0, "weightDecay": 0}
        training = {"optimizer": optimizer, "localSteps": 1, "gradientClip": 0.01}
        world = make_world(make_job(training=training))
        weights = world.central.begin_task(1, None)
        update = world.workers[FIRST].train(world.order(FIRST, 1, 1, weights), ignore)
        moved = sum(float(np.square(update.weights[name] - weights[name]).sum()) for name in weights)
        assert moved**0.5 == pytest.approx(0.01, rel=1e-3)

    @pytest.mark.parametrize("optimizer", ["adam", "adamw"])
    def test_other_optimisers_learn(self, make_job: MakeJob, make_world: MakeWorld, optimizer: str) -> None:
        world = make_world(make_job(training={"optimizer": {"name": optimizer, "learningRate": 0.02}}))
        world.task(1, None)
        assert world.losses[-1] < world.losses[0]

    def test_bfloat16_learns_with_float32_weights(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job(training={"precision": "bfloat16", "augmentation": "shift1"}))
        weights = world.task(1, None)
        assert all(array.dtype == np.float32 for array in weights.values())
        assert world.losses[-1] < world.losses[0]

    def test_integer_buffers_come_back_as_integers(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        model = {"name": "cnn", "parameters": {"channels": [4], "dense": 8, "norm": "batch"}}
        world = make_world(make_job(model=model))
        weights = world.task(1, None)
        counter = weights["features.1.num_batches_tracked"]
        assert counter.dtype == np.int64
        assert int(counter) == 12


class TestConsolidation:
    """The end of a task on one worker."""

    def test_called_twice_it_returns_the_same(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("icarl"))
        weights = world.task(1, None)
        order = Consolidate(1, weights, world.central.seen(1))
        worker = world.workers[FIRST]
        assert worker.consolidate(order) is worker.consolidate(order)

    def test_state_fits_and_holds_the_exemplars(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("replay", {"exemplarsPerWorker": 6}))
        weights = world.round(1, 1, world.central.begin_task(1, None))
        results = world.consolidate(1, weights)
        assert 0 < len(results[FIRST].state) < 1000
        assert results[FIRST].metrics["exemplars"] == 6

    def test_algorithm_without_state_has_none(self, make_world: MakeWorld) -> None:
        world = make_world()
        assert world.consolidate(1, world.central.begin_task(1, None))[FIRST].state == b""

    def test_exemplars_are_labelled_samples_only(self, make_job: MakeJob, make_world: MakeWorld) -> None:
        world = make_world(make_job("icarl"), unlabelled=((0, 1),))
        results = world.consolidate(1, world.central.begin_task(1, None))
        assert results[FIRST].metrics["exemplars"] == 0
        assert results[FIRST].samples == 0
        assert not results[FIRST].results["class_sums"].any()
        assert results[SECOND].metrics["exemplars"] == 16


class TestUnlabelled:
    """Workers whose data carry no labels."""

    SOURCE = """
import numpy as np
from engram.learning.algorithm import Algorithm

class Entropy(Algorithm):
    def unlabelled(self, share, task, round):
        return share.tasks[task - 1].unlabelled if round > 1 else np.empty(0, np.int64)

    def loss(self, context, batch):
        loss = super().loss(context, batch)
        if len(batch.unlabelled) == 0:
            return loss
        assert batch.unlabelled.shape[0] == batch.hidden.shape[0] == 8
        context.metrics["hidden_rows"] = float(batch.hidden.max())
        chances = context.network(batch.unlabelled).softmax(1)
        return loss - (chances * (chances + 1e-6).log()).sum(1).mean()
"""

    def world(
        self, make_job: MakeJob, make_world: MakeWorld, folder: Path, **spec: Any
    ) -> tuple[World, Tensors]:
        (folder / "own_entropy.py").write_text(self.SOURCE)
        world = make_world(make_job("own_entropy:Entropy", **spec), unlabelled=((0, 1),))
        return world, world.central.begin_task(1, None)

    def test_take_no_part_where_the_algorithm_cannot_use_them(self, make_world: MakeWorld) -> None:
        world = make_world(unlabelled=((0, 1),))
        weights = world.central.begin_task(1, None)
        assert world.workers[FIRST].train(world.order(FIRST, 1, 1, weights), ignore).samples == 0

    def test_take_part_where_it_can_and_count_as_used(
        self, make_job: MakeJob, make_world: MakeWorld, module_folder: Path
    ) -> None:
        world, weights = self.world(make_job, make_world, module_folder)
        warm_up = world.workers[FIRST].train(world.order(FIRST, 1, 1, weights), ignore)
        assert warm_up.samples == 0
        update = world.workers[FIRST].train(world.order(FIRST, 1, 2, weights), ignore)
        assert update.samples == 24
        assert update.metrics["unlabelled"] == 24
        assert update.metrics["hidden_rows"] == 1
        assert not same(update.weights, weights)

    def test_do_not_weigh_where_only_labels_count(
        self, make_job: MakeJob, make_world: MakeWorld, module_folder: Path
    ) -> None:
        world, weights = self.world(
            make_job, make_world, module_folder, aggregation={"weighting": "labelled"}
        )
        assert world.workers[FIRST].train(world.order(FIRST, 1, 2, weights), ignore).samples == 0

    def test_their_hidden_labels_change_nothing(
        self,
        make_job: MakeJob,
        make_world: MakeWorld,
        module_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        updates = []
        for label in (5, 0):
            world, weights = self.world(make_job, make_world, module_folder)
            labels = world.dataset.train.labels.copy()
            labels[world.split.shares[0].tasks[0].unlabelled] = label
            monkeypatch.setattr(world.dataset.train, "labels", labels)
            updates.append(world.workers[FIRST].train(world.order(FIRST, 1, 2, weights), ignore))
        assert updates[0].metrics["hidden_rows"] != updates[1].metrics["hidden_rows"]
        assert same(updates[0].weights, updates[1].weights)
        assert updates[0].metrics["loss"] == updates[1].metrics["loss"]

    def test_their_images_are_read_once_a_task(
        self,
        make_job: MakeJob,
        make_world: MakeWorld,
        module_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        world, weights = self.world(make_job, make_world, module_folder)
        reads: list[int] = []
        source, read = world.dataset.train, world.dataset.train.read

        def counting(indices: Indices) -> NDArray[np.float32]:
            reads.append(len(indices))
            return read(indices)

        monkeypatch.setattr(source, "read", counting)
        for round in (2, 3):
            world.workers[FIRST].train(world.order(FIRST, 1, round, weights), ignore)
        assert [count for count in reads if count] == [24]


def test_workers_split_the_test_set_by_position(make_job: MakeJob, make_world: MakeWorld) -> None:
    for algorithm in ("finetune", "icarl"):
        world = make_world(make_job(algorithm, evaluation={"unseen": True}, workers=3))
        weights = world.task(1, None)
        order = Evaluate(1, 0, weights, world.central.seen(1), world.central.shared("", 1, 0))
        parts = [worker.evaluate(order) for worker in world.workers.values()]
        whole = world.central.evaluate(1, weights)
        for field in ("right", "total", "right_unseen"):
            summed = {
                label: sum(getattr(part, field)[label] for part in parts) for label in getattr(whole, field)
            }
            assert summed == getattr(whole, field)
        assert set(whole.right_unseen) == {3, 1, 4, 2}


def test_a_worker_with_data_of_its_own_tests_on_all_of_it(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job(dataset={"partition": {"method": "local"}}))
    weights = world.task(1, None)
    order = Evaluate(1, 0, weights, world.central.seen(1), {})
    whole = world.central.evaluate(1, weights)
    assert [worker.evaluate(order) for worker in world.workers.values()] == [whole, whole]


def test_gpu_use_is_reported_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 37)
    assert gpu_metrics(torch.device("cuda")) == {"gpu_utilization_ratio": 0.37}
    assert gpu_metrics(torch.device("cpu")) == {}


def test_gpu_use_is_absent_without_the_driver_s_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: torch.device) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    assert gpu_metrics(torch.device("cuda")) == {}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_running_out_of_memory_is_told(error: Exception) -> None:
    message = r"batchSize.*out of memory: worker 3.*lower batchSize"
    with pytest.raises(MemoryShortageError, match=message), memory_guard("worker 3"):
        raise error


def test_other_runtime_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="other"), memory_guard("worker 3"):
        raise RuntimeError("other")


def test_a_repeated_round_of_a_consolidated_task_uses_the_earlier_exemplars(
    make_job: MakeJob, make_world: MakeWorld
) -> None:
    # The aggregator comes back from a checkpoint before the consolidation; the worker never left.
    world = make_world(make_job("replay", {"exemplarsPerWorker": 6}))
    weights = world.central.begin_task(2, world.task(1, None))
    order: Train = world.order(FIRST, 2, 1, weights)
    worker = world.workers[FIRST]
    before = worker.train(order, ignore)
    first = worker.consolidate(Consolidate(2, weights, world.central.seen(2)))
    again = worker.train(order, ignore)
    assert same(before.weights, again.weights)
    second = worker.consolidate(Consolidate(2, weights, world.central.seen(2)))
    assert replace(first, metrics={}) == replace(second, metrics={})


def test_an_exemplar_counts_as_what_it_is_kept_as(make_job: MakeJob, make_world: MakeWorld) -> None:
    """A pseudo-labelled exemplar must not tell its hidden label."""

    def loss(kept_as: int) -> float:
        world = make_world(
            make_job("replay", {"exemplarsPerWorker": 6}, training={"localSteps": 1}), only=(0,)
        )
        weights = world.central.begin_task(2, world.central.begin_task(1, None))
        memory = Memory(6)
        memory.positions = {kept_as: world.split.shares[0].tasks[0].labelled[:6]}
        world.workers[FIRST].restore(pack(1, memory.state(), FIRST))
        return world.workers[FIRST].train(world.order(FIRST, 2, 1, weights), ignore).metrics["loss"]

    assert loss(5) != loss(0)
