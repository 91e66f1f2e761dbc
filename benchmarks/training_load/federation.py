"""Workers and their aggregator in one process, at the start of a second task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.training_load.setting import PER_CLASS, WORKERS, Case, RandomImages, job_of, seconds
from engram.data.types import DataSet, Split, TaskShare, WorkerShare
from engram.federation.messages import Consolidate, Tensors, Train
from engram.federation.roles import Crew, LocalLearner
from engram.learning import build_crew, build_global, build_local
from engram.learning.models import Network


class Federation:
    """Five workers and their aggregator in a loop, at the start of task 2."""

    def __init__(self, case: Case, algorithm: str, rounds: int, steps: int, *, batched: bool = False) -> None:
        """`batched`: the workers train their rounds together."""
        self._steps = steps
        job = job_of(case, algorithm, rounds, steps)
        source = RandomImages(case.shape)
        dataset = DataSet(case.name, source, source, ("a", "b", "c", "d"), "")
        shares = tuple(WorkerShare(w.name, _tasks_of(w.position)) for w in job.workers())
        split = Split(((0, 1), (2, 3)), shares, np.arange(4 * PER_CLASS), False, "")
        self._central = build_global(job, dataset, split)
        pairs = list(zip(job.workers(), shares, strict=True))
        self._crew: Crew | None = None
        self._workers: Mapping[str, LocalLearner]
        if batched:
            self._crew = build_crew(job, [(own, dataset, share, split) for own, share in pairs])
            self._workers = self._crew.members
        else:
            self._workers = {own.name: build_local(job, own, dataset, share, split) for own, share in pairs}
        self._task = self._round = 1
        self._weights = self._central.begin_task(1, None)
        self.round()
        self._begin_task_2()

    def _begin_task_2(self) -> None:
        seen = self._central.seen(1)
        results = {
            name: worker.consolidate(Consolidate(1, self._weights, seen, self._central.shared(name, 1, 0)))
            for name, worker in self._workers.items()
        }
        closed = self._central.close_task(1, self._weights, results)
        self._task, self._round = 2, 1
        self._weights = self._central.begin_task(2, closed)

    def round(self) -> tuple[float, float | None]:
        """Train a round; return the milliseconds of one worker's step, and the card's use if it is known."""
        seen = self._central.seen(self._task)
        orders = {
            name: Train(
                *(self._task, self._round, self._weights, seen),
                self._central.shared(name, self._task, self._round),
            )
            for name in self._workers
        }
        before = seconds()
        if self._crew is not None:
            self._crew.train(orders, dict.fromkeys(orders, ignore))
        updates = {name: worker.train(orders[name], ignore) for name, worker in self._workers.items()}
        taken = 1000 * (seconds() - before) / self._steps / WORKERS
        self._weights = _mean([update.weights for update in updates.values()])
        self._central.close_round(self._task, self._round, self._weights, updates)
        self._round += 1
        used = [update.metrics.get("gpu_utilization_ratio") for update in updates.values()]
        return taken, used[-1]

    def passes(self) -> Counter[tuple[int, bool]]:
        """Train a round; return the forward passes of one step: (images, whether with gradient) -> times."""
        seen: Counter[tuple[int, bool]] = Counter()
        forward = Network.forward

        def counted(network: Network, images: Tensor) -> Tensor:
            seen[len(images), torch.is_grad_enabled()] += 1
            return forward(network, images)

        with mock.patch.object(Network, "forward", counted):
            self.round()
        steps = self._steps * WORKERS
        return Counter({what: round(times / steps) for what, times in seen.items() if times >= steps})


def ignore(done: float, loss: float) -> None:
    """Nobody watches."""


def _tasks_of(position: int) -> tuple[TaskShare, ...]:
    """Return a worker's part of both tasks, a third of it with labels."""
    tasks = []
    for task in range(2):
        mine = np.arange(2 * PER_CLASS)[position::WORKERS] + 2 * PER_CLASS * task
        tasks.append(TaskShare(mine[::3], np.setdiff1d(mine, mine[::3])))
    return tuple(tasks)


def _mean(models: list[Tensors]) -> Tensors:
    """Return the mean of the workers' models; of integers the first worker's."""
    return {
        name: np.mean([model[name] for model in models], axis=0, dtype=np.float64).astype(first.dtype)
        if first.dtype.kind == "f"
        else first
        for name, first in models[0].items()
    }
