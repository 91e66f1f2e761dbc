"""The worker's side of a run: turns the aggregator's orders into local training, whatever the algorithm."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from engram.data.types import Indices, WorkerShare
from engram.federation.messages import (
    ClassCounts,
    Consolidate,
    Consolidated,
    Evaluate,
    Shared,
    Tensors,
    Train,
    Update,
)
from engram.federation.roles import Progress
from engram.learning import state as states
from engram.learning.augment import build_augmentation
from engram.learning.context import LocalContext, rows_of
from engram.learning.device import configure, gpu_metrics
from engram.learning.evaluate import Examiner
from engram.learning.pool import SamplePool
from engram.learning.setting import Setting
from engram.learning.steps import LocalSteps, RoundData
from engram.learning.tensors import from_module, into_module
from engram.learning.weighting import update_weight
from engram.spec import WorkerIdentity


@dataclass(frozen=True)
class Round:
    """A round that is ready to be trained."""

    context: LocalContext
    data: RoundData
    samples: int
    """The update's weight in the average."""
    counts: dict[str, int]
    """Samples by kind."""


class Worker:
    """Implements `engram.federation.roles.LocalLearner` for every algorithm."""

    def __init__(self, setting: Setting, identity: WorkerIdentity, share: WorkerShare) -> None:
        self._setting = setting
        self._identity = identity
        self._share = share
        self._training = setting.job.spec.training
        configure(setting.device, self._training.threads)
        self._algorithm = setting.algorithm()
        self._augmentation = build_augmentation(self._training.augmentation)
        self._network = setting.network(1)
        self._states: dict[int, Tensors] = {}
        """The worker's state at the end of a task, by task. Two are kept, because a run that resumes from
        its checkpoint may repeat rounds of a task that this worker has already consolidated."""
        self._consolidated: Consolidated | None = None
        self._pools: dict[str, SamplePool] = {}
        """The samples of the last round by kind, kept for as long as they stay the same."""
        self._examiner: Examiner | None = None
        self.samples = share.samples
        self.split_digest = setting.split.digest
        self.device = str(setting.device)

    def restore(self, state: bytes) -> None:
        """Take over the state that the aggregator kept at the end of the last task; empty: start afresh."""
        self._states = dict([states.unpack(state)]) if state else {}
        self._consolidated = None

    def train(self, order: Train, progress: Progress) -> Update:
        """Train one round from `order.weights`; abstain (samples 0) without data of the task.

        Raises NumericalError when a loss is not finite, ConfigurationError when memory runs out.
        """
        with self._setting.guard(f"{self._identity.name}, task {order.task}, round {order.round}"):
            return self._train(order, progress)

    def _train(self, order: Train, progress: Progress) -> Update:
        wall, cpu = time.perf_counter(), time.process_time()
        ready = self.begin(order)
        if ready is None:
            return abstention(order)
        steps, loss = self.steps(order.task).run(self._algorithm, ready.context, ready.data, progress)
        update = self.close(ready, steps, loss)
        spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        return replace(update, metrics={**update.metrics, **spent})

    def begin(self, order: Train) -> Round | None:
        """Make a round ready, up to its first step; None: without data of the task there is none to train."""
        self._consolidated = None
        self._enter(order.task)
        algorithm = self._algorithm
        labelled = algorithm.labelled(self._share, order.task)
        unlabelled = algorithm.unlabelled(self._share, order.task, order.round)
        exemplars = algorithm.memory.all()
        counts = {"labelled": len(labelled), "exemplars": len(exemplars), "unlabelled": len(unlabelled)}
        samples = update_weight(self._setting.job.spec.aggregation.weighting, **counts)
        if len(labelled) + len(unlabelled) == 0 or samples == 0:
            return None
        context = self._context(order.task, order.round, order.weights, order.shared)
        data = self._data(context, labelled, unlabelled)
        algorithm.begin_round(context)
        return Round(context, data, samples, counts)

    def close(self, ready: Round, steps: int, loss: float) -> Update:
        """Return the update of a round whose steps have been taken."""
        context = ready.context
        info = self._algorithm.end_round(context)
        return Update(
            task=context.scope.task,
            round=context.round,
            samples=ready.samples,
            weights=from_module(context.network),
            metrics={
                "loss": loss,
                "steps": float(steps),
                **{name: float(count) for name, count in ready.counts.items()},
                **gpu_metrics(context.device),
                **context.metrics,
            },
            info=info,
        )

    def steps(self, task: int) -> LocalSteps:
        """Return what takes the steps of a round of `task`."""
        return LocalSteps(self._training, self._augmentation, self._setting.plans[task - 1].rounds)

    def consolidate(self, order: Consolidate) -> Consolidated:
        """End a task with its final global weights: exemplars, class sums, Fisher, and the worker's state.

        Called again for the same task, without training in between, it returns the same value.
        """
        if self._consolidated is not None and self._consolidated.task == order.task:
            return self._consolidated
        wall, cpu = time.perf_counter(), time.process_time()
        algorithm = self._algorithm
        with self._setting.guard(f"{self._identity.name}, consolidation of task {order.task}"):
            self._enter(order.task)
            context = self._context(order.task, 0, order.weights, order.shared)
            context.network.eval()
            results = algorithm.consolidate(context)
            state = algorithm.worker_state()
        self._states = {**dict(sorted(self._states.items())[-1:]), order.task: state}
        self._consolidated = Consolidated(
            task=order.task,
            samples=len(algorithm.labelled(self._share, order.task)),
            results=results,
            state=states.pack(order.task, state, self._identity.name) if state else b"",
            metrics={
                "seconds": time.perf_counter() - wall,
                "cpu_seconds": time.process_time() - cpu,
                "exemplars": float(len(algorithm.memory.all())),
                **context.metrics,
            },
        )
        return self._consolidated

    def evaluate(self, order: Evaluate) -> ClassCounts:
        """Count right predictions on this worker's part of the test set: every n-th sample, n workers.

        With partition `local` the test set is the worker's own, so its part is all of it.
        """
        configure(self._setting.device, self._training.threads)
        if self._examiner is None:
            job, mine = self._setting.job, self._setting.split.test
            if job.spec.dataset.partition.method != "local":
                mine = mine[self._identity.position :: len(job.workers())]
            self._examiner = Examiner(self._setting, mine)
        scope = self._setting.scope(order.task)
        with self._setting.guard(f"{self._identity.name}, evaluation after task {order.task}"):
            return self._examiner.count(self._algorithm, scope, order.weights, order.shared)

    def _enter(self, task: int) -> None:
        """Make the algorithm hold its state from before `task`."""
        configure(self._setting.device, self._training.threads)
        earlier = [done for done in self._states if done < task]
        self._algorithm.restore_worker(self._states[max(earlier)] if earlier else {})

    def _context(self, task: int, round: int, weights: Tensors, groups: Shared) -> LocalContext:
        scope = self._setting.scope(task)
        self._network.resize(len(scope.seen))
        into_module(weights, self._network)
        return LocalContext(
            worker=self._identity.name,
            scope=scope,
            round=round,
            network=self._network,
            received=weights,
            groups=groups,
            share=self._share,
            source=self._setting.dataset.train,
            device=self._setting.device,
            seed=self._setting.job.spec.seed,
            make_network=self._setting.network,
            augmentation=self._augmentation,
        )

    def _data(self, context: LocalContext, labelled: Indices, unlabelled: Indices) -> RoundData:
        memory = self._algorithm.memory
        # What an exemplar is kept as counts, not what its hidden label may be.
        kept = torch.from_numpy(rows_of(memory.labels(), context.scope.seen))
        return RoundData(
            labelled=self._pool("labelled", context, np.concatenate([labelled, memory.all()])),
            targets=torch.cat([context.rows(labelled).cpu(), kept]),
            unlabelled=self._pool("unlabelled", context, unlabelled),
            hidden=context.rows(unlabelled).cpu(),
        )

    def _pool(self, kind: str, context: LocalContext, positions: Indices) -> SamplePool:
        if kind not in self._pools or not np.array_equal(self._pools[kind].positions, positions):
            self._pools.pop(kind, None)  # first, so that the old and the new images are never held together
            self._pools[kind] = SamplePool(context.source, positions, context.device)
        return self._pools[kind]


def abstention(order: Train) -> Update:
    """Return the answer of a worker that has nothing to train on."""
    return Update(task=order.task, round=order.round, samples=0)
