"""The round machine: what a federation does next, decided without a clock, a socket or a weight.

The aggregator feeds events in (a worker joined, an update is in, time has passed) and carries out the actions
that come back, in their order. What a closed round leads to (aggregate, evaluate, checkpoint, next round)
comes in one list; a crash in the middle of it is a restart from the last checkpoint's cursor, which is all
that the machine needs to remember.

    gather ─► round 1 ─► ... ─► round n ─► consolidate ─► next task ... ─► finished
                 └─► evaluate, where workers do it ◄─┘

Every stage but the last asks a set of workers, with a quorum and a deadline: it closes when all are in, or
when the deadline has passed and the quorum is in. A round's deadline may come earlier: see `pace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

from engram.errors import QuorumError
from engram.federation.actions import (
    Acknowledge,
    Action,
    Aggregate,
    BeginTask,
    Checkpoint,
    CloseTask,
    Cursor,
    Degraded,
    End,
    EvaluateHere,
    Greet,
    Hold,
    OpenStage,
    Refuse,
    SumEvaluations,
)
from engram.federation.events import (
    Answer,
    ConsolidatedIn,
    EvaluationIn,
    Event,
    Failed,
    Joined,
    Left,
    Resized,
    Spoilt,
    Tick,
    UpdateIn,
    asked_by,
    position_of,
)
from engram.federation.pace import remembered
from engram.federation.plan import Plan
from engram.federation.sampling import sample
from engram.federation.stage import Asking, Stage
from engram.spec.names import split_worker_name

Kind: TypeAlias = Literal["gather", "finished"] | Asking

CONFIGURATION_EXIT = 42
"""A worker that ends with this code would end so again: the run fails at once."""


class Machine:
    """The state of one run; `handle` is the only way to change it."""

    def __init__(self, plan: Plan, cursor: Cursor | None = None) -> None:
        self.plan = plan
        self._cursor = cursor or Cursor(members=tuple(sorted(plan.workers)))
        if plan.elastic:
            # The groups may have other workers than when the checkpoint was written: gather those of now.
            self._cursor = replace(self._cursor, members=tuple(sorted(plan.workers)))
        self._members = set(self._cursor.members)
        self._moved = False
        """The cursor's members are those of before a change: sorted anew when somebody asks."""
        self._replicas: Mapping[str, int] = {}
        """Workers of each group, where their number has changed; an index beyond takes no part."""
        self._connected: set[str] = set()
        self._holds: dict[str, tuple[int, int]] = {}
        self._stage: Stage | None = None
        self._finish: End | None = None

    # What others may know.

    @property
    def cursor(self) -> Cursor:
        """Where a restart would continue: the start of the current stage, evaluation aside."""
        if self._moved:
            self._cursor = replace(self._cursor, members=tuple(sorted(self._members)))
            self._moved = False
        return self._cursor

    @property
    def kind(self) -> Kind:
        """What the run waits for."""
        if self._finish is not None:
            return "finished"
        return "gather" if self._stage is None else self._stage.kind

    @property
    def position(self) -> tuple[int, int]:
        """(task, round) of the current stage, round 0 at a task's end."""
        if self._stage is not None and self._stage.kind != "gather":
            return self._stage.task, self._stage.round
        return self._cursor.task, self._cursor.round

    @property
    def deadline(self) -> float | None:
        """When the current stage may close below all; None when no stage runs."""
        if self._stage is None or self._finish is not None:
            return None
        return self._stage.closes(self.plan, self._cursor.pace)

    @property
    def lacking(self) -> int:
        """How many answers the open round lacks until one may close it in any way; 0 when none is open."""
        stage = self._stage
        if stage is None or stage.kind != "round" or self._finish is not None:
            return 0
        return max(0, min(stage.wanted, stage.needed(self.plan)) - len(stage.answered))

    @property
    def asked(self) -> tuple[str, ...]:
        """Workers that the current stage asks, sorted."""
        return () if self._stage is None else tuple(sorted(self._stage.asked))

    @property
    def missing(self) -> tuple[str, ...]:
        """Workers that the current stage still waits for, sorted."""
        if self._finish is not None:
            return ()
        if self._stage is None:
            return self.cursor.members
        return tuple(sorted(self._stage.asked - self._stage.answered))

    def refusal(self, answer: Answer) -> str | None:
        """Return why an answer is not wanted (a reason of `messages.Reject`), or None when it is.

        The aggregator asks before it looks into an update, and feeds the event only after validation.
        """
        kind = asked_by(answer)
        task, round = position_of(answer)
        if answer.worker not in self._members:
            return "unauthorised"
        stage = self._stage
        if self._finish is not None or _order(task, round) < _order(*self.position):
            return "late"
        if stage is None or (kind, task, round) != (stage.kind, stage.task, stage.round):
            # An evaluation follows the round or consolidation of the same position.
            return "late" if stage is not None and stage.kind == "evaluate" else "protocol"
        if answer.worker not in stage.asked:
            return "protocol"
        return "duplicate" if answer.worker in stage.answered else None

    def keeps_state(self, answer: Answer, refusal: str) -> bool:
        """Return whether an answer that does not count still brings its worker's state."""
        return refusal == "late" and answer == ConsolidatedIn(answer.worker, self._cursor.task - 1)

    def begin(self, now: float) -> bool:
        """Note that what `handle` returned is done; return whether a stage thereby begins.

        Its time runs from here: what led to it, such as an evaluation or images that an algorithm makes of
        the model, may take longer than a round, and is nobody's delay.
        """
        return self._stage is not None and self._stage.begin(now)

    # Events.

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take an event in at time `now` (seconds, never going back) and return what to do, in order.

        After the end it returns nothing.
        """
        actions = self._start(now) if self._stage is None else []
        if self._finish is not None:
            return actions
        match event:
            case Joined():
                actions += self._joined(event, now)
            case Left():
                self._left(event)
            case Failed(worker=worker, text=text, exit_code=code, cause=cause):
                if code == CONFIGURATION_EXIT:
                    named = text if worker in text else f"{worker}: {text}"
                    actions += self._end(End("failed", named, code, cause))
            case UpdateIn() | ConsolidatedIn() | EvaluationIn():
                actions += self._answered(event, now)
            case Resized(replicas):
                self._resized(replicas)
            case Tick() | Spoilt():
                pass
        return actions + self._advance(now)

    def _start(self, now: float) -> list[Action]:
        task, round = self._cursor.task, self._cursor.round
        if task > len(self.plan.rounds):
            return self._end(End("complete", ""))
        deadline = now + self.plan.deadline_seconds
        self._stage = stage = Stage("gather", task, round, set(self._members), now, deadline)
        stage.answered = self._connected & stage.asked
        return []

    def _joined(self, event: Joined, now: float) -> list[Action]:
        worker, stage = event.worker, self._stage
        if stage is None:
            return []
        self._connected.add(worker)
        self._holds.pop(worker, None)
        if event.holds is not None:
            self._holds[worker] = event.holds
        if self._rests(worker):
            return [Greet(worker), Hold(worker)]
        if worker not in self._members:
            self._members.add(worker)
            self._moved = True
        if not stage.asked:
            # Everybody had left an elastic run: ask again, now that somebody is there.
            return [Greet(worker), *self._reopen(stage, now)]
        if stage.kind == "gather":
            stage.asked.add(worker)
            stage.answered.add(worker)
        elif worker in stage.asked and worker not in stage.answered:
            return self._order_of(worker, stage, now, greeted=False)
        return [Greet(worker), Hold(worker)]

    def _left(self, event: Left) -> None:
        self._connected.discard(event.worker)
        stage = self._stage
        if stage is None:
            return
        stage.pace.gone(event.worker)
        if stage.kind == "gather":
            stage.answered.discard(event.worker)
        if not (event.leaving and self.plan.elastic):
            return
        self._members.discard(event.worker)
        self._moved = True
        if event.worker not in stage.answered:
            stage.asked.discard(event.worker)

    def _resized(self, replicas: Mapping[str, int]) -> None:
        """Let workers beyond their group's number go, and those within it come, from the next stage on."""
        self._replicas = replicas
        resting = {worker for worker in self._members if self._rests(worker)}
        back = {worker for worker in self._connected if not self._rests(worker)}
        self._members = (self._members - resting) | back
        self._moved = True
        if self._stage is not None:
            self._stage.asked -= resting - self._stage.answered
            for worker in resting:
                self._stage.pace.gone(worker)

    def _rests(self, worker: str) -> bool:
        group, index = split_worker_name(worker) or ("", 0)
        return index >= self._replicas.get(group, index + 1)

    def _answered(self, event: Answer, now: float) -> list[Action]:
        task, round = position_of(event)
        reason = self.refusal(event)
        if reason is not None:
            return [Refuse(event.worker, task, round, reason)]
        stage = self._stage
        if stage is not None:
            stage.answered.add(event.worker)
            stage.pace.answered(event.worker, now)
        self._holds.pop(event.worker, None)
        return [Acknowledge(event.worker, task, round)]

    # Stages.

    def _advance(self, now: float) -> list[Action]:
        stage = self._stage
        if stage is None or self._finish is not None:
            return []
        have, needed = len(stage.answered), stage.needed(self.plan)
        overdue = now >= stage.closes(self.plan, self._cursor.pace)
        # Nobody is asked when all have left an elastic run: that is a wait as well, not a stage that is done.
        if stage.asked and (have >= stage.wanted or (overdue and have >= needed)):
            return self._close(stage, now)
        if not overdue or stage.degraded:
            return []
        stage.degraded = True
        if self.plan.deadline_policy == "Fail":
            shortage = QuorumError(stage.shortage(self.plan, self.missing))
            return self._end(End("failed", str(shortage), shortage.exit_code, shortage.reason))
        return [Degraded(stage.task, stage.round, have, needed, self.missing)]

    def _close(self, stage: Stage, now: float) -> list[Action]:
        task, round = stage.task, stage.round
        workers = tuple(sorted(stage.answered))
        absent = tuple(sorted(stage.asked - stage.answered))
        match stage.kind:
            case "gather":
                if self.plan.elastic:
                    self._members, self._moved = set(stage.answered), True
                return self._next(now)
            case "round":
                if self.plan.straggler_factor is not None:
                    pace = remembered(self._cursor.pace, stage.pace.closed(now))
                    self._cursor = replace(self._cursor, pace=pace)
                return [Aggregate(task, round, workers, absent), *self._evaluate(task, round, now)]
            case "consolidate":
                return [CloseTask(task, workers, absent), *self._evaluate(task, 0, now)]
            case _:
                return [SumEvaluations(task, round, workers), *self._commit(task, round, now)]

    def _evaluate(self, task: int, round: int, now: float) -> list[Action]:
        if round > 0 and not self.plan.evaluate_every_round:
            return self._commit(task, round, now)
        if self.plan.evaluate_on_workers:
            return self._open("evaluate", task, round, now)
        return [EvaluateHere(task, round), *self._commit(task, round, now)]

    def _commit(self, task: int, round: int, now: float) -> list[Action]:
        if round == 0:
            following = (task + 1, 1)
        else:
            following = (task, round + 1 if round < self.plan.rounds[task - 1] else 0)
        self._cursor = replace(self._cursor, task=following[0], round=following[1])
        return [Checkpoint(task, round, self.cursor), *self._next(now)]

    def _next(self, now: float) -> list[Action]:
        """Open what the cursor points at."""
        task, round = self._cursor.task, self._cursor.round
        if task > len(self.plan.rounds):
            return self._end(End("complete", ""))
        if round == 0:
            if self.plan.consolidates:
                return self._open("consolidate", task, 0, now)
            stage = OpenStage("consolidate", task, 0, ())
            return [stage, CloseTask(task, (), ()), *self._evaluate(task, 0, now)]
        return [BeginTask(task), *self._open("round", task, round, now)]

    def _open(self, kind: Asking, task: int, round: int, now: float) -> list[Action]:
        asked = self.cursor.members
        if kind == "round":
            asked = sample(self.plan.seed, task, round, asked, self.plan.client_fraction)
        self._stage = stage = self._stage_of(kind, task, round, asked, now)
        actions: list[Action] = [OpenStage(kind, task, round, asked)]
        for worker in asked:
            if worker in self._connected:
                actions += self._order_of(worker, stage, now, greeted=True)
        return actions

    def _stage_of(self, kind: Asking, task: int, round: int, asked: tuple[str, ...], now: float) -> Stage:
        return Stage(kind, task, round, set(asked), now, now + self.plan.deadline_seconds)

    def _reopen(self, stage: Stage, now: float) -> list[Action]:
        if stage.kind == "gather":
            return self._start(now)
        return self._open(stage.kind, stage.task, stage.round, now)

    def _order_of(self, worker: str, stage: Stage, now: float, *, greeted: bool) -> list[Action]:
        """Return what tells `worker` its part in the stage: the order, or to send the answer it holds."""
        holds = self._holds.pop(worker, None)
        if stage.kind != "evaluate" and holds == (stage.task, stage.round):
            return [Greet(worker, resend=True)]
        stage.pace.ordered(worker, now)
        order = stage.order(worker)
        return [order] if greeted else [Greet(worker), order]

    def _end(self, end: End) -> list[Action]:
        if self._finish is not None:
            return []
        self._finish = end
        return [end]


def _order(task: int, round: int) -> tuple[int, float]:
    """Return a key that sorts positions in time: a task's end (round 0) comes after its rounds."""
    return task, round or float("inf")
