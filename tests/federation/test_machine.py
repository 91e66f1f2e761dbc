from __future__ import annotations

from typing import Any

import pytest

from engram.federation import actions as act
from engram.federation.events import ConsolidatedIn, EvaluationIn, Failed, Joined, Left, Tick, UpdateIn
from engram.federation.sampling import Quorum, sample
from tests.federation.drive import Drive, of

A, B, C = "a", "b", "c"


def test_workers_that_know_no_tasks_are_not_asked_at_the_end_of_one() -> None:
    drive = Drive(rounds=(1,), consolidates=False)
    drive.join(A, B, C)
    drive.round(1, 1)
    assert drive.last[-6:] == [
        act.Checkpoint(1, 1, act.Cursor(1, 0, (A, B, C))),
        act.OpenStage("consolidate", 1, 0, ()),
        act.CloseTask(1, (), ()),
        act.EvaluateHere(1, 0),
        act.Checkpoint(1, 0, act.Cursor(2, 1, (A, B, C))),
        act.End("complete", "", 0),
    ]


def test_a_run_goes_through_rounds_consolidation_evaluation_and_checkpoints_in_order() -> None:
    drive = Drive()
    assert drive.join(A, B) == [act.Greet(A), act.Hold(A), act.Greet(B), act.Hold(B)]
    assert drive.join(C) == [
        act.Greet(C),
        act.Hold(C),
        act.BeginTask(1),
        act.OpenStage("round", 1, 1, (A, B, C)),
        *(act.SendTrain(worker, 1, 1) for worker in (A, B, C)),
    ]
    assert drive.round(1, 1) == [
        *(act.Acknowledge(worker, 1, 1) for worker in (A, B, C)),
        act.Aggregate(1, 1, (A, B, C), ()),
        act.Checkpoint(1, 1, act.Cursor(1, 2, (A, B, C))),
        act.BeginTask(1),
        act.OpenStage("round", 1, 2, (A, B, C)),
        *(act.SendTrain(worker, 1, 2) for worker in (A, B, C)),
    ]
    assert drive.round(1, 2)[3:] == [
        act.Aggregate(1, 2, (A, B, C), ()),
        act.Checkpoint(1, 2, act.Cursor(1, 0, (A, B, C))),
        act.OpenStage("consolidate", 1, 0, (A, B, C)),
        *(act.SendConsolidate(worker, 1) for worker in (A, B, C)),
    ]
    assert drive.close(1)[3:] == [
        act.CloseTask(1, (A, B, C), ()),
        act.EvaluateHere(1, 0),
        act.Checkpoint(1, 0, act.Cursor(2, 1, (A, B, C))),
        act.BeginTask(2),
        act.OpenStage("round", 2, 1, (A, B, C)),
        *(act.SendTrain(worker, 2, 1) for worker in (A, B, C)),
    ]
    drive.round(2, 1)
    assert drive.close(2)[3:] == [
        act.CloseTask(2, (A, B, C), ()),
        act.EvaluateHere(2, 0),
        act.Checkpoint(2, 0, act.Cursor(3, 1, (A, B, C))),
        act.End("complete", ""),
    ]
    assert drive.machine.kind == "finished"
    assert drive(Joined(A), Tick(), UpdateIn(A, 2, 1), Left(B)) == []


def test_the_start_waits_for_all_and_goes_on_with_the_quorum_at_the_deadline() -> None:
    drive = Drive(quorum=Quorum.parse("2"))
    drive.join(A, B)
    assert drive.after(99) == []
    assert of(act.OpenStage, drive.after(1)) == [act.OpenStage("round", 1, 1, (A, B, C))]


def test_below_the_quorum_the_start_waits_and_says_so_once() -> None:
    drive = Drive()
    drive.join(A)
    assert drive.after(100) == [act.Degraded(1, 1, 1, 3, (B, C))]
    assert drive.after(100) == []
    assert of(act.OpenStage, drive.join(B, C))


def test_a_round_closes_below_all_only_at_the_deadline_with_the_quorum() -> None:
    drive = Drive(quorum=Quorum.parse("60%"))
    drive.join(A, B, C)
    drive.round(1, 1, A, B)
    assert drive.after(99) == []
    assert of(act.Aggregate, drive.after(1)) == [act.Aggregate(1, 1, (A, B), (C,))]


def test_below_the_quorum_a_round_waits_and_closes_with_the_update_that_makes_it() -> None:
    drive = Drive(quorum=Quorum.parse("60%"))
    drive.join(A, B, C)
    drive.round(1, 1, A)
    assert drive.after(100) == [act.Degraded(1, 1, 1, 2, (B, C))]
    assert of(act.Aggregate, drive.round(1, 1, C)) == [act.Aggregate(1, 1, (A, C), (B,))]


@pytest.mark.parametrize(
    ("quorum", "expected"),
    [
        ("100%", [(3, False), (2, False), (1, True)]),
        ("2", [(2, False), (1, True)]),
        ("1", [(1, True)]),
    ],
)
def test_an_answer_closes_nothing_while_more_than_one_is_lacking(
    quorum: str, expected: list[tuple[int, bool]]
) -> None:
    drive, found = Drive(quorum=Quorum.parse(quorum), rounds=(1,)), []
    assert drive.machine.lacking == 0
    drive.join(A, B, C)
    drive.now = 1000.0
    for worker in (A, B, C)[: len(expected)]:
        lacking = drive.machine.lacking
        found.append((lacking, bool(of(act.Aggregate, drive.round(1, 1, worker)))))
    assert found == expected
    assert drive.machine.kind == "consolidate"
    assert drive.machine.lacking == 0


def test_policy_fail_ends_the_run_with_the_numbers_and_the_remedy() -> None:
    drive = Drive(deadline_policy="Fail")
    drive.join(A, B, C)
    drive.round(1, 1, A)
    [end] = drive.after(100)
    assert isinstance(end, act.End)
    assert (end.reason, end.exit_code, end.cause) == ("failed", 42, "QuorumNotReached")
    assert "round 1 of task 1: 1 of 3 workers" in end.message
    assert "missing b, c" in end.message
    assert "roundDeadlineSeconds" in end.message
    assert drive.after(100) == []


def test_consolidation_has_quorum_and_deadline_like_a_round() -> None:
    drive = Drive(quorum=Quorum.parse("2"), rounds=(1,))
    drive.join(A, B, C)
    drive.round(1, 1)
    drive.close(1, A)
    assert drive.after(100) == [act.Degraded(1, 0, 1, 2, (B, C))]
    assert of(act.CloseTask, drive.close(1, B)) == [act.CloseTask(1, (A, B), (C,))]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (UpdateIn(A, 1, 2), "duplicate"),
        (UpdateIn(A, 1, 1), "late"),
        (UpdateIn(B, 1, 3), "protocol"),
        (UpdateIn(B, 2, 1), "protocol"),
        (UpdateIn("stranger", 1, 2), "unauthorised"),
        (ConsolidatedIn(B, 1), "protocol"),
        (EvaluationIn(B, 1, 2), "protocol"),
        (EvaluationIn(B, 1, 1), "late"),
    ],
)
def test_what_is_not_wanted_is_refused_with_its_reason(event: Any, reason: str) -> None:
    drive = Drive(rounds=(3, 1))
    drive.join(A, B, C)
    drive.round(1, 1)
    drive.round(1, 2, A)
    assert drive.machine.refusal(event) == reason
    [refuse] = drive(event)
    assert isinstance(refuse, act.Refuse)
    assert refuse.reason == reason
    assert drive.machine.missing == (B, C)


def test_a_worker_that_was_not_sampled_is_held_and_its_update_refused() -> None:
    drive = Drive(client_fraction=0.34)
    drive.join(A, B, C)
    [asked] = sample(0, 1, 1, (A, B, C), 0.34)
    other = next(worker for worker in (A, B, C) if worker != asked)
    assert [action.worker for action in of(act.SendTrain, drive.last)] == [asked]
    assert drive(UpdateIn(other, 1, 1)) == [act.Refuse(other, 1, 1, "protocol")]
    assert of(act.Aggregate, drive.round(1, 1, asked)) == [act.Aggregate(1, 1, (asked,), ())]


def test_consolidation_asks_all_workers_whatever_the_client_fraction() -> None:
    drive = Drive(client_fraction=0.34, rounds=(1,))
    drive.join(A, B, C)
    drive.round(1, 1, *drive.machine.asked)
    assert drive.machine.kind == "consolidate"
    assert drive.machine.asked == (A, B, C)


def test_sampling_is_over_known_workers_not_over_those_connected() -> None:
    drive = Drive(client_fraction=0.67, quorum=Quorum.parse(1))
    drive.join(*[worker for worker in (A, B, C) if worker != sample(0, 1, 1, (A, B, C), 0.67)[0]])
    opened = of(act.OpenStage, drive.after(100))
    assert opened == [act.OpenStage("round", 1, 1, sample(0, 1, 1, (A, B, C), 0.67))]


def test_a_worker_that_comes_back_is_told_to_train_to_resend_or_to_wait() -> None:
    drive = Drive()
    drive.join(A, B, C)
    assert drive(Left(A), Joined(A)) == [act.Greet(A), act.SendTrain(A, 1, 1)]
    assert drive(Left(A), Joined(A, (1, 1))) == [act.Greet(A, resend=True)]
    assert drive(Left(A), Joined(A, (1, 2))) == [act.Greet(A), act.SendTrain(A, 1, 1)]
    drive.round(1, 1, A)
    assert drive(Left(A), Joined(A, (1, 1))) == [act.Greet(A), act.Hold(A)]


def test_after_a_restart_a_worker_that_holds_the_update_is_asked_for_it() -> None:
    drive = Drive(act.Cursor(1, 2, (A, B, C)))
    drive(Joined(A, (1, 2)), Joined(B), Joined(C))
    assert drive.last[4:] == [
        act.Greet(C),
        act.Hold(C),
        act.BeginTask(1),
        act.OpenStage("round", 1, 2, (A, B, C)),
        act.Greet(A, resend=True),
        act.SendTrain(B, 1, 2),
        act.SendTrain(C, 1, 2),
    ]


def test_a_late_joiner_takes_part_from_the_next_order_on() -> None:
    drive = Drive(quorum=Quorum.parse(2), rounds=(1, 2))
    drive.join(A, B)
    drive.after(100)
    drive.round(1, 1, A, B)
    drive.after(100)
    drive.close(1, A, B)
    assert of(act.BeginTask, drive.after(100)) == [act.BeginTask(2)]
    assert drive.join(C) == [act.Greet(C), act.SendTrain(C, 2, 1)]
    assert of(act.Aggregate, drive.round(2, 1)) == [act.Aggregate(2, 1, (A, B, C), ())]


def test_a_restart_continues_at_the_cursor_and_a_finished_run_ends_at_once() -> None:
    drive = Drive(act.Cursor(2, 0, (A, B, C)))
    assert of(act.OpenStage, drive.join(A, B, C)) == [act.OpenStage("consolidate", 2, 0, (A, B, C))]
    assert Drive(act.Cursor(3, 1, (A, B, C))).join(A) == [act.End("complete", "")]


def test_evaluation_after_each_round_here() -> None:
    drive = Drive(evaluate_every_round=True)
    drive.join(A, B, C)
    assert drive.round(1, 1)[3:6] == [
        act.Aggregate(1, 1, (A, B, C), ()),
        act.EvaluateHere(1, 1),
        act.Checkpoint(1, 1, act.Cursor(1, 2, (A, B, C))),
    ]


def test_evaluation_on_workers_is_a_stage_of_its_own_and_a_restart_repeats_the_round() -> None:
    drive = Drive(evaluate_every_round=True, evaluate_on_workers=True, rounds=(1,))
    drive.join(A, B, C)
    assert drive.round(1, 1)[3:] == [
        act.Aggregate(1, 1, (A, B, C), ()),
        act.OpenStage("evaluate", 1, 1, (A, B, C)),
        *(act.SendEvaluate(worker, 1, 1) for worker in (A, B, C)),
    ]
    assert drive.machine.cursor == act.Cursor(1, 1, (A, B, C))
    assert drive(UpdateIn(A, 1, 1)) == [act.Refuse(A, 1, 1, "late")]
    assert drive(Left(B), Joined(B, (1, 1))) == [act.Greet(B), act.SendEvaluate(B, 1, 1)]
    drive(EvaluationIn(A, 1, 1), EvaluationIn(B, 1, 1))
    assert drive(EvaluationIn(B, 1, 1)) == [act.Refuse(B, 1, 1, "duplicate")]
    assert drive(EvaluationIn(C, 1, 1))[1:3] == [
        act.SumEvaluations(1, 1, (A, B, C)),
        act.Checkpoint(1, 1, act.Cursor(1, 0, (A, B, C))),
    ]
    drive.close(1)
    assert drive.machine.kind == "evaluate"
    drive(*(EvaluationIn(worker, 1, 0) for worker in (A, B, C)))
    assert drive.last[-1] == act.End("complete", "")


def test_a_configuration_error_of_a_worker_ends_the_run_at_once_others_do_not() -> None:
    drive = Drive()
    drive.join(A, B, C)
    assert drive(Failed(B, "out of memory", 137)) == []
    assert drive(Failed(B, "the loss is not finite", 42, "NumericalError")) == [
        act.End("failed", "b: the loss is not finite", 42, "NumericalError")
    ]


def test_the_core_is_fast_enough_for_ten_thousand_workers() -> None:
    workers = tuple(f"w{index:05d}" for index in range(10_000))
    drive = Drive(workers=workers, rounds=(2,), quorum=Quorum.parse("80%"), client_fraction=0.5)
    drive.join(*workers)
    for round in (1, 2):
        asked = drive.machine.asked
        assert len(asked) == 5000
        drive.round(1, round, *asked[:4500])
        assert len(of(act.Aggregate, drive.after(100))[0].workers) == 4500
    drive.close(1, *workers)
    assert drive.last[-1] == act.End("complete", "")
