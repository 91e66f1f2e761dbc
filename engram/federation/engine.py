"""The aggregator's heavy half: weights, aggregation rule, global learner, checkpoint and history.

`aggregator` decides with the round machine when each of these steps is due.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from engram.errors import ConfigurationError, ProtocolError
from engram.federation import actions as act
from engram.federation.aggregation import OutOfRange, build
from engram.federation.checkpoint import CheckpointStore, Snapshot, prepared
from engram.federation.clipping import clipped
from engram.federation.compression.arrays import Malformed
from engram.federation.compression.broadcast import Broadcast
from engram.federation.compression.changes import most_bytes, unpack_update
from engram.federation.compression.packer import LOST
from engram.federation.history import History, Observer, RoundRow, TaskRow
from engram.federation.journal import Journal, as_row, summed
from engram.federation.messages import (
    EMPTY,
    Consolidate,
    Consolidated,
    Evaluate,
    Evaluation,
    Order,
    Shared,
    Tensors,
    Train,
    Update,
)
from engram.federation.roles import GlobalLearner
from engram.federation.settings import STATE_BYTES, Settings
from engram.federation.staleness import Versions
from engram.federation.tensors import Buffer, frozen, size_in_bytes
from engram.federation.validation import (
    Unfit,
    check_consolidated,
    check_evaluation,
    check_finite,
    check_like,
    check_update,
)


@dataclass
class Answers:
    """What the workers of the open stage have sent, and who was missing when it closed."""

    updates: dict[str, Update] = field(default_factory=dict)
    """Without their weights, which are in the aggregation rule, unless the learner wants them too."""
    results: dict[str, Consolidated] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    absent: tuple[str, ...] = ()


class Engine:
    """Everything of a run that is kept in its checkpoint, but for the machine's cursor."""

    def __init__(
        self,
        settings: Settings,
        learner: GlobalLearner,
        store: CheckpointStore | None,
        observer: Observer,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Continue from the store's newest checkpoint, or make the model of the first task.

        Raises ConfigurationError (aggregation rule, or a checkpoint of another job) and CheckpointError.
        """
        self._settings, self._learner, self._store, self._observer = settings, learner, store, observer
        self._rule = build(settings.aggregation.name, settings.aggregation_parameters)
        if store is not None:
            self._rule.keep_in(store.directory)
        self._method = settings.method
        self._broadcast = None if self._method is None else Broadcast(settings.aggregation, self._method)
        self._counted: dict[str, tuple[int, int]] = {}
        """(task, round) of each worker's newest update that counts, where compression needs it."""
        buffer = settings.aggregation.buffer
        self._versions = Versions(buffer.max_staleness) if buffer.size else None
        self._timer = timer
        self._unsettled: tuple[RoundRow, list[Buffer]] | None = None
        """A closed round whose checkpoint is to be written."""
        self._answers = Answers()
        self._asked: tuple[str, ...] = ()
        self._common: tuple[tuple[int, int], Shared] | None = None
        self.samples: dict[str, int] = {}
        """What each worker said it holds."""
        self._states: dict[str, bytes] = {}
        self.cursor: act.Cursor | None = None
        """Where the checkpoint says to continue; None without one."""
        found = store.load(settings.job_digest) if store is not None else None
        if found is None:
            self.journal = Journal(History(), observer, timer)
            self.weights: Tensors = self._replaced({}, learner.begin_task(1, None))
            """The global model as it is now; read-only."""
            self._begun = 1
            initial = learner.initial_counts()
            self.journal.history.initial = None if initial is None else as_row(initial)
        else:
            self._resume(*found, observer, timer)

    def _resume(
        self, snapshot: Snapshot, notes: tuple[str, ...], observer: Observer, timer: Callable[[], float]
    ) -> None:
        self.journal = Journal(snapshot.history, observer, timer)
        self.weights, self._begun, self.cursor = snapshot.weights, snapshot.begun, snapshot.cursor
        self._states, self.samples = dict(snapshot.states), dict(snapshot.samples)
        self._learner.restore(snapshot.begun, snapshot.learner)
        self._rule.restore(snapshot.aggregation)
        if self._broadcast is not None:
            self._broadcast.restore(snapshot.owed)
            self.weights = self._broadcast.replaced(snapshot.weights, snapshot.weights)
        for row in snapshot.history.rounds:
            self._count(row)
        snapshot.history.faults.resumes += 1
        for note in notes:
            self.journal.note(note)

    @property
    def split_digest(self) -> str:
        """Digest of the split that every worker must share."""
        return self._learner.split_digest

    def adopt(self, weights: Tensors, samples: Mapping[str, int]) -> None:
        """Begin the open round again with what only its workers know; before its first update is taken.

        `weights` are the model where there is none, `samples` bounds what workers hold.
        """
        self.weights = self.weights or frozen(weights)
        self.samples.update(samples)
        self._begin_rule()

    @property
    def update_bytes(self) -> int:
        """The most bytes of an update's weights."""
        return size_in_bytes(self.weights) if self._method is None else most_bytes(self.weights, self._method)

    # Answers of the open stage, taken in after the machine wants them.

    def take_update(self, worker: str, update: Update) -> None:
        """Validate an update and add it to the round. Raises Unfit, with nothing added."""
        update = self._unpacked(update)
        magnitudes = check_update(update, self.weights, self.samples[worker])
        if update.samples:
            self._ask(self._learner.check_info, update.task, update.info)
        if self._versions is not None:
            update = self._versions.brought_forward(update)
            magnitudes = check_finite(update.weights)
        if update.samples:
            try:
                self._rule.check(update.samples, magnitudes)
            except OutOfRange as error:
                raise Unfit("norm", str(error)) from error
            weights, norm = clipped(update.weights, self.weights, self._settings.aggregation.clip_norm)
            if norm is not None:
                update = replace(update, metrics={**update.metrics, "norm_before_clipping": norm})
            self._rule.add(worker, update.samples, weights)
        # Copied: as a view it would keep the whole message, weights included, until the round is over.
        info = {name: np.array(array) for name, array in update.info.items()}
        kept = update.weights if self._learner.wants_models else EMPTY
        model = frozen({name: np.array(array) for name, array in kept.items()})
        self._answers.updates[worker] = replace(update, weights=model, info=info)

    def _unpacked(self, update: Update) -> Update:
        """Return an update with its whole model. Raises Unfit."""
        if self._method is None or update.samples == 0:
            return update
        try:
            weights = unpack_update(update.weights, self.weights, self._method)
        except Malformed as error:
            raise Unfit(error.reason, str(error)) from error
        return replace(update, weights=weights)

    def take_consolidated(self, worker: str, answer: Consolidated) -> None:
        """Validate what a worker ends the task with and keep it. Raises Unfit."""
        check_consolidated(answer, STATE_BYTES, self.samples[worker])
        self._ask(self._learner.check_results, answer.task, answer.results)
        self._answers.results[worker] = answer

    def _ask(self, check: Callable[[int, Tensors, Tensors], None], task: int, given: Tensors) -> None:
        """Let the learner look at what a worker sent for its algorithm. Raises Unfit."""
        try:
            check(task, self.weights, given)
        except ValueError as error:
            raise Unfit("shape", str(error)) from error

    def take_late_state(self, worker: str, answer: Consolidated) -> None:
        """Keep the state of a worker whose results come too late to count: it is still the worker's own.

        Raises Unfit.
        """
        check_consolidated(answer, STATE_BYTES, self.samples[worker])
        self._states[worker] = answer.state

    def take_evaluation(self, worker: str, answer: Evaluation) -> None:
        """Validate a worker's counts and keep them. Raises Unfit."""
        check_evaluation(answer, self.seen(answer.task), self.seen(len(self._settings.rounds)))
        self._answers.evaluations[worker] = answer

    # What orders carry.

    def state_of(self, worker: str) -> bytes:
        """Return the worker's newest state that was accepted."""
        newest = self._answers.results.get(worker)
        return self._states.get(worker, b"") if newest is None else newest.state

    def seen(self, task: int) -> tuple[int, ...]:
        """Return the label ids of tasks 1..task in learning order."""
        return self._learner.seen(task)

    def shared(self, worker: str, task: int, round: int) -> Shared:
        """Return the groups for all workers, asked for once a stage, and the worker's own."""
        if self._common is None or self._common[0] != (task, round):
            self._common = ((task, round), _fit_to_send(self._learner.shared("", task, round)))
        own = dict(self._learner.shared(worker, task, round))
        if helper := self._rule.shared(worker):
            own["helper"] = helper
        return {**self._common[1], **_fit_to_send(own)}

    def order(self, action: act.SendTrain | act.SendConsolidate | act.SendEvaluate) -> Order:
        """Return an order with the weights as they are."""
        task, seen = action.task, self.seen(action.task)
        if isinstance(action, act.SendConsolidate):
            return Consolidate(task, self.weights, seen, self.shared(action.worker, task, 0))
        shared = self.shared(action.worker, task, action.round)
        if isinstance(action, act.SendEvaluate):
            return Evaluate(task, action.round, self.weights, seen, shared)
        return Train(task, action.round, self.weights, seen, shared, self._counted.get(action.worker))

    # The machine's actions.

    def begin_task(self, task: int) -> None:
        """Make the weights that a task starts from, once."""
        if self._begun < task:
            self.weights = self._replaced(self.weights, self._learner.begin_task(task, self.weights))
            self._begun = task

    def _replaced(self, before: Tensors, after: Tensors) -> Tensors:
        """Return weights that the learner has made, read-only."""
        return frozen(after) if self._broadcast is None else self._broadcast.replaced(before, after)

    def open(self, stage: act.OpenStage, now: float) -> None:
        """Start a stage without answers."""
        self._common = None
        if stage.kind == "evaluate":
            self._answers.evaluations = {}
            self.journal.open_evaluation(now)
            self._observer.evaluation_started(stage.task, stage.round)
            return
        self._answers = Answers()
        self.journal.open(now)
        if stage.kind == "round":
            self._asked = stage.workers
            if self._versions is not None:
                self._versions.add(stage.task, stage.round, self.weights)
            self._begin_rule()
            self._observer.round_started(stage.task, stage.round)
        else:
            self._observer.consolidation_started(stage.task)

    def _begin_rule(self) -> None:
        known = [self.samples.get(worker) for worker in self._asked]
        most = max([samples for samples in known if samples is not None], default=1)
        # A worker that never said hello is assumed to hold as much as the largest.
        self._rule.begin(self.weights, sum(most if samples is None else samples for samples in known))

    def aggregate(self, action: act.Aggregate, now: float) -> None:
        """Make the next global model; when all abstained it stays as it is."""
        updates = {worker: self._answers.updates[worker] for worker in action.workers}
        self._answers.updates, self._answers.absent = updates, action.absent
        self.journal.answered(now, "train", [update.metrics for update in updates.values()])
        with self.journal.timed("aggregate"):
            if given := sum(update.samples > 0 for update in updates.values()):
                made = self._checked(self._rule.finish(), "aggregation", self._settings.aggregation.name)
                step = self._learner.server_step(action.task, action.round, self.weights, made, updates)
                made = made if step is made else self._checked(step, "algorithm", "server_step")
                if self._broadcast is not None:
                    made = self._broadcast.moved(self.weights, made, given)
                self.weights = made
                for warning in self._rule.warnings():
                    self.journal.note(f"task {action.task}, round {action.round}: {warning}")
            for worker in [worker for worker, update in updates.items() if update.metrics.get(LOST)]:
                self.journal.note(
                    f"task {action.task}, round {action.round}: {worker} had lost what its updates still "
                    "owed; give its group a state.volume that keeps it"
                )
            self._rule.close_round(updates)
            self._learner.close_round(action.task, action.round, self.weights, updates)
            self._answers.updates = {name: replace(update, weights=EMPTY) for name, update in updates.items()}

    def _checked(self, weights: Tensors, part: str, maker: str) -> Tensors:
        """Return a next model read-only and in the order of the last one."""
        try:
            check_like(weights, self.weights)
        except Unfit as error:
            raise ConfigurationError(
                f"{maker} returned weights that do not fit: {error}",
                field=f"spec.{part}.name",
                remedy="return the names, dtypes and shapes of the weights that it was given",
            ) from error
        return frozen({name: weights[name] for name in self.weights})

    def close_task(self, action: act.CloseTask, now: float) -> None:
        """Hand the workers' results to the learner and keep their states."""
        results = {worker: self._answers.results[worker] for worker in action.workers}
        self._answers.absent = action.absent
        self.journal.answered(now, "consolidate", [])
        closed = self._learner.close_task(action.task, self.weights, results)
        self.weights = self._replaced(self.weights, closed)
        self._states.update({worker: answer.state for worker, answer in results.items()})

    def evaluate(self, task: int, round: int) -> None:
        """Evaluate the global model here."""
        self._observer.evaluation_started(task, round)
        with self.journal.timed("evaluate"):
            self.journal.evaluated(self._learner.evaluate(task, self.weights))

    def sum_evaluations(self, workers: tuple[str, ...], now: float) -> None:
        """Sum what the workers counted."""
        self.journal.evaluated(summed([self._answers.evaluations[worker].counts for worker in workers]))
        self.journal.answered(now, "evaluate", [])

    def commit(self, action: act.Checkpoint) -> None:
        """Complete the row of a round or task. A task's is made durable and announced at once, a round's by
        `settle`: its checkpoint is written while the next round is on its way. Raises CheckpointError.
        """
        task, round = action.task, action.round
        answers = self._answers
        self.settle()
        if round:
            closed = self.journal.round_row(task, round, answers.updates, answers.absent)
            self._count(closed)
            self._unsettled = closed, self._prepared(action.cursor)
            return
        before = len(self.seen(task - 1)) if task > 1 else 0
        row = self.journal.task_row(task, self.seen(task)[before:], answers.results, answers.absent)
        self._write(row, self._prepared(action.cursor))
        self._observer.task_closed(row, self.journal.history)

    def _count(self, row: RoundRow) -> None:
        """Note whose updates a closed round has taken in."""
        if self._method is not None and self._method.feeds_back:
            accepted = [worker for worker, part in row.workers.items() if part.outcome == "accepted"]
            self._counted.update(dict.fromkeys(accepted, (row.task, row.round)))

    def settle(self) -> None:
        """Make the last closed round durable and announce it, unless that is done. Raises CheckpointError."""
        if self._unsettled is not None:
            (row, parts), self._unsettled = self._unsettled, None
            self._write(row, parts)
            self._observer.round_closed(row, self.journal.history)

    def save(self, cursor: act.Cursor) -> None:
        """Write a checkpoint, where there is a store. Raises CheckpointError."""
        self.settle()
        if self._store is not None:
            self._store.write(self._prepared(cursor))

    def _write(self, row: RoundRow | TaskRow, parts: list[Buffer]) -> None:
        if self._store is not None:
            start = self._timer()
            self._store.write(parts)
            row.seconds["checkpoint"] = self._timer() - start

    def _prepared(self, cursor: act.Cursor) -> list[Buffer]:
        if self._store is None:
            return []
        return prepared(
            Snapshot(
                job_digest=self._settings.job_digest,
                cursor=cursor,
                begun=self._begun,
                weights=self.weights,
                learner=self._learner.state(),
                aggregation=self._rule.state(),
                owed={} if self._broadcast is None else self._broadcast.state(),
                states=self._states,
                samples=self.samples,
                history=self.journal.history,
            )
        )


def _fit_to_send(shared: Shared) -> Shared:
    """Return an algorithm's groups as read-only arrays that may travel."""
    try:
        return {name: frozen(group) for name, group in shared.items()}
    except ProtocolError as error:
        raise ConfigurationError(
            f"the algorithm's shared groups cannot be sent: {error}", field="spec.algorithm.name"
        ) from error
