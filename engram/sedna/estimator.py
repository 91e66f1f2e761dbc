"""Both sides of a run whose model is a Sedna or Ianvs Estimator: it trains itself, engram gives it its data.

What it gets is what Ianvs and Sedna give: images as numpy arrays, height first and channels last, label ids,
and the numbers of task and round, counted from 0.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.data.split import evaluation_source
from engram.data.types import DataSet, ImageSource, Indices, Split, WorkerShare
from engram.errors import ConfigurationError
from engram.federation.messages import (
    EMPTY,
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
from engram.sedna.plugin import FIELD, Plugin
from engram.spec import FederatedIncrementalJob, WorkerIdentity
from engram.spec.names import Environment

HELPER = "helper"
"""Group of the arrays that an aggregation's `helper_function` has for a worker."""


class Samples(tuple[Any, Any]):
    """Training data in every form in which Sedna and Ianvs hand them over.

    It is the pair (x, y), has both as attributes, and answers to Ianvs' keys for label scarcity: `label_x`,
    `label_y`, `unlabel_x`, `unlabel_y`.
    """

    _parts: dict[str, Any]

    @classmethod
    def of(cls, x: NDArray[Any], y: NDArray[Any], unlabelled: NDArray[Any]) -> Samples:
        """Return labelled samples, and images whose labels are hidden."""
        made = cls((x, y))
        made._parts = {
            "label_x": x,
            "label_y": y,
            "unlabel_x": unlabelled,
            "unlabel_y": np.full(len(unlabelled), -1, np.int64),
        }
        return made

    @property
    def x(self) -> NDArray[Any]:
        """Images [n, height, width, channels]."""
        images: NDArray[Any] = tuple.__getitem__(self, 0)
        return images

    @property
    def y(self) -> NDArray[Any]:
        """Label ids [n]."""
        labels: NDArray[Any] = tuple.__getitem__(self, 1)
        return labels

    def num_examples(self) -> int:
        """Return the number of labelled samples."""
        return len(self.y)

    def __getitem__(self, key: Any) -> Any:
        return self._parts[key] if isinstance(key, str) else tuple.__getitem__(self, key)


@dataclass(frozen=True)
class Given:
    """What both sides are made from."""

    job: FederatedIncrementalJob
    kind: type
    dataset: DataSet
    split: Split

    def seen(self, task: int) -> tuple[int, ...]:
        """Return the label ids of tasks 1..task in learning order."""
        return tuple(label for labels in self.split.tasks[:task] for label in labels)

    def count(self, plugin: Plugin, positions: Indices, task: int, weights: Tensors) -> ClassCounts:
        """Return how many of the test samples at `positions` are predicted right, for the classes seen."""
        source, seen = evaluation_source(self.split, self.dataset), self.seen(task)
        chosen = positions[np.isin(source.labels[positions], seen)]
        plugin.set_weights(weights)
        labels = source.labels[chosen]
        right = labels[plugin.predictions(images_of(source, chosen), seen) == labels]
        return ClassCounts(
            right={label: int((right == label).sum()) for label in seen},
            total={label: int((labels == label).sum()) for label in seen},
        )


def images_of(source: ImageSource, positions: Indices) -> NDArray[np.float32]:
    """Return the images at `positions`, channels last."""
    return np.ascontiguousarray(source.read(positions).transpose(0, 2, 3, 1))


class EstimatorWorker:
    """Implements `engram.federation.roles.LocalLearner`."""

    device = "cpu"

    def __init__(self, given: Given, worker: WorkerIdentity, share: WorkerShare) -> None:
        self._given, self._worker, self._share = given, worker, share
        self._plugin = Plugin(given.job, given.kind)
        self._data: tuple[int, Samples] | None = None
        self.samples, self.split_digest = share.samples, given.split.digest

    def restore(self, state: bytes) -> None:
        """Take nothing over: an Estimator keeps no state that engram could move."""

    def train(self, order: Train, progress: Progress) -> Update:
        """Let the Estimator train one round; without samples of the task it abstains."""
        wall, cpu = time.perf_counter(), time.process_time()
        samples = self._samples(order.task)
        if not samples.num_examples():
            return Update(order.task, order.round, 0)
        if HELPER in order.shared:
            self._plugin.help(order.shared[HELPER])
        self._plugin.set_weights(order.weights)
        progress(0.0, math.nan)
        training = self._given.job.spec.training
        options = {
            "valid_data": None,
            "task_id": order.task - 1,
            "round": order.round - 1,
            "task_size": len(self._given.split.tasks[order.task - 1]),
            "epochs": training.local_epochs,
            "batch_size": training.batch_size,
            "learning_rate": training.optimizer.learning_rate,
        }
        said = self._plugin.train(samples, options, self._worker.name, order.task, order.round)
        loss = loss_of(said)
        progress(1.0, math.nan if loss is None else loss)
        return Update(
            order.task,
            order.round,
            samples.num_examples(),
            self._plugin.weights(),
            {
                **({} if loss is None else {"loss": loss}),
                "seconds": time.perf_counter() - wall,
                "cpu_seconds": time.process_time() - cpu,
                "labelled": float(samples.num_examples()),
            },
            arrays_of(said),
        )

    def consolidate(self, order: Consolidate) -> Consolidated:
        """End a task, which an Estimator does not notice."""
        return Consolidated(order.task, self._samples(order.task).num_examples())

    def evaluate(self, order: Evaluate) -> ClassCounts:
        """Count right predictions on this worker's part of the test set: every n-th sample, n workers."""
        job, mine = self._given.job, self._given.split.test
        if job.spec.dataset.partition.method != "local":
            mine = mine[self._worker.position :: len(job.workers())]
        return self._given.count(self._plugin, mine, order.task, order.weights)

    def _samples(self, task: int) -> Samples:
        if self._data is None or self._data[0] != task:
            share, source = self._share.tasks[task - 1], self._given.dataset.train
            labels = source.labels[share.labelled]
            unlabelled = images_of(source, share.unlabelled)
            self._data = (task, Samples.of(images_of(source, share.labelled), labels, unlabelled))
        return self._data[1]


class EstimatorCoordinator:
    """Implements `engram.federation.roles.GlobalLearner`."""

    wants_models = False

    def __init__(self, given: Given) -> None:
        self._given = given
        self._plugin = Plugin(given.job, given.kind)
        self.split_digest = given.split.digest
        pretrained = os.environ.get(Environment.PRETRAINED_MODEL_URL, "")
        if pretrained:
            self._plugin.load(pretrained)
        self._initial = self._plugin.weights()

    def seen(self, task: int) -> tuple[int, ...]:
        """Return the label ids of tasks 1..task in learning order."""
        return self._given.seen(task)

    def begin_task(self, task: int, weights: Tensors | None) -> Tensors:
        """Return the weights that a task starts from: an Estimator has an output for every class at once."""
        return self._initial if weights is None else weights

    def shared(self, worker: str, task: int, round: int) -> Shared:
        """Return nothing: the aggregation's helper is the rule's own."""
        return {}

    def check_info(self, task: int, weights: Tensors, info: Tensors) -> None:
        """Take any: nobody looks at it."""

    def server_step(
        self, task: int, round: int, before: Tensors, weights: Tensors, updates: Mapping[str, Update]
    ) -> Tensors:
        """Return what the aggregation rule made."""
        return weights

    def close_round(self, task: int, round: int, weights: Tensors, updates: Mapping[str, Update]) -> None:
        """Learn nothing."""

    def check_results(self, task: int, weights: Tensors, results: Tensors) -> None:
        """Take any: nobody looks at them."""

    def close_task(self, task: int, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Let the Estimator write its file after the last task, where MODEL_URL says where to."""
        path = os.environ.get(Environment.MODEL_URL, "")
        if path and task == len(self._given.split.tasks):
            self._plugin.set_weights(weights)
            self._plugin.save(path)
        return weights

    def evaluate(self, task: int, weights: Tensors) -> ClassCounts:
        """Evaluate on the whole test set of the classes seen."""
        return self._given.count(self._plugin, self._given.split.test, task, weights)

    def initial_counts(self) -> ClassCounts | None:
        """Return none; forward transfer of an Estimator is refused."""
        return None

    def state(self) -> Tensors:
        """Return nothing."""
        return EMPTY

    def restore(self, task: int, state: Tensors) -> None:
        """Take nothing over."""


def loss_of(said: Mapping[str, Any]) -> float | None:
    """Return the newest loss in what `train` returned: a number, or the last of a list (Keras' history)."""
    loss = said.get("loss")
    if isinstance(loss, list | tuple) and loss:
        loss = loss[-1]
    try:
        value = float(loss)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def arrays_of(said: Mapping[str, Any]) -> Tensors:
    """Return what of `train`'s answer are numbers or arrays of numbers: it goes to `helper_function`."""
    found: dict[str, NDArray[Any]] = {}
    for name, value in said.items():
        try:
            array = np.asarray(value)
        except ValueError:
            continue
        if array.dtype.kind in "iufb":
            found[str(name)] = array
    return found


def check_unseen(job: FederatedIncrementalJob) -> None:
    """Raise ConfigurationError where a job asks an Estimator for classes to come."""
    if job.spec.evaluation.unseen:
        raise ConfigurationError(
            "an Estimator is not asked about classes to come",
            field="spec.evaluation.unseen",
            remedy=f"write unseen: false, or another kind of {FIELD}",
        )
