"""A round machine by hand, with a clock set by the test."""

from __future__ import annotations

from typing import Any, TypeVar

from engram.federation import actions as act
from engram.federation.events import ConsolidatedIn, Event, Joined, Tick, UpdateIn
from engram.federation.machine import Machine
from engram.federation.plan import Plan

A, B, C = "a", "b", "c"
Found = TypeVar("Found")


class Drive:
    """A machine, a clock set by hand, and everything it ever asked for."""

    def __init__(self, cursor: act.Cursor | None = None, **plan: Any) -> None:
        plan = {"workers": (A, B, C), "rounds": (2, 1), "deadline_seconds": 100.0, **plan}
        self.machine = Machine(Plan(**plan), cursor)
        self.now = 0.0
        self.last: list[act.Action] = []

    def __call__(self, *events: Event) -> list[act.Action]:
        self.last = [action for event in events for action in self.machine.handle(event, self.now)]
        return self.last

    def after(self, seconds: float) -> list[act.Action]:
        self.now += seconds
        return self(Tick())

    def join(self, *workers: str) -> list[act.Action]:
        return self(*(Joined(worker) for worker in workers))

    def round(self, task: int, round: int, *workers: str) -> list[act.Action]:
        return self(*(UpdateIn(worker, task, round) for worker in workers or (A, B, C)))

    def close(self, task: int, *workers: str) -> list[act.Action]:
        return self(*(ConsolidatedIn(worker, task) for worker in workers or (A, B, C)))


def of(kind: type[Found], actions: list[act.Action]) -> list[Found]:
    return [action for action in actions if isinstance(action, kind)]
