"""Counting right predictions by class: the one place where a model meets test samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from engram.data.types import Indices
from engram.federation.messages import ClassCounts, Shared, Tensors
from engram.learning.algorithm import Algorithm
from engram.learning.context import FORWARD_BATCH, TaskScope, rows_of
from engram.learning.models import Network
from engram.learning.pool import SamplePool
from engram.learning.setting import Setting
from engram.learning.tensors import grown, into_module

Scores: TypeAlias = Callable[[Tensor], Tensor]
"""Images [b, channels, height, width] to scores [b, rows]."""


class Examiner:
    """Evaluates global weights on a part of the split's test samples."""

    def __init__(self, setting: Setting, positions: Indices) -> None:
        self._setting = setting
        dataset = setting.dataset
        source = dataset.train if setting.split.validation else dataset.test
        self._labels = source.labels[positions]
        self._pool = SamplePool(source, positions, setting.device)

    def count(self, algorithm: Algorithm, scope: TaskScope, weights: Tensors, groups: Shared) -> ClassCounts:
        """Count for the classes seen, among which the algorithm's own classifier decides.

        With `evaluation.unseen` classes to come are counted too, by the logits of all rows of the head: their
        rows hold the seeded initial values, those with which they will be grown.
        """
        network = self._network(weights)
        with torch.inference_mode():
            seen = self._right(
                lambda images: algorithm.scores(network, images, groups), scope.seen, scope.seen
            )
            unseen = self._unseen(scope, weights)
        counted = (*scope.seen, *unseen)
        return ClassCounts(right=seen, total=self._totals(counted), right_unseen=unseen)

    def count_initial(self) -> ClassCounts:
        """Count for all classes of the job with the freshly initialised model (b[j] of learning.md)."""
        classes = self._setting.classes
        network = self._network(self._setting.initial)
        with torch.inference_mode():
            return ClassCounts(right=self._right(network, classes, classes), total=self._totals(classes))

    def _unseen(self, scope: TaskScope, weights: Tensors) -> dict[int, int]:
        classes = self._setting.classes
        to_come = classes[len(scope.seen) :]
        if not self._setting.job.spec.evaluation.unseen or not to_come:
            return {}
        network = self._network(grown(weights, self._setting.initial, len(classes)))
        return self._right(network, classes, to_come)

    def _network(self, weights: Tensors) -> Network:
        network = self._setting.network(len(weights["head.bias"]))
        into_module(weights, network)
        return network.eval()

    def _right(self, scores: Scores, rows: tuple[int, ...], wanted: tuple[int, ...]) -> dict[int, int]:
        """Return right predictions for the classes `wanted`; row i of the scores is class rows[i]."""
        chosen = np.flatnonzero(np.isin(self._labels, wanted))
        expected = rows_of(self._labels[chosen], rows)
        right = np.zeros(len(rows), np.int64)
        for start in range(0, len(chosen), FORWARD_BATCH):
            part = slice(start, start + FORWARD_BATCH)
            images = self._pool.take(torch.from_numpy(chosen[part]))
            predicted = scores(images).argmax(dim=1).cpu().numpy()
            right += np.bincount(expected[part][predicted == expected[part]], minlength=len(rows))
        place = {label: row for row, label in enumerate(rows)}
        return {label: int(right[place[label]]) for label in wanted}

    def _totals(self, classes: tuple[int, ...]) -> dict[int, int]:
        """Return test samples by class; 0 for a class without any."""
        return {label: int((self._labels == label).sum()) for label in classes}
