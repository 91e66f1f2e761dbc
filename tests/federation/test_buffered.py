from __future__ import annotations

from typing import Any, TypeVar

import pytest

from engram.federation import actions as act
from engram.federation.buffered import Buffered, machine_of
from engram.federation.events import ConsolidatedIn, Event, Joined, Left, Spoilt, Tick, UpdateIn
from engram.federation.machine import Machine
from engram.federation.plan import Plan
from engram.federation.sampling import Quorum

A, B, C = "a", "b", "c"
Found = TypeVar("Found")


class Drive:
    """Three workers and rounds of two updates."""

    def __init__(self, cursor: act.Cursor | None = None, **plan: Any) -> None:
        values = {"workers": (A, B, C), "rounds": (4, 1), "deadline_seconds": 100.0}
        self.plan = Plan(**{**values, "buffer": 2, "max_staleness": 2, **plan})
        self.machine = machine_of(self.plan, cursor)
        self.now = 0.0

    def __call__(self, *events: Event) -> list[act.Action]:
        return [action for event in events for action in self.machine.handle(event, self.now)]

    def join(self, *workers: str) -> list[act.Action]:
        return self(*(Joined(worker) for worker in workers))

    def after(self, seconds: float) -> list[act.Action]:
        self.now += seconds
        return self(Tick())


def of(kind: type[Found], actions: list[act.Action]) -> list[Found]:
    return [action for action in actions if isinstance(action, kind)]


@pytest.fixture
def drive() -> Drive:
    """All are there and train version 1."""
    made = Drive()
    made.join(A, B, C)
    return made


def test_the_plan_decides_which_machine_it_is() -> None:
    assert type(machine_of(Plan((A,), (1,)))) is Machine
    assert isinstance(machine_of(Plan((A,), (1,), buffer=1)), Buffered)


def test_a_round_closes_with_its_buffer_and_nobody_is_absent(drive: Drive) -> None:
    assert drive(UpdateIn(A, 1, 1)) == [act.Acknowledge(A, 1, 1)]
    assert drive(UpdateIn(B, 1, 1)) == [
        act.Acknowledge(B, 1, 1),
        act.Aggregate(1, 1, (A, B), ()),
        act.Checkpoint(1, 1, act.Cursor(1, 2, (A, B, C))),
        act.BeginTask(1),
        act.OpenStage("round", 1, 2, (A, B, C)),
        act.SendTrain(A, 1, 2),
        act.SendTrain(B, 1, 2),
    ]


def test_who_was_still_training_counts_in_a_later_round_and_then_gets_the_newest_version(
    drive: Drive,
) -> None:
    drive(UpdateIn(A, 1, 1), UpdateIn(B, 1, 1))
    assert drive(UpdateIn(C, 1, 1)) == [act.Acknowledge(C, 1, 1)]
    closed = drive(UpdateIn(A, 1, 2))
    assert of(act.Aggregate, closed) == [act.Aggregate(1, 2, (A, C), ())]
    assert of(act.SendTrain, closed) == [act.SendTrain(A, 1, 3), act.SendTrain(C, 1, 3)]
    assert drive(UpdateIn(B, 1, 2)) == [act.Acknowledge(B, 1, 2)]


def test_an_update_is_accepted_once(drive: Drive) -> None:
    drive(UpdateIn(A, 1, 1))
    assert drive(UpdateIn(A, 1, 1)) == [act.Refuse(A, 1, 1, "duplicate")]
    drive(UpdateIn(B, 1, 1))
    assert drive(UpdateIn(A, 1, 1)) == [act.Refuse(A, 1, 1, "late")]


def test_a_version_that_a_worker_was_not_given_is_refused(drive: Drive) -> None:
    drive(UpdateIn(A, 1, 1), UpdateIn(B, 1, 1))
    assert drive(UpdateIn(C, 1, 2)) == [act.Refuse(C, 1, 2, "protocol")]
    assert drive(UpdateIn(C, 1, 3)) == [act.Refuse(C, 1, 3, "protocol")]
    assert drive(UpdateIn("stranger", 1, 1)) == [act.Refuse("stranger", 1, 1, "unauthorised")]


def test_who_is_too_far_behind_is_given_the_newest_version_and_its_old_update_is_late(drive: Drive) -> None:
    for round in (1, 2):
        opened = drive(UpdateIn(A, 1, round), UpdateIn(B, 1, round))
        assert C not in [order.worker for order in of(act.SendTrain, opened)]
    opened = drive(UpdateIn(A, 1, 3), UpdateIn(B, 1, 3))
    assert of(act.SendTrain, opened) == [act.SendTrain(worker, 1, 4) for worker in (A, B, C)]
    assert drive(UpdateIn(C, 1, 1)) == [act.Refuse(C, 1, 1, "late")]
    assert drive(UpdateIn(C, 1, 4)) == [act.Acknowledge(C, 1, 4)]


def test_the_end_of_a_task_is_for_all_and_what_belongs_to_it_is_late_afterwards() -> None:
    drive = Drive(rounds=(1, 1))
    drive.join(A, B, C)
    closed = drive(UpdateIn(A, 1, 1), UpdateIn(B, 1, 1))
    assert of(act.SendConsolidate, closed) == [act.SendConsolidate(worker, 1) for worker in (A, B, C)]
    assert drive(UpdateIn(C, 1, 1)) == [act.Refuse(C, 1, 1, "late")]
    following = drive(*(ConsolidatedIn(worker, 1) for worker in (A, B, C)))
    assert of(act.CloseTask, following) == [act.CloseTask(1, (A, B, C), ())]
    assert of(act.SendTrain, following) == [act.SendTrain(worker, 2, 1) for worker in (A, B, C)]
    assert drive(UpdateIn(C, 1, 1)) == [act.Refuse(C, 1, 1, "late")]


def test_at_the_deadline_the_quorum_of_the_buffer_closes_a_round() -> None:
    drive = Drive(quorum=Quorum.parse("50%"))
    drive.join(A, B, C)
    drive(UpdateIn(A, 1, 1))
    assert drive.after(99) == []
    assert of(act.Aggregate, drive.after(1)) == [act.Aggregate(1, 1, (A,), ())]


def test_below_its_quorum_a_round_waits_and_says_so(drive: Drive) -> None:
    drive(UpdateIn(A, 1, 1))
    assert drive.after(100) == [act.Degraded(1, 1, 1, 2, (B, C))]
    assert of(act.Aggregate, drive(UpdateIn(C, 1, 1))) == [act.Aggregate(1, 1, (A, C), ())]


def test_an_update_held_over_a_cut_is_asked_for_by_its_own_version(drive: Drive) -> None:
    drive(UpdateIn(A, 1, 1), UpdateIn(B, 1, 1), Left(C))
    assert drive(Joined(C, (1, 1))) == [act.Greet(C, resend=True, holds=(1, 1))]
    assert drive(UpdateIn(C, 1, 1)) == [act.Acknowledge(C, 1, 1)]


def test_an_update_that_counted_is_not_asked_for_again(drive: Drive) -> None:
    drive(Left(A), UpdateIn(B, 1, 1), Joined(A, (1, 1)), UpdateIn(A, 1, 1))
    assert drive.machine.position == (1, 2)
    assert drive(Left(A), Joined(A, (1, 1))) == [act.Greet(A), act.SendTrain(A, 1, 2)]
    assert drive(UpdateIn(A, 1, 1)) == [act.Refuse(A, 1, 1, "late")]


def test_a_worker_that_was_started_again_gets_the_newest_version(drive: Drive) -> None:
    drive(UpdateIn(A, 1, 1), UpdateIn(B, 1, 1), Left(C))
    assert drive.join(C) == [act.Greet(C), act.SendTrain(C, 1, 2)]


def test_after_a_restart_only_versions_of_the_new_process_count() -> None:
    drive = Drive(act.Cursor(1, 3, (A, B, C)))
    opened = drive(Joined(A, (1, 2)), Joined(B, (1, 3)), Joined(C))
    assert opened[-3:] == [
        act.SendTrain(A, 1, 3),
        act.Greet(B, resend=True, holds=(1, 3)),
        act.SendTrain(C, 1, 3),
    ]
    assert drive(UpdateIn(A, 1, 2)) == [act.Refuse(A, 1, 2, "late")]


def test_who_sent_what_was_no_use_trains_the_next_version(drive: Drive) -> None:
    assert drive(Spoilt(C)) == []
    opened = drive(UpdateIn(A, 1, 1), UpdateIn(B, 1, 1))
    assert of(act.SendTrain, opened) == [act.SendTrain(worker, 1, 2) for worker in (A, B, C)]


def test_a_fleet_smaller_than_the_buffer_fills_it() -> None:
    drive = Drive(workers=(A,), elastic=True, buffer=5)
    drive.join(A)
    assert of(act.Aggregate, drive(UpdateIn(A, 1, 1))) == [act.Aggregate(1, 1, (A,), ())]


def test_what_counted_in_one_task_says_nothing_of_the_next() -> None:
    drive = Drive(rounds=(1, 1))
    drive.join(A, B, C)
    drive(UpdateIn(A, 1, 1), UpdateIn(B, 1, 1), *(ConsolidatedIn(worker, 1) for worker in (A, B, C)))
    assert drive(Left(A), Joined(A, (2, 1))) == [act.Greet(A, resend=True, holds=(2, 1))]
