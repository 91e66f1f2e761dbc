"""Ideas about pseudo-labels that were tried on discmatch and semifci, as algorithms of a user's own.

They stand beside them in the benchmark fashion-fcil-20-options. None of them is part of engram, and nothing
in them was tuned.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engram.learning.algorithm import LocalContext
from engram.learning.algorithms.discmatch import DiscMatch
from engram.learning.algorithms.icarl import nearest_mean_scores
from engram.learning.algorithms.semifci import SemiFci
from engram.learning.helpers import Helpers
from engram.learning.models import Network
from engram.learning.pseudo import AdaptiveThreshold, PseudoLabels, agreed, within
from engram.spec.algorithms import DiscMatchParameters, SemiFciParameters

SHARPNESS = 10.0
"""What cosines are multiplied by before they become probabilities: of two that are .3 apart one has 95 %."""


class Aligned(DiscMatch):
    """Distribution alignment (Berthelot et al. 2020, "ReMixMatch", section 3.1).

    Probabilities of unlabelled images, times the share of each class among the worker's labelled samples of
    the task, over the mean of the predictions, and normalised. The mean is that of the round so far, at most
    16 batches in the benchmark, where the paper has the last 128: a worker keeps nothing between rounds.
    """

    def __init__(self, parameters: DiscMatchParameters) -> None:
        super().__init__(parameters)
        self._wanted: Tensor | None = None
        self._predicted: list[Tensor] = []

    def begin_round(self, context: LocalContext) -> None:
        """Take the shares that are wanted; without a label of the task there are none."""
        super().begin_round(context)
        rows = context.rows(context.share.tasks[context.scope.task - 1].labelled)
        counts = torch.bincount(rows, minlength=len(context.scope.seen)).float()
        self._wanted = counts / counts.sum() if len(rows) else None
        self._predicted = []

    def _judge(self, context: LocalContext, images: Tensor) -> PseudoLabels:
        own = within(context.network(images), self._barred(context.scope))
        if self._wanted is not None:
            self._predicted.append(own.mean(dim=0))
            own = own * self._wanted / torch.stack(self._predicted).mean(dim=0).clamp(min=1e-6)
            own = own / own.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return agreed(own, own.new_zeros(0, *own.shape), "votes", self.parameters.threshold)


class Adaptive(DiscMatch):
    """Thresholds that are lower for classes that are seldom accepted (Zhang et al. 2021, "FlexMatch").

    None falls below .5, so that of two classes the one that is seldom accepted has no threshold at all.
    """

    def __init__(self, parameters: DiscMatchParameters) -> None:
        super().__init__(parameters)
        self._thresholds: AdaptiveThreshold | None = None

    def begin_round(self, context: LocalContext) -> None:
        """Start counting."""
        super().begin_round(context)
        rows = len(context.scope.seen)
        self._thresholds = AdaptiveThreshold(self.parameters.threshold, rows, context.device)

    def _judge(self, context: LocalContext, images: Tensor) -> PseudoLabels:
        own = within(context.network(images), self._barred(context.scope))
        if self._thresholds is None:
            raise RuntimeError("begin_round() comes first")
        self._thresholds.learn(own)
        return agreed(own, own.new_zeros(0, *own.shape), "votes", self._thresholds.thresholds())


class NearestMeans(DiscMatch):
    """The nearest mean of the worker's labelled samples has a vote, as a helper has in semifci.

    Features and means are of the round's global model. Classes without a label here are not voted for, and of
    one class alone there is no vote.
    """

    def __init__(self, parameters: DiscMatchParameters) -> None:
        super().__init__(parameters)
        self._start: Network | None = None
        self._means: Tensor | None = None

    def begin_round(self, context: LocalContext) -> None:
        """Compute the means."""
        super().begin_round(context)
        self._start = context.frozen(context.received, self._start)
        labelled = context.share.tasks[context.scope.task - 1].labelled
        features, rows = context.features(labelled), context.rows(labelled)
        sums = features.new_zeros(len(context.scope.seen), features.shape[1]).index_add_(0, rows, features)
        self._means = functional.normalize(sums, dim=1) if len(set(rows.tolist())) > 1 else None

    def _judge(self, context: LocalContext, images: Tensor) -> PseudoLabels:
        own = within(context.network(images), self._barred(context.scope))
        helpers = own.new_zeros(0, *own.shape)
        if self._means is not None and self._start is not None:
            cosines = nearest_mean_scores(self._start.features(images), self._means)
            helpers = within(SHARPNESS * cosines, self._barred(context.scope)).unsqueeze(0)
        return agreed(own, helpers, "votes", self.parameters.threshold)


class InformedHelpers(Helpers):
    """Helpers of which only those are asked that know two of the classes: of one alone anybody is certain."""

    def begin(self, context: LocalContext, barred: int = 0) -> None:
        """Make those ready."""
        super().begin(context, barred)
        knowing = [int((~silent).sum()) > 1 for silent in self._silent]
        self._networks = [network for network, good in zip(self._networks, knowing, strict=True) if good]
        self._silent = [silent for silent, good in zip(self._silent, knowing, strict=True) if good]


class Informed(SemiFci):
    """semifci with `InformedHelpers`."""

    def __init__(self, parameters: SemiFciParameters) -> None:
        super().__init__(parameters)
        self.helpers = InformedHelpers()
