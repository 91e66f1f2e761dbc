"""fedlwf: learning without forgetting in a federation (Li and Hoiem 2016, equations 1 to 3; federated as in
Usmanova et al. 2021, "A distillation-based approach integrating continual learning and federated learning").

The teacher is the global model at the end of the last task. Without exemplars the old classes see no samples
of their own, so in class-incremental runs this helps little: it is a baseline.

With `unlabelled` the teacher is also asked about images without labels: distillation never looked at labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from engram.data.types import Indices, WorkerShare
from engram.federation.messages import Consolidated, Shared, Tensors
from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, LocalContext, TaskScope
from engram.learning.teacher import Teacher
from engram.spec.algorithms import FedLwfParameters
from engram.spec.base import Spec


class FedLwf(Algorithm):
    """Adds lambda x distillation (T^2 KL on the old rows) to every step's loss."""

    Parameters: ClassVar[type[Spec]] = FedLwfParameters
    vectorised = True

    def __init__(self, parameters: FedLwfParameters) -> None:
        super().__init__(parameters)
        self.strength = parameters.strength
        self.with_unlabelled = parameters.unlabelled
        self.teacher = Teacher(parameters.temperature)

    def unlabelled(self, share: WorkerShare, task: int, round: int) -> Indices:
        """Return the task's unlabelled samples where they are wanted and there is a teacher."""
        if self.with_unlabelled and task > 1:
            return share.tasks[task - 1].unlabelled
        return super().unlabelled(share, task, round)

    def begin_round(self, context: LocalContext) -> None:
        """Make the teacher ready."""
        self.teacher.begin(context)

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return cross-entropy + lambda x distillation, the mean over all images of the step."""
        images = batch.images
        if len(batch.unlabelled):
            images = torch.cat([images, context.weak(batch.unlabelled)])
        logits = context.network(images)
        loss = losses.cross_entropy(logits[: len(batch.targets)], batch.targets)
        return loss + self.strength * self.teacher.loss(logits, images)

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send the teacher with training rounds."""
        return self.teacher.shared(round)

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Keep the task's final weights as the teacher of the next task."""
        self.teacher.keep(weights)
        return weights

    def aggregator_state(self) -> Tensors:
        """Return the teacher."""
        return self.teacher.state()

    def restore_aggregator(self, state: Tensors) -> None:
        """Take the teacher back."""
        self.teacher.restore(state)
