"""icarl: exemplars, distillation and classification by nearest mean (Rebuffi et al. 2017, "iCaRL").

Exemplars are those of `replay` (algorithms 4 and 5), labelled samples only. The loss is that of `fedlwf`:
cross-entropy and distillation from the last task's global model on the old rows (equation 1, with softmax in
place of sigmoids). A sample is classified as the class whose mean of normalised features is nearest (equation
2). In a federation the mean of class c is the normalised sum, over all workers, of the sums over ALL their
exemplars of c; a mean of the workers' means would be wrong where they hold different numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engram.federation.messages import Consolidated, Shared, Tensors
from engram.federation.validation import check_like
from engram.learning.algorithm import LocalContext, Network, TaskScope
from engram.learning.algorithms.fedlwf import FedLwf
from engram.learning.memory import Memory
from engram.learning.tensors import HEAD_WEIGHT, to_numpy
from engram.spec.algorithms import FedLwfParameters, IcarlParameters
from engram.spec.base import Spec

GROUP = "class-means"
SUMS, MEANS = "class_sums", "means"


class Icarl(FedLwf):
    """fedlwf's distillation, exemplars by herding, and a nearest-mean classifier."""

    Parameters: ClassVar[type[Spec]] = IcarlParameters

    def __init__(self, parameters: IcarlParameters) -> None:
        super().__init__(FedLwfParameters(temperature=parameters.temperature, strength=parameters.strength))
        self.memory = Memory(parameters.exemplars_per_worker)
        self.means: Tensors = {}

    def consolidate(self, context: LocalContext) -> Tensors:
        """Choose exemplars, then return the sum of the features of all exemplars by row, [rows, d]."""
        super().consolidate(context)
        sums = torch.zeros(len(context.scope.seen), context.network.head.in_features, dtype=torch.float64)
        for row, label in enumerate(context.scope.seen):
            positions = self.memory.positions.get(label)
            if positions is not None:
                sums[row] = context.features(positions).double().sum(dim=0).cpu()
        return {SUMS: to_numpy(sums)}

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send the teacher with training rounds, and the means where they belong to the current model."""
        groups = dict(super().shared(worker, scope, round))
        if round == 0 and self.means and len(self.means[MEANS]) == len(scope.seen):
            groups[GROUP] = self.means
        return groups

    def check_results(self, scope: TaskScope, weights: Tensors, results: Tensors) -> None:
        """Refuse sums of another shape than [rows, d]."""
        rows, features = weights[HEAD_WEIGHT].shape
        if results:
            check_like(results, {SUMS: np.empty((rows, features), np.float64)})

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Keep the teacher, and the class means of all workers' exemplars."""
        sums = [result.results[SUMS] for result in results.values() if SUMS in result.results]
        self.means = {MEANS: class_means(sums)} if sums else {}
        return super().close_task(scope, weights, results)

    def aggregator_state(self) -> Tensors:
        """Return teacher and class means."""
        return {**super().aggregator_state(), **self.means}

    def restore_aggregator(self, state: Tensors) -> None:
        """Take teacher and class means back."""
        super().restore_aggregator(state)
        self.means = {MEANS: state[MEANS].copy()} if MEANS in state else {}

    def scores(self, network: Network, images: Tensor, groups: Shared) -> Tensor:
        """Return the cosine to each class mean; for features and means of length 1 the largest is nearest.

        In the middle of a task the new classes have no means yet: then the head decides.
        """
        if GROUP not in groups:
            return super().scores(network, images, groups)
        means = torch.from_numpy(groups[GROUP][MEANS].copy()).to(images.device)
        return nearest_mean_scores(network.features(images), means)


def class_means(sums: Iterable[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Return sum_w s_w / || sum_w s_w || by row, [rows, d]; a class without any exemplar keeps zeros.

    `sums` are the workers' sums of normalised features over all their exemplars of each class.
    """
    total = np.sum(list(sums), axis=0)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    means: NDArray[np.float32] = np.divide(total, length, out=np.zeros_like(total), where=length > 0).astype(
        np.float32
    )
    return means


def nearest_mean_scores(features: Tensor, means: Tensor) -> Tensor:
    """Return cosines [b, rows] of `features` [b, d] and `means` [rows, d]; -inf for a class without mean."""
    scores = functional.normalize(features.float(), dim=1) @ means.T
    return scores.masked_fill(~means.any(dim=1), -torch.inf)
