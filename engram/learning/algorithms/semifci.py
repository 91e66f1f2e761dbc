"""semifci: federated class-incremental learning under label scarcity, section 3.4 of the project's proposal.

L = lambda_1 L_u + lambda_2 L_C + lambda_3 L_F:

- L_u: cross-entropy of strongly augmented unlabelled images against pseudo-labels on which the own model and
  H helper models (`helpers`) agree (`pseudo.agreed`);
- L_C: class-forgetting compensation, the cross-entropy of labelled samples and exemplars in balance between
  old and new classes (`compensation`);
- L_F: feature fusion, distillation of the best old model's answers on the old rows.

Exemplars and the correction of the head are those of `replay`. With H = 0 pseudo-labels are FixMatch's;
with lambda_2 = lambda_3 = 0 the algorithm is `replay` with pseudo-labels, and without these `replay`.

To the letter of the proposal it was not above `replay`, and below it where labels are fewest or all visible.
By default it departs from it in three points, each with a switch (what they are worth: docs/algorithms.md):

- `compensation: prevalence`. The proposal's gradient weights, those of `glfc` (Dong et al. 2022), have mean 1
  among old samples and among new ones, so they change who pulls within a kind and nothing between the kinds.
  What makes a head forget is that new classes come more often, in labelled images and more so in unlabelled
  ones; so new rows have an offset for just that in L_C and L_u.
- `candidates: task`. Unlabelled images are of the task's classes, so pseudo-labels name no others.
- `pseudoExemplars`. With few labels the budget of exemplars stays empty; unlabelled samples fill it, under
  the class that the task's final model takes them for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from engram.data.types import Indices, WorkerShare
from engram.federation.messages import EMPTY, Consolidated, Shared, Tensors, Update
from engram.learning import losses
from engram.learning.algorithm import Batch, GlobalContext, LocalContext, TaskScope
from engram.learning.algorithms.replay import Replay
from engram.learning.compensation import prevalence_offset
from engram.learning.guesses import guessed, joined, remember
from engram.learning.helpers import KNOWN, HelperChoice, Helpers
from engram.learning.pseudo import AdaptiveThreshold, PseudoLabels, agreed, within
from engram.learning.self_training import SelfTraining
from engram.learning.teacher import Teacher
from engram.learning.tensors import prefixed, unprefixed
from engram.spec.algorithms import FedCiMatchParameters, SemiFciParameters
from engram.spec.base import Spec

HELPERS = "helpers"


class SemiFci(Replay):
    """Pseudo-labels agreed on with helpers, compensated loss, fusion with the best old model."""

    Parameters: ClassVar[type[Spec]] = SemiFciParameters

    def __init__(self, parameters: SemiFciParameters) -> None:
        super().__init__(parameters)
        self.parameters = parameters
        self.wants_models = parameters.helpers > 0
        self.training = SelfTraining(parameters)
        self.teacher = Teacher(parameters.temperature)
        self.choice = HelperChoice(parameters.helpers, parameters.helper_choice)
        self.helpers = Helpers()
        self.adaptive: AdaptiveThreshold | None = None
        self.offset: Tensor | None = None

    # Worker's side

    def unlabelled(self, share: WorkerShare, task: int, round: int) -> Indices:
        """Return the task's unlabelled samples, after the warm-up."""
        return self.training.used(share.tasks[task - 1].unlabelled, round)

    def begin_round(self, context: LocalContext) -> None:
        """Make teacher and helpers ready."""
        self.training.begin()
        self.teacher.begin(context)
        self.helpers.begin(context, self._barred(context.scope))
        self.offset = self._offset(context)
        if self.parameters.thresholds == "adaptive":
            rows = len(context.scope.seen)
            self.adaptive = AdaptiveThreshold(self.parameters.threshold, rows, context.device)

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return lambda_1 L_u + L_C + lambda_3 L_F."""
        judge = partial(self._judge, context)
        passed = self.training.forward(context, batch, judge, self.offset)
        loss = passed.loss + self._classification(context.scope, passed.labelled, batch.targets)
        if self.parameters.fusion_weight:
            loss = loss + self.parameters.fusion_weight * self.teacher.loss(passed.labelled, batch.images)
        return loss

    def _offset(self, context: LocalContext) -> Tensor | None:
        """Return what the rows get in training [rows], lambda_2 times what balances old and new classes."""
        if self.parameters.compensation != "prevalence" or self.parameters.compensation_weight == 0:
            return None
        scope = context.scope
        labelled, exemplars = self.labelled(context.share, scope.task), self.memory.all()
        unlabelled = self.unlabelled(context.share, scope.task, context.round)
        counts = self.parameters.unlabelled_weight if len(unlabelled) else 0.0
        offset = torch.zeros(len(scope.seen), device=context.device)
        offset[scope.old :] = self.parameters.compensation_weight * prevalence_offset(
            scope, len(labelled), len(exemplars), counts
        )
        return offset

    def _classification(self, scope: TaskScope, logits: Tensor, targets: Tensor) -> Tensor:
        if self.offset is not None:
            return losses.cross_entropy(logits + self.offset, targets)
        weight = self.parameters.compensation_weight
        loss = losses.cross_entropy(logits, targets)
        if self.parameters.compensation == "prevalence" or weight == 0 or len(targets) == 0:
            return loss
        weights = losses.gradient_weights(logits, targets, (targets >= scope.old).long())
        return weight * losses.weighted_cross_entropy(logits, targets, weights) + (1 - weight) * loss

    def _barred(self, scope: TaskScope) -> int:
        """Return how many of the first rows no pseudo-label may name."""
        return scope.old if self.parameters.candidates == "task" else 0

    def _judge(self, context: LocalContext, images: Tensor) -> PseudoLabels:
        """Return what weakly augmented unlabelled images are taken for."""
        own = within(context.network(images), self._barred(context.scope))
        others = self.helpers.probabilities(images, own.shape[1])
        threshold: float | Tensor = self.parameters.threshold
        if self.adaptive is not None:
            self.adaptive.learn(own)
            threshold = self.adaptive.thresholds()
        return agreed(own, others, self.parameters.agreement, threshold)

    def end_round(self, context: LocalContext) -> Tensors:
        """Report how pseudo-labels did; return of which rows this worker has had labels."""
        self.training.report(context)
        if not self.wants_models:
            return EMPTY
        labels = context.source.labels
        held = [labels[part.labelled] for part in context.share.tasks[: context.scope.task]]
        return {KNOWN: np.isin(np.array(context.scope.seen), np.concatenate(held))}

    def consolidate(self, context: LocalContext) -> Tensors:
        """Choose exemplars, labelled ones first; return what the correction needs."""
        if not self.parameters.keeps_guesses:
            return super().consolidate(context)
        labelled = context.by_class(self.labelled(context.share, context.scope.task))
        pool = joined(labelled, guessed(context, self._barred(context.scope)))
        remember(self.memory, context, pool, labelled)
        return self.correction.consolidate(context)

    # Aggregator's side

    def begin_run(self, context: GlobalContext) -> None:
        """Take what helpers are compared with."""
        self.choice.begin(context)

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send the best old model with training rounds, and each worker its helpers with those that use
        them.
        """
        groups = dict(self.teacher.shared(round)) if self.parameters.fusion_weight else {}
        if self.training.active(round):
            groups |= self.choice.shared(worker, scope, round)
        return groups

    def close_round(
        self, scope: TaskScope, round: int, weights: Tensors, updates: Mapping[str, Update]
    ) -> None:
        """Keep the workers' models as the next round's helpers."""
        self.choice.learn(scope, updates)

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Correct the head; the best old model takes in the task's final one."""
        self.choice.forget()
        final = super().close_task(scope, weights, results)
        self.teacher.keep(final, self.parameters.best_momentum)
        return final

    def aggregator_state(self) -> Tensors:
        """Return the best old model and the workers' models."""
        return {**self.teacher.state(), **prefixed(HELPERS, self.choice.state())}

    def restore_aggregator(self, state: Tensors) -> None:
        """Take them back."""
        self.teacher.restore(state)
        self.choice.restore(unprefixed(HELPERS, state))


class FedCiMatch(SemiFci):
    """semifci to the letter of the proposal with H = 0: FixMatch's pseudo-labels, glfc's compensation."""

    Parameters: ClassVar[type[Spec]] = FedCiMatchParameters
