"""The base class of every algorithm, built in or a user's own: federated fine-tuning, with a hook at every
place where published methods differ from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from engram.data.types import Indices, WorkerShare
from engram.federation.messages import EMPTY, Consolidated, Shared, Tensors, Update
from engram.learning import losses
from engram.learning.context import Batch, GlobalContext, LocalContext, TaskScope
from engram.learning.memory import Memory
from engram.learning.models import Network
from engram.spec.algorithms import NoParameters
from engram.spec.base import Spec

__all__ = ["Algorithm", "Batch", "GlobalContext", "LocalContext", "Network", "TaskScope"]


class Algorithm:
    """A federated class-incremental algorithm. As it stands it is `finetune`; override what differs.

    A file of your own beside the job file is enough:

        # my_method.py
        from engram.learning.algorithm import Algorithm, Batch, LocalContext
        from engram.learning.losses import cross_entropy
        from engram.spec.base import Spec
        from pydantic import Field

        class SmoothedParameters(Spec):
            smoothing: float = Field(0.1, ge=0, lt=1)

        class Smoothed(Algorithm):
            Parameters = SmoothedParameters          # checks spec.algorithm.parameters

            def __init__(self, parameters: SmoothedParameters) -> None:
                super().__init__(parameters)
                self.smoothing = parameters.smoothing

            def loss(self, context: LocalContext, batch: Batch):
                logits = context.network(batch.images)
                spread = -logits.log_softmax(1).mean()
                return (1 - self.smoothing) * cross_entropy(logits, batch.targets) + self.smoothing * spread

    and in the job `algorithm: {name: "my_method:Smoothed", parameters: {smoothing: 0.2}}`.

    One object is made on each worker and one on the aggregator; they share nothing but what the hooks
    exchange. In the order of a task:

    =============  ============================  =======================================================
    where          hook                          when
    =============  ============================  =======================================================
    aggregator     begin_run                     once, before all else
    aggregator     shared                        before weights go to a worker
    worker         labelled, unlabelled          which samples this round trains on
    worker         begin_round                   the network holds the received global weights
    worker         loss                          every local step
    worker         end_round                     after the last step; what it returns is `Update.info`
    aggregator     check_info                    an update is in; may refuse it
    aggregator     server_step                   the round's weights are aggregated; may correct them
    aggregator     close_round                   the round has its new weights
    worker         consolidate                   all rounds are done; the network is the final global one
    aggregator     check_results                 a worker's results are in; may refuse them
    aggregator     close_task                    all consolidated; may correct the final weights
    either         scores                        evaluation: how features become a prediction
    =============  ============================  =======================================================

    Exemplars: set `self.memory = Memory(budget)` in `__init__`; the worker then trains on labelled samples
    and exemplars together, and the base class's `consolidate` chooses them by herding.

    State: what must survive a round belongs in `worker_state` (at most 256 KiB; the base class keeps the
    exemplars there) or in `aggregator_state`. Everything else may be lost when a pod is replaced, so set it
    anew in `begin_round`. Random numbers come from `context.generator(purpose)`, never from a global
    generator. Keep arrays by value (`engram.learning.tensors.copied`): the caller may reuse its own.
    """

    Parameters: ClassVar[type[Spec]] = NoParameters
    """Type of `spec.algorithm.parameters`."""
    wants_models: bool = False
    """Whether `server_step` and `close_round` get the workers' trained weights; the aggregator then holds a
    model a worker."""
    vectorised: ClassVar[bool] = False
    """Whether `engram run --batched` may take `loss` for several workers at once, by torch.func: where it is
    one and the same function of network and batch for all of them, made of operations that torch.vmap knows,
    and keeps nothing and draws nothing. A class that overrides `loss` says so anew."""

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "loss" in vars(cls) and "vectorised" not in vars(cls):
            cls.vectorised = False

    def __init__(self, parameters: Spec) -> None:
        self.memory = Memory(0)

    # Worker's side

    def labelled(self, share: WorkerShare, task: int) -> Indices:
        """Return the positions of the labelled samples that `task` (from 1) trains on, without exemplars.

        A worker for which this is empty, and which uses no unlabelled data either, takes no part in the
        task's rounds.
        """
        return share.tasks[task - 1].labelled

    def unlabelled(self, share: WorkerShare, task: int, round: int) -> Indices:
        """Return the positions of the unlabelled samples that this round's loss uses (default: none).

        Each step then carries `batchSize` of them in addition to the labelled batch.
        """
        return np.empty(0, np.int64)

    def begin_round(self, context: LocalContext) -> None:
        """Prepare a round; `context.network` holds the received weights."""

    def loss(self, context: LocalContext, batch: Batch) -> Tensor:
        """Return the loss of one step, a scalar to minimise."""
        return losses.cross_entropy(context.network(batch.images), batch.targets)

    def end_round(self, context: LocalContext) -> Tensors:
        """Return what `server_step` and `close_round` shall learn of this worker's round, as named arrays."""
        return EMPTY

    def consolidate(self, context: LocalContext) -> Tensors:
        """End a task on the worker, with the final global model in `context.network`.

        Returns what `close_task` shall get, as named arrays. The base class chooses exemplars of the task's
        classes among the worker's labelled samples, where the algorithm has a memory.
        """
        if self.memory.budget:
            positions = self.labelled(context.share, context.scope.task)
            candidates = {
                label: (found, context.features(found))
                for label, found in context.by_class(positions).items()
            }
            self.memory.learn(candidates, len(context.scope.seen))
        return EMPTY

    def worker_state(self) -> Tensors:
        """Return what the worker must keep over tasks, as named arrays (at most 256 KiB compressed)."""
        return self.memory.state() if self.memory.budget else EMPTY

    def restore_worker(self, state: Tensors) -> None:
        """Take over what `worker_state` returned at the end of an earlier task; empty: start afresh."""
        self.memory.restore(state)

    # Aggregator's side

    def begin_run(self, context: GlobalContext) -> None:
        """Take what the aggregator's hooks may use: networks, generators, the workers' names.

        The base class keeps nothing of it.
        """

    def shared(self, worker: str, scope: TaskScope, round: int) -> Shared:
        """Return named groups of arrays that go to `worker` beside the weights.

        `round` is 0 for consolidation and for evaluation after it. `worker` is empty when the same goes to
        all; a group that a worker already has is not sent again.
        """
        return {}

    def check_info(self, scope: TaskScope, weights: Tensors, info: Tensors) -> None:
        """Raise ValueError, which says why, unless `server_step` and `close_round` can use what a worker's
        `end_round` returned; such a worker is told so, and its update is left out.

        As with `check_results`, a worker may send anything, nothing too. The base class takes it all.
        """

    def server_step(
        self,
        scope: TaskScope,
        round: int,
        before: Tensors,
        weights: Tensors,
        updates: Mapping[str, Update],
    ) -> Tensors:
        """Return the round's new weights: `weights`, which the aggregation rule made of the updates, or a
        correction of them, with the same names, dtypes and shapes.

        `before` are the weights that the round started from. `updates` are those of `close_round`. A round
        in which nobody took part has no server step.
        """
        return weights

    def close_round(
        self, scope: TaskScope, round: int, weights: Tensors, updates: Mapping[str, Update]
    ) -> None:
        """Learn of a round's new global weights and of the updates' metrics and `info`, by worker.

        Their weights are there only where `wants_models` is true, read-only; a worker that took no part has
        none.
        """

    def check_results(self, scope: TaskScope, weights: Tensors, results: Tensors) -> None:
        """Raise ValueError, which says why, unless `close_task` can use what a worker's `consolidate`
        returned; such a worker is told so, and its results are left out.

        A worker may send anything: what is not refused here must not fail in `close_task`. Values that are
        not finite are refused already. The base class takes anything, as it looks at nothing.
        """

    def close_task(self, scope: TaskScope, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        """Take in what the workers' `consolidate` returned; return the task's final weights.

        They are `weights` or a correction of them; they are what is evaluated and what the next task starts
        from.
        """
        return weights

    def aggregator_state(self) -> Tensors:
        """Return what the aggregator's side must keep over a restart, as named arrays."""
        return EMPTY

    def restore_aggregator(self, state: Tensors) -> None:
        """Take over what `aggregator_state` returned."""

    # Evaluation, on either side

    def scores(self, network: Network, images: Tensor, groups: Shared) -> Tensor:
        """Return scores [b, seen classes]; the prediction is the class with the largest.

        `groups` is what `shared` returns for round 0.
        """
        logits: Tensor = network(images)
        return logits
