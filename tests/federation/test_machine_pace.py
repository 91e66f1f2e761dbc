"""When a round closes below all of its workers, and from when its time runs."""

from __future__ import annotations

from typing import Any

from engram.federation import actions as act
from engram.federation.events import UpdateIn
from engram.federation.sampling import Quorum
from tests.federation.drive import Drive, of

A, B, C = "a", "b", "c"


def test_a_stage_has_its_time_from_when_its_orders_go_out() -> None:
    drive = Drive(rounds=(1, 1))
    drive.join(A, B, C)
    drive.round(1, 1)
    drive.close(1)
    drive.now += 1000  # as long as images of the first task are made, or the model is evaluated
    assert drive.machine.begin(drive.now)
    assert not drive.machine.begin(drive.now + 50), "it begins once"
    assert drive.after(99) == []
    assert of(act.Degraded, drive.after(1)) == [act.Degraded(2, 1, 0, 3, (A, B, C))]


def hurrying(cursor: act.Cursor | None = None, **plan: Any) -> Drive:
    return Drive(cursor, **{"quorum": Quorum.parse(2), "straggler_factor": 2.0, "rounds": (4, 4), **plan})


def first_round(drive: Drive, *seconds: float) -> None:
    """Close round 1 of task 1 with every worker in, each so many seconds after the one before."""
    drive.join(A, B, C)
    for worker, later in zip((A, B, C), seconds, strict=True):
        drive.now += later
        drive.round(1, 1, worker)
    assert drive.machine.position == (1, 2)


def test_a_straggler_is_waited_for_twice_the_median_of_the_round_before() -> None:
    drive = hurrying()
    first_round(drive, 9, 1, 1)
    drive.now += 9
    drive.round(1, 2, A, B)
    assert drive.machine.deadline == drive.now + 11
    assert drive.after(10) == []
    assert of(act.Aggregate, drive.after(1)) == [act.Aggregate(1, 2, (A, B), (C,))]
    assert drive(UpdateIn(C, 1, 2)) == [act.Refuse(C, 1, 2, "late")]


def test_the_first_round_has_no_measure_and_waits_for_its_deadline() -> None:
    drive = hurrying()
    drive.join(A, B, C)
    drive.round(1, 1, A, B)
    assert drive.after(99) == []
    assert of(act.Aggregate, drive.after(1)) == [act.Aggregate(1, 1, (A, B), (C,))]


def test_below_the_quorum_nobody_hurries() -> None:
    drive = hurrying()
    first_round(drive, 1, 0, 0)
    drive.round(1, 2, A)
    assert drive.after(99) == []
    assert of(act.Aggregate, drive.round(1, 2, B)) == [act.Aggregate(1, 2, (A, B), (C,))]


def test_a_slow_median_never_waits_beyond_the_deadline() -> None:
    drive = hurrying()
    first_round(drive, 80, 1, 1)
    drive.round(1, 2, A, B)
    assert drive.after(99) == []
    assert of(act.Aggregate, drive.after(1)) == [act.Aggregate(1, 2, (A, B), (C,))]


def test_the_end_of_a_task_does_not_hurry() -> None:
    drive = hurrying(rounds=(1, 1))
    drive.join(A, B, C)
    drive.round(1, 1)
    assert drive.machine.kind == "consolidate"
    drive.close(1, A, B)
    assert drive.after(99) == []
    assert of(act.CloseTask, drive.after(1)) == [act.CloseTask(1, (A, B), (C,))]


def test_a_restarted_machine_hurries_as_the_one_before_would_have() -> None:
    drive = hurrying()
    first_round(drive, 9, 1, 1)
    assert drive.machine.cursor.pace == (10.0,)
    again = hurrying(drive.machine.cursor)
    again.join(A, B, C)
    again.now += 8
    again.round(1, 2, A, B)
    assert again.after(11) == []
    assert of(act.Aggregate, again.after(1)) == [act.Aggregate(1, 2, (A, B), (C,))]


def test_what_a_step_takes_before_its_orders_go_out_is_no_workers_pace() -> None:
    drive = hurrying(rounds=(1, 2))
    drive.join(A, B, C)
    drive.round(1, 1)
    drive.close(1)
    drive.now += 1000
    assert drive.machine.begin(drive.now)
    drive.now += 7
    drive.round(2, 1)
    assert drive.machine.cursor.pace == (0.0, 7.0)


def test_without_a_factor_nothing_is_remembered() -> None:
    drive = Drive()
    drive.join(A, B, C)
    drive.round(1, 1)
    assert drive.machine.cursor == act.Cursor(1, 2, (A, B, C))
