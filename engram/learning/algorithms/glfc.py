"""glfc: global-local forgetting compensation (Dong et al. 2022, "Federated class-incremental learning").

Locally (section 4.1) two losses stand against forgetting. Gradient compensation, L_GC, weighs each sample's
cross-entropy by its gradient |p_i - 1| over the mean of its kind, old or new, so that few exemplars of old
classes pull as much as many new samples do. Relation distillation, L_RD, teaches what the old model says of
the old classes together with the label among the new ones. The loss is lambda_1 L_GC + lambda_2 L_RD; in the
first task, where nothing is old, L_GC alone.

Globally (section 4.2) the old model is the best global model of the last task, not its last. The paper finds
it with images that a proxy server rebuilds from gradients, which leaks by design (`proxy`, opt-in). By
default the workers count instead (`best_model`), and nothing but two numbers leaves them. A new task is what
the job's cursor says: the paper's threshold on a rise of entropy (1.2 nats) could never be met with few
classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from engram.federation.messages import Consolidated, Shared, Tensors, Update
from engram.learning import losses
from engram.learning.algorithm import Batch, GlobalContext, LocalContext, TaskScope
from engram.learning.algorithms.replay import Replay
from engram.learning.best_model import Choice, Counts
from engram.learning.proxy import ProxyServer
from engram.learning.teacher import Teacher
from engram.spec.algorithms import GlfcParameters
from engram.spec.base import Spec


class Glfc(Replay):
    """Gradient compensation and relation distillation from the best model of the last task."""

    Parameters: ClassVar[type[Spec]] = GlfcParameters

    def __init__(self, parameters: GlfcParameters) -> None:
        super().__init__(parameters)
        self.compensates = parameters.gradient_compensation
        self.classification = parameters.classification_strength
        self.distillation = parameters.distillation_strength
        self.teacher = Teacher(temperature=1)
        self.choice: Choice = Counts(self.memory)
        if parameters.proxy_server == "reconstruct":
            self.choice = ProxyServer(parameters.prototype_noise)
        self._info: Tensors = {}

    # Worker's side

    def begin_round(self, context: LocalContext) -> None:
        """Make the teacher ready; look at the received model, before it is trained, for the next choice."""
        self.teacher.begin(context)
        self._info = self.choice.in_round(context, self.labelled(context.share, context.scope.task))

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return lambda_1 L_GC + lambda_2 L_RD; L_GC in the first task."""
        logits = context.network(batch.images)
        weights = self.weights(context.scope, logits, batch.targets) if self.compensates else None
        classification = (
            losses.cross_entropy(logits, batch.targets)
            if weights is None
            else losses.weighted_cross_entropy(logits, batch.targets, weights)
        )
        if context.scope.old == 0:
            return classification
        loss = self.classification * classification
        answers = self.teacher.logits(batch.images)
        if answers is None:
            return loss
        return loss + self.distillation * self.relation(logits, answers, batch.targets, weights)

    def weights(self, scope: TaskScope, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the weight of each sample in L_GC, [b]."""
        return losses.gradient_weights(logits, targets, (targets >= scope.old).long())

    def relation(self, logits: Tensor, answers: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Return L_RD, in which all samples count the same."""
        return losses.relation_distillation(logits, answers, targets)

    def end_round(self, context: LocalContext) -> Tensors:
        """Return what the choice of the old model needs."""
        return self._info

    def consolidate(self, context: LocalContext) -> Tensors:
        """Look at the task's last model too, then choose exemplars."""
        labelled = self.labelled(context.share, context.scope.task)
        sent = self.choice.in_consolidation(context, labelled)
        return {**sent, **super().consolidate(context)}

    # Aggregator's side

    def begin_run(self, context: GlobalContext) -> None:
        """Hand on what the choice of the old model may need."""
        self.choice.begin_run(context)

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send the old model with training rounds, where it is asked for anything."""
        return self.teacher.shared(round) if self.distillation else {}

    def close_round(
        self, scope: TaskScope, round: int, weights: Tensors, updates: Mapping[str, Update]
    ) -> None:
        """Take the new model into the choice; what a late update says is of an older one."""
        sent = [update.info for update in updates.values() if update.round == round]
        self.choice.close_round(scope, round, weights, sent)

    def check_results(self, scope: TaskScope, weights: Tensors, results: Tensors) -> None:
        """Refuse what neither choice nor correction can use."""
        self.choice.check(scope, results)
        super().check_results(scope, weights, results)

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Make the best model of the task the old model of the next; the last one counts as corrected."""
        final = super().close_task(scope, weights, results)
        sent = [result.results for result in results.values()]
        self.teacher.keep(self.choice.close_task(scope, final, sent))
        return final

    def aggregator_state(self) -> Tensors:
        """Return the old model, and how far the choice of the next one is."""
        return {**self.teacher.state(), **self.choice.state()}

    def restore_aggregator(self, state: Tensors) -> None:
        """Take them back."""
        self.teacher.restore(state)
        self.choice.restore(state)
