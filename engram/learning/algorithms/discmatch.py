"""discmatch: engram's own answer to scarce labels, an icarl all of whose parts use unlabelled data.

To icarl (exemplars, distillation from the last task's model) it adds, each with a switch of its own:

- pseudo-labels as in FixMatch (Sohn et al. 2020), among the classes of the current task only: what arrives
  in a task is of its classes, so old classes' bias cannot win, and most guesses are right;
- distillation on the unlabelled images too, which are many more than the exemplars;
- exemplars with pseudo-labels where labelled samples leave room in the budget;
- in place of nearest means a linear discriminant over all workers (`discriminant`), from exemplars of old
  classes and all samples of new ones.

Its setting was chosen on seeds 10 to 14 of fashion-fcil-20; docs/benchmark.md has what each part is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from engram.data.types import Indices, WorkerShare
from engram.federation.messages import EMPTY, Consolidated, Shared, Tensors
from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, LocalContext, Network, TaskScope
from engram.learning.algorithms.icarl import MEANS, SUMS, class_means, nearest_mean_scores
from engram.learning.discriminant import (
    COUNTS,
    check_moments,
    discriminant,
    discriminant_scores,
    moments_of,
    total,
)
from engram.learning.guesses import guessed, joined, remember
from engram.learning.memory import Memory
from engram.learning.pseudo import PseudoLabels, agreed, within
from engram.learning.self_training import SelfTraining
from engram.learning.teacher import Teacher
from engram.learning.tensors import HEAD_WEIGHT, prefixed, unprefixed
from engram.spec.algorithms import DiscMatchParameters
from engram.spec.base import Spec

GROUP = "classifier"


class DiscMatch(Algorithm):
    """Exemplars, distillation, task-wise pseudo-labels and a discriminant over all workers."""

    Parameters: ClassVar[type[Spec]] = DiscMatchParameters

    def __init__(self, parameters: DiscMatchParameters) -> None:
        super().__init__(parameters)
        self.parameters = parameters
        self.memory = Memory(parameters.exemplars_per_worker)
        self.training = SelfTraining(parameters)
        self.teacher = Teacher(parameters.temperature)
        self.classifier: Tensors = {}

    # Worker's side

    def unlabelled(self, share: WorkerShare, task: int, round: int) -> Indices:
        """Return the task's unlabelled samples, after the warm-up."""
        return self.training.used(share.tasks[task - 1].unlabelled, round)

    def begin_round(self, context: LocalContext) -> None:
        """Make the teacher ready."""
        self.training.begin()
        self.teacher.begin(context)

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return cross-entropy + distillation + the loss on pseudo-labels."""
        passed = self.training.forward(context, batch, lambda images: self._judge(context, images))
        distillation = self.teacher.loss(passed.labelled, batch.images)
        if self.parameters.distil_unlabelled:
            distillation = distillation + self.teacher.loss(passed.unlabelled, passed.strong)
        classification = losses.cross_entropy(passed.labelled, batch.targets)
        return classification + self.parameters.strength * distillation + passed.loss

    def _barred(self, scope: TaskScope) -> int:
        """Return how many of the first rows no pseudo-label may name."""
        return scope.old if self.parameters.candidates == "task" else 0

    def _judge(self, context: LocalContext, images: Tensor) -> PseudoLabels:
        """Return what weakly augmented unlabelled images are taken for."""
        own = within(context.network(images), self._barred(context.scope))
        return agreed(own, own.new_zeros(0, *own.shape), "votes", self.parameters.threshold)

    def end_round(self, context: LocalContext) -> Tensors:
        """Report how pseudo-labels did."""
        self.training.report(context)
        return EMPTY

    def consolidate(self, context: LocalContext) -> Tensors:
        """Choose exemplars; return the moments of every class's features."""
        scope = context.scope
        labelled = context.by_class(self.labelled(context.share, scope.task))
        pool = joined(labelled, guessed(context, self._barred(scope)))
        remember(self.memory, context, pool if self.parameters.pseudo_exemplars else labelled, labelled)
        exemplars = self.memory.positions
        if self.parameters.classifier == "means":
            pool = {}
        nothing = np.empty(0, np.int64)
        samples = [pool.get(label, exemplars.get(label, nothing)) for label in scope.seen]
        return moments_of([context.features(found) for found in samples], scope.old).tensors()

    # Aggregator's side

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send the teacher with training rounds, and the classifier where it belongs to the current model."""
        groups = dict(self.teacher.shared(round))
        if round == 0 and self.classifier and len(next(iter(self.classifier.values()))) == len(scope.seen):
            groups[GROUP] = self.classifier
        return groups

    def check_results(self, scope: TaskScope, weights: Tensors, results: Tensors) -> None:
        """Refuse what cannot be moments."""
        rows, size = weights[HEAD_WEIGHT].shape
        if results:
            check_moments(results, rows, size, scope.old)

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Make the classifier of all workers' moments; keep the teacher."""
        sent = [result.results for result in results.values() if COUNTS in result.results]
        self.classifier = {}
        if sent and self.parameters.classifier == "means":
            self.classifier = {MEANS: class_means([part[SUMS] for part in sent])}
        elif sent:
            self.classifier = discriminant(total(sent), scope.old, self.parameters.shrinkage)
        self.teacher.keep(weights)
        return weights

    def aggregator_state(self) -> Tensors:
        """Return teacher and classifier."""
        return {**self.teacher.state(), **prefixed(GROUP, self.classifier)}

    def restore_aggregator(self, state: Tensors) -> None:
        """Take teacher and classifier back."""
        self.teacher.restore(state)
        self.classifier = unprefixed(GROUP, state)

    def scores(self, network: Network, images: Tensor, groups: Shared) -> Tensor:
        """Return the classifier's scores; in the middle of a task, where there is none yet, the head's."""
        classifier = groups.get(GROUP)
        if classifier is None:
            return super().scores(network, images, groups)
        features = network.features(images)
        if MEANS in classifier:
            return nearest_mean_scores(
                features, torch.from_numpy(np.array(classifier[MEANS])).to(images.device)
            )
        return discriminant_scores(features, classifier)
