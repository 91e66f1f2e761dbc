"""mfcl: a generator of old classes' images on every worker, which keeps nothing of its own (Babakniya et al.
2023, "A data-free approach to mitigate catastrophic forgetting in federated class incremental learning for
vision tasks"). Experimental.

When a task ends, the aggregator trains a generator G of images x = G(z) on the global model alone, going on
from the last task's generator. It minimises

    L_CE + w_div L_div + w_BN L_BN + w_pr L_pr                                       (aggregator)
    L_CE   cross-entropy of the model's answer to x against its own most likely class
    L_div  minus the entropy of the mean of the answers (all classes equally often), normalised
    L_BN   KL of the normal distributions that the model's BatchNorm layers keep and see
    L_pr   squared difference between x and a Gaussian blur of x

Workers of later tasks take synthetic x' = G(z), whose label y' is the old model's most likely class, beside
their own (x, y) through the network in one batch, with features f, head h and old features and head f_o, h_o:

    L = CE(h(f(x)) on new rows, y) + w_FT CE(h(f) with f held, on all rows, (y, y')) + w_KD L_KD    (worker)
    L_KD = mean || W_o (f - f_o) ||^2 / old rows, over x and x', with W_o the rows of h_o

New rows only, so that the new classes are not learned against the old; the head alone learns to tell them
apart; and features may move where the old head does not look. The terms and their names are the paper's; the
defaults of w_div, w_FT and w_KD are those of the authors' code, in which L_CE hardly counts (it divides the
logits by 1000). BatchNorm's statistics are pooled over workers where they are averaged
(`engram.federation.aggregation.statistics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from engram.federation.messages import Consolidated, Shared, Tensors
from engram.learning import losses
from engram.learning.algorithm import Algorithm, Batch, GlobalContext, LocalContext, Network, TaskScope
from engram.learning.synthesis import ImageGenerator, Watched
from engram.learning.synthesis.generative import train_generator
from engram.learning.synthesis.network import noise, received_generator
from engram.learning.teacher import GROUP as TEACHER
from engram.learning.tensors import copied, prefixed, unprefixed
from engram.spec.algorithms import MfclParameters
from engram.spec.base import Spec

GENERATOR = "generator"


class Mfcl(Algorithm):
    """Split cross-entropy on the worker's samples; head and features remember by synthetic ones."""

    Parameters: ClassVar[type[Spec]] = MfclParameters

    def __init__(self, parameters: MfclParameters) -> None:
        super().__init__(parameters)
        self.parameters = parameters
        self.groups: dict[str, Tensors] = {}
        """What workers get: generator and old model."""
        self._old: Network | None = None
        self._generator: ImageGenerator | None = None
        self._draws = torch.Generator()

    # Worker's side

    def begin_round(self, context: LocalContext) -> None:
        """Make generator and old model ready."""
        groups = context.groups
        self._old = self._generator = None
        if GENERATOR in groups:
            self._old = context.frozen(groups[TEACHER])
            self._generator = received_generator(context, self.parameters, groups[GENERATOR])
        self._draws = context.generator("synthetic")

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return the worker's loss; without an old model (or weights of its terms) the first term only."""
        old_rows, network = context.scope.old, context.network
        new_targets = batch.targets - old_rows
        if self._old is None or self._generator is None:
            return losses.cross_entropy(network(batch.images)[:, old_rows:], new_targets)
        count = len(batch.images)
        with torch.no_grad():
            images = torch.cat([batch.images, self._made(self._generator)])
            old_features = self._old.features(images)
            made_targets = self._old.head(old_features[count:]).argmax(1)
        features = network.features(images)
        own = network.head(features[:count])
        loss = losses.cross_entropy(own[:, old_rows:], new_targets)
        targets = torch.cat([batch.targets, made_targets])
        fine = losses.cross_entropy(network.head(features.detach()), targets)
        kept = weighted_distance(features, old_features, self._old.head.weight)
        return loss + self.parameters.fine_tuning * fine + self.parameters.distillation * kept

    def _made(self, generator: ImageGenerator) -> Tensor:
        """Return synthetic images for one step."""
        count, size = self.parameters.synthetic_batch, self.parameters.noise_size
        made: Tensor = generator(noise(count, size, self._draws, generator.project.weight.device))
        return made

    # Aggregator's side

    def begin_run(self, context: GlobalContext) -> None:
        """Keep the context; refuse a model without BatchNorm layers before anything trains."""
        self._context = context
        Watched(context.make_network(1))

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send generator and old model with training rounds."""
        return self.groups if round > 0 else {}

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Train the generator for the next task, unless there is none or nothing would come of it."""
        parameters = self.parameters
        wanted = parameters.fine_tuning or parameters.distillation
        if scope.task < self._context.tasks and wanted:
            before = self.groups.get(GENERATOR, {})
            trained = train_generator(self._context, parameters, scope.task, weights, before)
            self.groups = {GENERATOR: trained, TEACHER: copied(weights)}
        return weights

    def aggregator_state(self) -> Tensors:
        """Return generator and old model."""
        state: dict[str, Tensors] = {name: prefixed(name, group) for name, group in self.groups.items()}
        return {name: array for group in state.values() for name, array in group.items()}

    def restore_aggregator(self, state: Tensors) -> None:
        """Take generator and old model back."""
        found = {name: unprefixed(name, state) for name in (GENERATOR, TEACHER)}
        self.groups = {name: group for name, group in found.items() if group}


def weighted_distance(features: Tensor, old_features: Tensor, old_head: Tensor) -> Tensor:
    """Return mean_i || W_o (f_i - f_o,i) ||^2 / rows, W_o [rows, d]: what the old head sees of a change."""
    seen = (features - old_features).float() @ old_head.float().T
    return seen.square().mean()
