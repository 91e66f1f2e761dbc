"""The aggregator's side of a run: initial weights, the growing head, what goes down, evaluation."""

from __future__ import annotations

from collections.abc import Mapping

from engram.federation.messages import ClassCounts, Consolidated, Shared, Tensors, Update
from engram.learning.context import GlobalContext
from engram.learning.device import configure
from engram.learning.evaluate import Examiner
from engram.learning.setting import Setting
from engram.learning.tensors import copied, grown


class Coordinator:
    """Implements `engram.federation.roles.GlobalLearner` for every algorithm."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._threads = setting.job.spec.training.threads
        configure(setting.device, self._threads)
        self._algorithm = setting.algorithm()
        with setting.guard("the aggregator, start"):
            self._algorithm.begin_run(
                GlobalContext(
                    workers=tuple(worker.name for worker in setting.job.workers()),
                    tasks=len(setting.plans),
                    shape=setting.dataset.train.shape,
                    seed=setting.job.spec.seed,
                    device=setting.device,
                    make_network=setting.network,
                    training=setting.job.spec.training,
                )
            )
        self.wants_models = self._algorithm.wants_models
        self._examiner: Examiner | None = None
        self.split_digest = setting.split.digest

    def seen(self, task: int) -> tuple[int, ...]:
        """Return the label ids of tasks 1..task in learning order."""
        return self._setting.scope(task).seen

    def begin_task(self, task: int, weights: Tensors | None) -> Tensors:
        """Return the weights that `task` starts from, by value: seeded for the first, else with new rows."""
        rows = len(self.seen(task))
        if weights is None:
            weights = copied(self._setting.initial)
            return {
                name: array[:rows] if name.startswith("head.") else array for name, array in weights.items()
            }
        return copied(grown(weights, self._setting.initial, rows))

    def shared(self, worker: str, task: int, round: int) -> Shared:
        """Return what `worker` gets beside the weights; round 0 is for consolidation and evaluation."""
        with self._setting.guard(f"the aggregator, task {task}"):
            return self._algorithm.shared(worker, self._setting.scope(task), round)

    def check_info(self, task: int, weights: Tensors, info: Tensors) -> None:
        """Raise ValueError unless the algorithm can use an update's info."""
        self._algorithm.check_info(self._setting.scope(task), weights, info)

    def server_step(
        self, task: int, round: int, before: Tensors, weights: Tensors, updates: Mapping[str, Update]
    ) -> Tensors:
        """Let the algorithm correct what the aggregation rule made of the updates; return the new weights."""
        scope = self._setting.scope(task)
        with self._setting.guard(f"the aggregator, task {task}, round {round}"):
            return self._algorithm.server_step(scope, round, before, weights, dict(sorted(updates.items())))

    def close_round(self, task: int, round: int, weights: Tensors, updates: Mapping[str, Update]) -> None:
        """Tell the algorithm of the round's new global weights and of the updates, by worker name."""
        scope = self._setting.scope(task)
        with self._setting.guard(f"the aggregator, task {task}, round {round}"):
            self._algorithm.close_round(scope, round, weights, dict(sorted(updates.items())))

    def check_results(self, task: int, weights: Tensors, results: Tensors) -> None:
        """Raise ValueError unless the algorithm can use a worker's results."""
        self._algorithm.check_results(self._setting.scope(task), weights, results)

    def close_task(self, task: int, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Give the algorithm the workers' results, in the order of their names; return the final weights."""
        scope = self._setting.scope(task)
        with self._setting.guard(f"the aggregator, end of task {task}"):
            return self._algorithm.close_task(scope, weights, dict(sorted(results.items())))

    def evaluate(self, task: int, weights: Tensors) -> ClassCounts:
        """Evaluate on the whole test set of the classes seen (and of the unseen, if the job asks)."""
        scope = self._setting.scope(task)
        with self._setting.guard(f"the aggregator, evaluation after task {task}"):
            groups = self._algorithm.shared("", scope, 0)
            return self._examine().count(self._algorithm, scope, weights, groups)

    def initial_counts(self) -> ClassCounts | None:
        """Return the counts of the freshly initialised model where `evaluation.unseen` asks for them."""
        return self._examine().count_initial() if self._setting.job.spec.evaluation.unseen else None

    def state(self) -> Tensors:
        """Return what must survive a restart of the aggregator beside the weights, by value."""
        return copied(self._algorithm.aggregator_state())

    def restore(self, task: int, state: Tensors) -> None:
        """Take over what `state` returned."""
        self._algorithm.restore_aggregator(state)

    def _examine(self) -> Examiner:
        configure(self._setting.device, self._threads)
        if self._examiner is None:
            self._examiner = Examiner(self._setting, self._setting.split.test)
        return self._examiner
