"""Training on pseudo-labels beside labelled samples, inside the same steps: how algorithms use unlabelled
data (Sohn et al. 2020, "FixMatch", algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engram.data.types import Indices
from engram.learning.context import Batch, LocalContext
from engram.learning.pseudo import PseudoLabelCount, PseudoLabels, agreed, consistency
from engram.spec.algorithms import PseudoLabelParameters


class Passed(NamedTuple):
    """A batch that has gone through the network."""

    labelled: Tensor
    """Logits of the labelled images [b, rows]."""
    unlabelled: Tensor
    """Logits of the strongly augmented unlabelled ones [u, rows]."""
    strong: Tensor
    """Those images."""
    loss: Tensor
    """The weighted loss on their pseudo-labels."""


class SelfTraining:
    """Says when unlabelled samples are used, and what it costs to disagree with their pseudo-labels."""

    def __init__(self, parameters: PseudoLabelParameters) -> None:
        self._parameters = parameters
        self._count = PseudoLabelCount()

    def used(self, unlabelled: Indices, round: int) -> Indices:
        """Return `unlabelled`; none in the warm-up rounds, or where their loss weighs nothing."""
        return unlabelled if self.active(round) else np.empty(0, np.int64)

    def active(self, round: int) -> bool:
        """Return whether a round of a task uses unlabelled samples."""
        return self._parameters.unlabelled_weight > 0 and round > self._parameters.warmup_rounds

    def begin(self) -> None:
        """Start counting a round."""
        self._count = PseudoLabelCount()

    def forward(
        self,
        context: LocalContext,
        batch: Batch,
        judge: Callable[[Tensor], PseudoLabels],
        offset: Tensor | None = None,
    ) -> Passed:
        """Pass a batch through the network, labelled and unlabelled images together.

        `judge` is asked without gradient what weakly augmented images are; the strongly augmented ones are
        to be taken for the same. The loss on these sees the logits plus `offset` [rows], if there is one.
        """
        labelled = len(batch.images)
        if len(batch.unlabelled) == 0:
            logits: Tensor = context.network(batch.images)
            return Passed(logits, logits[labelled:], batch.unlabelled, logits.new_zeros(()))
        with torch.no_grad():
            pseudo = judge(context.weak(batch.unlabelled))
        self._count.add(pseudo, batch.hidden)
        strong = context.strong(batch.unlabelled)
        logits = context.network(torch.cat([batch.images, strong]))
        seen = logits[labelled:] if offset is None else logits[labelled:] + offset
        loss = self._parameters.unlabelled_weight * consistency(seen, pseudo)
        return Passed(logits[:labelled], logits[labelled:], strong, loss)

    def own_opinion(self, context: LocalContext, images: Tensor) -> PseudoLabels:
        """Return what the network in training takes images for: FixMatch's pseudo-labels."""
        own = context.network(images).float().softmax(dim=1)
        return agreed(own, own.new_zeros(0, *own.shape), "votes", self._parameters.threshold)

    def report(self, context: LocalContext) -> None:
        """Add how pseudo-labels did to the round's metrics."""
        context.metrics.update(self._count.metrics())
