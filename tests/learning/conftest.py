"""A small world for learning: images without a file, splits without `engram.data`, a federation in a loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from engram.data.types import DataSet, Indices, Split, TaskShare, WorkerShare
from engram.federation.messages import (
    ClassCounts,
    Consolidate,
    Consolidated,
    Tensors,
    Train,
    Update,
)
from engram.federation.roles import GlobalLearner, LocalLearner
from engram.learning import build_global, build_local, curriculum
from engram.spec import FederatedIncrementalJob, parse_job

CLASSES = 6
PER_CLASS = 24
SHAPE = (1, 8, 8)
MakeJob: TypeAlias = Callable[..., FederatedIncrementalJob]
MakeWorld: TypeAlias = Callable[..., "World"]


class Images:
    """Noisy copies of one random pattern a class; class c fills positions [c * n, (c + 1) * n)."""

    shape: tuple[int, int, int] = SHAPE

    def __init__(self, seed: int, per_class: int) -> None:
        patterns = np.random.RandomState(7).standard_normal((CLASSES, *SHAPE))
        noise = np.random.RandomState(seed).standard_normal((CLASSES * per_class, *SHAPE))
        self.labels: NDArray[np.int64] = np.repeat(np.arange(CLASSES, dtype=np.int64), per_class)
        self._images = (patterns[self.labels] + 0.5 * noise).astype(np.float32)

    def read(self, indices: Indices) -> NDArray[np.float32]:
        return self._images[indices]


@dataclass
class World:
    """Everything that a run needs, and the run itself."""

    job: FederatedIncrementalJob
    dataset: DataSet
    split: Split
    central: GlobalLearner
    workers: dict[str, LocalLearner]
    losses: list[float] = field(default_factory=list)

    def order(self, worker: str, task: int, round: int, weights: Tensors) -> Train:
        shared = self.central.shared(worker, task, round)
        return Train(task, round, weights, self.central.seen(task), shared)

    def round(self, task: int, round: int, weights: Tensors) -> Tensors:
        updates = {
            name: worker.train(self.order(name, task, round, weights), ignore)
            for name, worker in self.workers.items()
        }
        told = updates
        if not self.central.wants_models:
            told = {name: replace(update, weights={}) for name, update in updates.items()}
        averaged = mean(weights, updates)
        if any(update.samples for update in updates.values()):
            averaged = self.central.server_step(task, round, weights, averaged, told)
        self.central.close_round(task, round, averaged, told)
        self.losses += [update.metrics["loss"] for update in updates.values() if update.samples]
        return averaged

    def consolidate(self, task: int, weights: Tensors) -> dict[str, Consolidated]:
        seen = self.central.seen(task)
        return {
            name: worker.consolidate(Consolidate(task, weights, seen, self.central.shared(name, task, 0)))
            for name, worker in self.workers.items()
        }

    def task(self, task: int, weights: Tensors | None) -> Tensors:
        current = self.central.begin_task(task, weights)
        for round in range(1, curriculum(self.job, self.split.tasks)[task - 1].rounds + 1):
            current = self.round(task, round, current)
        return self.central.close_task(task, current, self.consolidate(task, current))

    def run(self) -> tuple[Tensors, list[ClassCounts]]:
        weights: Tensors | None = None
        counts = []
        for number in range(1, len(curriculum(self.job, self.split.tasks)) + 1):
            weights = self.task(number, weights)
            counts.append(self.central.evaluate(number, weights))
        assert weights is not None
        return weights, counts


def ignore(done: float, loss: float) -> None:
    """A progress callback."""


def mean(weights: Tensors, updates: Mapping[str, Update]) -> Tensors:
    """FedAvg: floating tensors averaged by samples in float64, integer ones taken from the first worker."""
    taken = [update for _, update in sorted(updates.items()) if update.samples]
    if not taken:
        return weights
    total = sum(update.samples for update in taken)
    result: dict[str, NDArray[Any]] = {}
    for name, old in weights.items():
        if old.dtype.kind != "f":
            result[name] = taken[0].weights[name]
            continue
        parts = [update.samples * update.weights[name].astype(np.float64) for update in taken]
        result[name] = (np.sum(parts, axis=0) / total).astype(np.float32)
    return result


@pytest.fixture(scope="session")
def make_job() -> MakeJob:
    def make(
        algorithm: str = "finetune",
        parameters: Mapping[str, Any] | None = None,
        *,
        model: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        workers: int = 2,
        **spec: Any,
    ) -> FederatedIncrementalJob:
        basis = {
            "roundsPerTask": 2,
            "localSteps": 6,
            "batchSize": 8,
            "optimizer": {"learningRate": 0.05, "momentum": 0.9, "weightDecay": 0.0001},
        }
        return parse_job(
            {
                "apiVersion": "engram.dev/v1alpha1",
                "kind": "FederatedIncrementalJob",
                "metadata": {"name": "tiny"},
                "spec": {
                    "tasks": {"count": 3, "classesPerTask": 2},
                    "model": model or {"name": "cnn", "parameters": {"channels": [4], "dense": 8}},
                    "training": {**basis, **(training or {})},
                    "algorithm": {"name": algorithm, "parameters": dict(parameters or {})},
                    "workers": [{"name": "edge", "replicas": workers}],
                    **spec,
                },
            }
        )

    return make


@pytest.fixture(scope="session")
def dataset() -> DataSet:
    names = tuple("abcdef")
    return DataSet("patterns", Images(1, PER_CLASS), Images(2, 10), names, "0" * 64)


@pytest.fixture(scope="session")
def make_world(make_job: MakeJob, dataset: DataSet) -> MakeWorld:
    """Make a world of three tasks (5, 0 | 3, 1 | 4, 2); `empty` names (worker, task) pairs without data.

    `unlabelled` names those whose data carry no labels.
    """

    def make(
        job: FederatedIncrementalJob | None = None,
        *,
        empty: tuple[tuple[int, int], ...] = (),
        unlabelled: tuple[tuple[int, int], ...] = (),
        only: tuple[int, ...] | None = None,
    ) -> World:
        job = make_job() if job is None else job
        identities = job.workers()
        tasks = ((5, 0), (3, 1), (4, 2))
        nothing = np.empty(0, np.int64)
        shares = []
        for identity in identities:
            parts = []
            for number, classes in enumerate(tasks, 1):
                # Uneven: worker w holds every (w + 2)-th sample, some of which others hold too.
                every = [np.arange(c * PER_CLASS, (c + 1) * PER_CLASS) for c in classes]
                mine = np.concatenate(every)[identity.position :: identity.position + 2]
                every_th = round(1 / job.spec.dataset.label_ratio)
                place = (identity.position, number)
                if place in empty:
                    parts.append(TaskShare(nothing, nothing))
                elif place in unlabelled:
                    parts.append(TaskShare(nothing, mine))
                else:
                    shown = np.arange(len(mine)) % every_th == 0
                    parts.append(TaskShare(mine[shown], mine[~shown]))
            shares.append(WorkerShare(identity.name, tuple(parts)))
        split = Split(tasks, tuple(shares), np.arange(len(dataset.test.labels)), False, "digest")
        workers = {
            identity.name: build_local(job, identity, dataset, share, split)
            for identity, share in zip(identities, shares, strict=True)
            if only is None or identity.position in only
        }
        return World(job, dataset, split, build_global(job, dataset, split), workers)

    return make


@pytest.fixture
def module_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path for a test's own modules."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path
