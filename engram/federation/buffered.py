"""The round machine of asynchronous rounds: buffered aggregation, FedBuff (Nguyen et al. 2022, algorithm 1).

A round is a buffer. It closes when `Plan.buffer` updates are in, and whoever is still training then is left
alone: the update counts in a later round of the task, discounted by the rounds that it is behind. So nobody
waits for the slowest worker but at the end of a task, which is for all, as in the synchronous machine.

A worker trains each version of the model once, and adds at most one update to a round. Versions are named by
the round that they open: (task, round).
"""

from __future__ import annotations

from engram.federation.actions import Acknowledge, Action, Cursor, Greet
from engram.federation.events import Answer, Event, Left, Spoilt, UpdateIn, position_of
from engram.federation.machine import Machine
from engram.federation.plan import Plan
from engram.federation.stage import Asking, Stage


def machine_of(plan: Plan, cursor: Cursor | None = None) -> Machine:
    """Return the machine that `plan` asks for."""
    return Buffered(plan, cursor) if plan.buffer else Machine(plan, cursor)


class Buffered(Machine):
    """A machine whose rounds are buffers."""

    def __init__(self, plan: Plan, cursor: Cursor | None = None) -> None:
        super().__init__(plan, cursor)
        self._since = (self._cursor.task, self._cursor.round)
        """The first version of this process: what was trained on earlier ones may have been counted before a
        restart, and the versions themselves are gone."""
        self._working: dict[str, tuple[int, int]] = {}
        """The version that each worker trains, has ready or is sending."""
        self._spent: dict[str, int] = {}
        """The newest version of this task whose update of a worker was accepted."""

    def refusal(self, answer: Answer) -> str | None:
        """See `Machine.refusal`; an update of an earlier version is wanted from whoever was given it."""
        stage, version = self._stage, position_of(answer)
        if (
            not isinstance(answer, UpdateIn)
            or self._finish is not None
            or stage is None
            or stage.kind != "round"
            or not self._fits(stage, version)
            or answer.worker not in self._members
        ):
            return super().refusal(answer)
        if self._working.get(answer.worker) == version:
            return None
        if version < (stage.task, stage.round):
            return "late"
        return "duplicate" if self._spent.get(answer.worker) == answer.round else "protocol"

    def handle(self, event: Event, now: float) -> list[Action]:
        """See `Machine.handle`; whose update was no use gets the next version, not the same again."""
        if isinstance(event, Spoilt) or (isinstance(event, Left) and event.leaving):
            self._working.pop(event.worker, None)
        return super().handle(event, now)

    def _fits(self, stage: Stage, version: tuple[int, int]) -> bool:
        """Return whether updates of a version still count in the round that is open."""
        oldest = max((stage.task, stage.round - self.plan.max_staleness), self._since)
        return oldest <= version <= (stage.task, stage.round)

    def _answered(self, event: Answer, now: float) -> list[Action]:
        actions = super()._answered(event, now)
        if isinstance(event, UpdateIn) and isinstance(actions[0], Acknowledge):
            del self._working[event.worker]
            self._spent[event.worker] = event.round
        return actions

    def _close(self, stage: Stage, now: float) -> list[Action]:
        if stage.kind == "round":
            stage.asked = set(stage.answered)  # the others are not absent: their updates are to come
        return super()._close(stage, now)

    def _open(self, kind: Asking, task: int, round: int, now: float) -> list[Action]:
        if kind == "consolidate":
            self._working, self._spent = {}, {}
        return super()._open(kind, task, round, now)

    def _stage_of(self, kind: Asking, task: int, round: int, asked: tuple[str, ...], now: float) -> Stage:
        stage = super()._stage_of(kind, task, round, asked, now)
        stage.enough = self.plan.buffer if kind == "round" else None
        return stage

    def _order_of(self, worker: str, stage: Stage, now: float, *, greeted: bool) -> list[Action]:
        if stage.kind != "round":
            return super()._order_of(worker, stage, now, greeted=greeted)
        held, working = self._holds.pop(worker, None), self._working.get(worker)
        if greeted and held is None and working is not None and self._fits(stage, working):
            return []
        if held is not None and self._fits(stage, held) and held[1] > self._spent.get(worker, 0):
            self._working[worker] = held
            return [Greet(worker, resend=True, holds=held)]
        self._working[worker] = (stage.task, stage.round)
        return super()._order_of(worker, stage, now, greeted=greeted)
