"""The aggregator: carries out what the round machine decides and speaks with the workers.

It knows no socket and no clock. A transport feeds it what workers say, with the time, and sends what it
returns. It is used from one thread at a time; a call may take as long as an evaluation or a checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from engram.errors import CheckpointError, EngramError, RefusedError
from engram.federation import actions as act
from engram.federation import events
from engram.federation.admission import check_hello, welcome
from engram.federation.buffered import machine_of
from engram.federation.checkpoint import CheckpointStore
from engram.federation.engine import Engine
from engram.federation.history import History, Observer
from engram.federation.messages import (
    COUNTED,
    Ack,
    Consolidated,
    Credit,
    Evaluation,
    Finish,
    Heartbeat,
    Hello,
    Log,
    Message,
    NoCredit,
    Offer,
    Outgoing,
    Reject,
    Tensors,
    Train,
    Up,
    Update,
    Wait,
)
from engram.federation.outcome import Outcome, Reason, Status
from engram.federation.presence import Presence, state_of
from engram.federation.roles import GlobalLearner
from engram.federation.settings import Settings
from engram.federation.staging import Staging
from engram.federation.tensors import size_in_bytes
from engram.federation.validation import Unfit
from engram.spec.last_word import reason_of

STOPPED_EXIT = 75
"""A worker that ends with this code was told to stop and will come back, or its group has shrunk."""


class Aggregator:
    """One run of a job, continued from the store's checkpoint where it has one."""

    def __init__(
        self,
        settings: Settings,
        learner: GlobalLearner,
        store: CheckpointStore | None,
        observer: Observer,
        timer: Callable[[], float] = time.perf_counter,
        replicas: Callable[[], Mapping[str, int] | None] = lambda: None,
    ) -> None:
        """Prepare the run; nothing is sent before workers connect.

        `timer` measures how long steps take and decides nothing. `replicas` is asked at every tick: group ->
        number of workers where that has changed since the start, else None. Raises ConfigurationError
        (aggregation rule, or a checkpoint of another job) and CheckpointError.
        """
        self.settings = settings
        self.outcome: Outcome | None = None
        """How the run ended; None while it goes on."""
        self.split_digest = learner.split_digest
        self._observer = observer
        self._replicas = replicas
        self._resized: Mapping[str, int] | None = None
        self._engine = Engine(settings, learner, store, observer, timer)
        self._journal = self._engine.journal
        self._machine = machine_of(settings.plan(), self._engine.cursor)
        self._presence = Presence(observer, settings.heartbeat_seconds)
        self._staging = Staging(settings.staging_slots, settings.staging_bytes, settings.stall_seconds)
        self._connected: set[str] = set()
        self._degraded = ""
        self._note_status()

    # What a transport calls.

    @property
    def history(self) -> History:
        """The run so far."""
        return self._journal.history

    @property
    def weights(self) -> Tensors:
        """The global model as it is now; read-only arrays."""
        return self._engine.weights

    @property
    def message_limit(self) -> int:
        """Largest message in bytes that a worker may send: three times the model, an update, some room."""
        return 3 * size_in_bytes(self.weights) + self._engine.update_bytes + self.settings.message_slack_bytes

    @property
    def deadline(self) -> float | None:
        """When the stage that is open may close below all of its workers."""
        return self._machine.deadline

    @property
    def lacking(self) -> int:
        """See `Machine.lacking`: of so many answers only the last may take as long as an evaluation."""
        return self._machine.lacking

    def status(self) -> Status:
        """Return where the run was at the last tick or the last stage's start; any thread may ask."""
        return self._noted_status

    def connect(self, worker: str, hello: Hello, now: float) -> list[Outgoing]:
        """Take in a worker's hello on a new connection, which replaces an older one of the same worker.

        Raises RefusedError when the worker does not belong here; nothing has changed then.
        """
        try:
            check_hello(worker, hello, self.settings, self._engine.split_digest)
        except RefusedError as error:
            self.refused(worker, "unauthorised", str(error))
            raise
        if self.outcome is not None:
            return self._farewell([worker])
        self._observer.introduced(worker, hello)
        self._staging.leave(worker)
        self._engine.samples[worker] = hello.samples
        self._connected.add(worker)
        if self._presence.joined(worker, now):
            self._journal.reconnected(worker)
        return self._feed(events.Joined(worker, hello.holds), now)

    def receive(self, worker: str, message: Up, now: float) -> list[Outgoing]:
        """Take in a message of a connected worker."""
        if self.outcome is not None or worker not in self._connected:
            return []
        self._presence.heard(worker, now)
        match message:
            case Hello():
                return self.connect(worker, message, now)
            case Update() | Evaluation():
                return self._answered(worker, message, now)
            case Consolidated():
                return self._consolidated(worker, message, now)
            case Offer():
                events.announced(worker, message)  # raises for what is none
                self._staging.offer(worker, message)
                return self._give_credit(now)
            case Heartbeat():
                self._presence.set(worker, state_of(message))
                self._observer.heartbeat(worker, message)
            case Log():
                return self._failed(worker, message, now)
        return []

    def adopt(self, weights: Tensors, samples: Mapping[str, int]) -> None:
        """Begin the open round with what only its workers know: see `Engine.adopt`."""
        self._engine.adopt(weights, samples)

    def heard(self, worker: str, now: float) -> None:
        """Take part of a message as a sign of life."""
        self._presence.heard(worker, now)

    def uploading(self, worker: str, now: float) -> None:
        """Take part of an offered answer as progress."""
        self._staging.heard(worker, now)

    def uploaded(self, worker: str, now: float) -> list[Outgoing]:
        """Note that an offered answer has come whole and was received."""
        offer = self._staging.leave(worker)
        done = [] if offer is None else [Outgoing(worker, NoCredit(offer.number, again=False))]
        return done + self._give_credit(now)

    def disconnect(self, worker: str, now: float) -> list[Outgoing]:
        """Note that a worker's connection is gone."""
        if worker not in self._connected:
            return []
        self._connected.discard(worker)
        self._presence.left(worker)
        self._staging.leave(worker)
        return self._feed(events.Left(worker), now) + self._give_credit(now)

    def malformed(self, worker: str, reason: str, text: str) -> list[Outgoing]:
        """Count bytes of a worker that are no message and return what to tell it."""
        return [self._reject(worker, reason, text)]

    def refused(self, worker: str, reason: str, text: str) -> None:
        """Count a connection that was refused; `worker` empty: it proved no name."""
        self._observer.rejected(worker, Reject(reason, text, *self._machine.position))

    def tick(self, now: float) -> list[Outgoing]:
        """Let time pass; called about once a second."""
        self._presence.tick(now)
        outgoing = self._feed(events.Tick(), now)
        replicas = self._replicas()
        if replicas is not None and replicas != self._resized:
            self._resized = replicas
            sizes = ", ".join(f"{group} {count}" for group, count in replicas.items())
            self._journal.note(f"the worker groups were resized: {sizes}")
            outgoing += self._feed(events.Resized(replicas), now)
        stalled = self._staging.stalled(now)
        outgoing += [Outgoing(worker, NoCredit(offer.number, again=True)) for worker, offer in stalled]
        outgoing += self._give_credit(now)
        self._note_status()
        return outgoing

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int, message: Message) -> None:
        """Count the `size` bytes of a message: before it is received, or after it was returned.

        Rows count orders and answers only, so that they are the same in every transport.
        """
        self._journal.transferred(worker, direction, size, in_row=isinstance(message, COUNTED))

    def begin(self, now: float) -> None:
        """Note that a step is done: the time of a stage that it has opened runs from now."""
        if self._machine.begin(now):
            self._journal.begin(now)

    def sent(self, message: Message, now: float) -> None:
        """Note that a message has left entirely; the history keeps how long orders to train took."""
        if isinstance(message, Train) and self._machine.position == (message.task, message.round):
            self._journal.sent(now)

    def settle(self) -> None:
        """Make durable what is closed, once the messages of a step are on their way: a round's checkpoint is
        written beside the next round. Raises CheckpointError.
        """
        self._engine.settle()

    def suspend(self, now: float) -> list[Outgoing]:
        """Stop with everything durable; the same store continues it. Raises CheckpointError."""
        if self.outcome is not None:
            return []
        self._journal.running(now)
        self._engine.save(self._machine.cursor)
        return self._end("suspended", "interrupted; the checkpoint is written", STOPPED_EXIT)

    def fail(self, error: EngramError) -> list[Outgoing]:
        """Stop for a reason from outside, such as a checkpoint that cannot be written."""
        if self.outcome is not None:
            return []
        with contextlib.suppress(CheckpointError):  # one that cannot be written is the reason, or none
            self._engine.settle()
        return self._end("failed", str(error), error.exit_code, error.reason)

    # What workers say.

    def _give_credit(self, now: float) -> list[Outgoing]:
        """Let answers come that wait for a slot, and say which are not wanted any more."""
        outgoing: list[Outgoing] = []
        while self.outcome is None and (found := self._staging.next(now)) is not None:
            worker, offer = found
            event = events.announced(worker, offer)
            refusal = self._machine.refusal(event)
            if refusal is None or self._machine.keeps_state(event, refusal):
                self._presence.set(worker, "uploading")
                outgoing.append(Outgoing(worker, Credit(offer.number)))
            else:
                self._staging.leave(worker)
                outgoing += self._feed(event, now)
                outgoing.append(Outgoing(worker, NoCredit(offer.number, again=False)))
        return outgoing

    def _answered(self, worker: str, answer: Update | Evaluation, now: float) -> list[Outgoing]:
        kind = events.UpdateIn if isinstance(answer, Update) else events.EvaluationIn
        event = kind(worker, answer.task, answer.round)
        if self._machine.refusal(event) is None:
            try:
                if isinstance(answer, Update):
                    self._engine.take_update(worker, answer)
                else:
                    self._engine.take_evaluation(worker, answer)
            except Unfit as error:
                return self._unfit(worker, error, now)
            self._presence.set(worker, "connected")
        return self._feed(event, now)

    def _consolidated(self, worker: str, answer: Consolidated, now: float) -> list[Outgoing]:
        event = events.ConsolidatedIn(worker, answer.task)
        reason = self._machine.refusal(event)
        try:
            if reason is None:
                self._engine.take_consolidated(worker, answer)
            elif self._machine.keeps_state(event, reason):
                self._engine.take_late_state(worker, answer)
        except Unfit as error:
            return self._unfit(worker, error, now)
        return self._feed(event, now)

    def _failed(self, worker: str, log: Log, now: float) -> list[Outgoing]:
        if log.exit_code == STOPPED_EXIT:
            return self._feed(events.Left(worker, leaving=True), now)
        sentence = log.text.partition("\n")[0]
        self._presence.set(worker, "failed")
        self._observer.worker_failed(worker, log.text, log.exit_code)
        self._journal.note(f"{worker} ended with exit code {log.exit_code}: {sentence}")
        return self._feed(
            events.Failed(worker, sentence, log.exit_code, reason_of(log.reason, log.exit_code) or ""), now
        )

    def _unfit(self, worker: str, error: Unfit, now: float) -> list[Outgoing]:
        task, round = self._machine.position
        where = f"round {round} of task {task}" if round else f"end of task {task}"
        self._journal.note(f"{where}: {worker} was rejected: {error.reason}: {error}")
        return [self._reject(worker, error.reason, str(error)), *self._feed(events.Spoilt(worker), now)]

    def _reject(self, worker: str, reason: str, message: str) -> Outgoing:
        reject = Reject(reason, message, *self._machine.position)
        self._journal.rejected(worker, reject)
        return Outgoing(worker, reject)

    # What the machine wants.

    def _feed(self, event: events.Event, now: float) -> list[Outgoing]:
        if self.outcome is not None:
            return []
        self._engine.settle()
        self._journal.running(now)
        outgoing: list[Outgoing] = []
        for action in self._machine.handle(event, now):
            outgoing += self._perform(action, now)
        return outgoing

    def _perform(self, action: act.Action, now: float) -> list[Outgoing]:
        engine = self._engine
        match action:
            case act.BeginTask(task):
                engine.begin_task(task)
            case act.OpenStage():
                self._degraded = ""
                self._note_status()
                engine.open(action, now)
            case act.Aggregate():
                engine.aggregate(action, now)
            case act.CloseTask():
                engine.close_task(action, now)
            case act.EvaluateHere(task, round):
                engine.evaluate(task, round)
            case act.SumEvaluations(workers=workers):
                engine.sum_evaluations(workers, now)
            case act.Checkpoint():
                engine.commit(action)
            case act.Degraded():
                self._degraded = action.sentence
                self._journal.note(self._degraded)
            case act.End(reason, message, exit_code, cause):
                return self._end(reason, message, exit_code, cause)
            case _:
                return [self._letter(action)]
        return []

    def _letter(self, action: act.Letter) -> Outgoing:
        worker = action.worker
        match action:
            case act.Greet(resend=resend, holds=holds):
                position, state = holds or self._machine.position, self._engine.state_of(worker)
                return Outgoing(worker, welcome(self.settings, position, state, resend))
            case act.Hold():
                return Outgoing(worker, Wait())
            case act.SendTrain() | act.SendConsolidate() | act.SendEvaluate():
                if isinstance(action, act.SendTrain):
                    self._presence.set(worker, "training")
                return Outgoing(worker, self._engine.order(action))
            case act.Acknowledge(task=task, round=round):
                return Outgoing(worker, Ack(task, round))
            case act.Refuse():
                return self._reject(worker, action.reason, action.sentence)

    def _note_status(self) -> None:
        task, round = self._machine.position
        self._noted_status = Status(self._machine.kind, task, round, self._machine.missing, self._degraded)

    def _end(self, reason: Reason, message: str, exit_code: int, cause: str = "") -> list[Outgoing]:
        self.outcome = Outcome(reason, message, self.history, self.weights, exit_code, cause)
        self._note_status()
        workers = sorted(self._connected)
        if reason == "complete":
            for worker in workers:
                self._presence.set(worker, "finished")
        self._observer.finished(reason, message, self.history)
        return self._farewell(workers)

    def _farewell(self, workers: Sequence[str]) -> list[Outgoing]:
        """Return what tells workers that the run is over; a suspended one is not: they come back."""
        if self.outcome is None or self.outcome.reason == "suspended":
            return []
        return [Outgoing(worker, Finish(self.outcome.reason, self.outcome.message)) for worker in workers]
