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

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engram.federation.messages import Consolidated, Shared, Tensors, Update
from engram.learning import losses
from engram.learning.algorithm import Batch, GlobalContext, LocalContext, TaskScope
from engram.learning.algorithms.replay import Replay
from engram.learning.best_model import (
    COUNTS,
    BestModel,
    check_counts,
    counted,
    right_of_total,
    validation_samples,
)
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
        self.best = BestModel()
        self.proxy: ProxyServer | None = None
        if parameters.proxy_server == "reconstruct":
            self.proxy = ProxyServer(parameters.prototype_noise)
        self._info: Tensors = {}

    # Worker's side

    def begin_round(self, context: LocalContext) -> None:
        """Make the teacher ready, and what the aggregator chooses the next one by: of the received model,
        before it is trained.
        """
        self.teacher.begin(context)
        if self.proxy is None:
            self._info = self._counted(context)
        else:
            labelled = self.labelled(context.share, context.scope.task)
            self._info = self.proxy.gradients(context, labelled) if context.round == 1 else {}

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
        """Return right and total of the model that the round began with; or, in a task's first round, the
        gradients of prototypes.
        """
        return self._info

    def consolidate(self, context: LocalContext) -> Tensors:
        """Count what the task's last model gets right, then choose exemplars."""
        counts = self._counted(context) if self.proxy is None else {}
        return {**counts, **super().consolidate(context)}

    def _counted(self, context: LocalContext) -> dict[str, NDArray[np.int64]]:
        labelled = self.labelled(context.share, context.scope.task)
        return {COUNTS: right_of_total(context, validation_samples(context, self.memory, labelled))}

    # Aggregator's side

    def begin_run(self, context: GlobalContext) -> None:
        """Hand the proxy server what it needs."""
        if self.proxy is not None:
            self.proxy.begin_run(context)

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Send the old model with training rounds, where it is asked for anything."""
        return self.teacher.shared(round) if self.distillation else {}

    def close_round(
        self, scope: TaskScope, round: int, weights: Tensors, updates: Mapping[str, Update]
    ) -> None:
        """Judge the model that this round began with; a late update tells of an older one.

        The proxy server judges the new one at once.
        """
        infos = [update.info for update in updates.values() if update.round == round]
        if self.proxy is None:
            self._judge(scope, infos)
        self.best.propose(weights)
        if self.proxy is not None:
            for info in infos if round == 1 else []:
                self.proxy.take(scope, info)
            self.best.judge([self.proxy.right_of_total(weights)])

    def _judge(self, scope: TaskScope, sent: Iterable[Tensors]) -> None:
        """Judge the model proposed last by those of the workers' counts that can be."""
        pairs = (counted(answer, self._most(scope)) for answer in sent)
        self.best.judge([pair for pair in pairs if pair is not None])

    def check_results(self, scope: TaskScope, weights: Tensors, results: Tensors) -> None:
        """Refuse counts that cannot be, and what the correction cannot use."""
        if results and self.proxy is None:
            check_counts(results, self._most(scope))
        others = {name: array for name, array in results.items() if name != COUNTS}
        super().check_results(scope, weights, others)

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Judge the last model too; the best of the task becomes the old model of the next.

        Where the last one is, it is kept as corrected.
        """
        final = super().close_task(scope, weights, results)
        self.best.propose(final)
        if self.proxy is None:
            self._judge(scope, [result.results for result in results.values()])
        else:
            self.best.judge([self.proxy.right_of_total(final)])
        self.teacher.keep(self.best.settle() or final)
        return final

    def _most(self, scope: TaskScope) -> int:
        """Return how many samples a worker may count."""
        return self.memory.quota(len(scope.seen)) * len(scope.seen)

    def aggregator_state(self) -> Tensors:
        """Return the old model, within a task the best one so far, and the proxy server's images."""
        images = {} if self.proxy is None else self.proxy.state()
        return {**self.teacher.state(), **self.best.state(), **images}

    def restore_aggregator(self, state: Tensors) -> None:
        """Take them back."""
        self.teacher.restore(state)
        self.best.restore(state)
        if self.proxy is not None:
            self.proxy.restore(state)
