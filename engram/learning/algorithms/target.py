"""target: distillation on synthetic images of the old classes (Zhang et al. 2023, "TARGET: Federated
class-continual learning via exemplar-free distillation"). Experimental.

When a task ends, the aggregator makes images out of the global model alone. A generator G, which is told a
label beside the noise, minimises (equations 5 to 9)

    L_G = CE(teacher(x), y) - lambda_1 w KL(teacher(x) || student(x))
          + lambda_2 sum_l ( ||mu_l(x) - mu_l|| + ||sigma^2_l(x) - sigma^2_l|| ),     x = G(z, y)

with w = 1 where teacher and student predict different classes, else 0, and the statistics that the teacher's
BatchNorm layers keep; the student then learns KL(teacher(x) || student(x)) on all images so far (equation
10). The teacher is the task's final model. Workers of the next task add to the loss on their own samples
(equation 11)

    alpha KL(teacher(x) || model(x)) on synthetic x, old rows, with temperature T and the factor T^2.

In the authors' code w is the other way round; here it is as in equation 7. In the paper the label is not an
input of G; as one, a generator that is trained for few steps keeps what it has learned of a class.
`newRowsOnly` takes the cross-entropy of equation 11 among the task's own classes, as the authors' code does;
false takes it among all classes seen. Images travel as a byte a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from engram.federation.messages import Consolidated, Shared, Tensors
from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, GlobalContext, LocalContext, TaskScope
from engram.learning.synthesis.inversion import Inversion, packed, unpacked
from engram.learning.synthesis.priors import Watched
from engram.learning.teacher import Teacher
from engram.learning.tensors import prefixed, unprefixed
from engram.spec.algorithms import TargetParameters
from engram.spec.base import Spec

GROUP = "synthetic"


class Target(Algorithm):
    """Adds alpha x distillation of the last task's model on synthetic images to every step's loss."""

    Parameters: ClassVar[type[Spec]] = TargetParameters

    def __init__(self, parameters: TargetParameters) -> None:
        super().__init__(parameters)
        self.parameters = parameters
        self.teacher = Teacher(parameters.temperature)
        self.synthetic: Tensors = {}
        self._images = torch.empty(0)
        self._draws = torch.Generator()

    # Worker's side

    def begin_round(self, context: LocalContext) -> None:
        """Make teacher and images ready."""
        self.teacher.begin(context)
        given = context.shared.get(GROUP)
        self._images = unpacked(given) if given else torch.empty(0)
        self._draws = context.generator("synthetic")

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return cross-entropy on the worker's samples + alpha x distillation on synthetic ones."""
        first = context.scope.old if self.parameters.new_rows_only else 0
        logits = context.network(batch.images)
        loss = losses.cross_entropy(logits[:, first:], batch.targets - first)
        if len(self._images) == 0:
            return loss
        images = context.weak(self._sample())
        return loss + self.parameters.strength * self.teacher.loss(context.network(images), images)

    def _sample(self) -> Tensor:
        """Return images for one step."""
        size = (self.parameters.synthetic_batch,)
        index = torch.randint(len(self._images), size, generator=self._draws)
        return self._images[index.to(self._images.device)]

    # Aggregator's side

    def begin_run(self, context: GlobalContext) -> None:
        """Keep the context; refuse a model without BatchNorm layers before anything trains."""
        self._context = context
        Watched(context.make_network(1))

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send teacher and images with training rounds."""
        if round == 0 or not self.synthetic:
            return {}
        return {**self.teacher.shared(round), GROUP: self.synthetic}

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Make images for the next task, unless there is none or their loss has no weight."""
        if scope.task < self._context.tasks and self.parameters.strength:
            self.teacher.keep(weights)
            self.synthetic = packed(Inversion(self._context, self.parameters, scope.task, weights).run())
        return weights

    def aggregator_state(self) -> Tensors:
        """Return teacher and images."""
        return {**self.teacher.state(), **prefixed(GROUP, self.synthetic)}

    def restore_aggregator(self, state: Tensors) -> None:
        """Take teacher and images back."""
        self.teacher.restore(state)
        self.synthetic = unprefixed(GROUP, state)
