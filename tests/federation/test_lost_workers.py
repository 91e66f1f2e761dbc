"""Workers that fail, go silent, come back or never do, by the aggregator that waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engram.federation.messages import (
    Consolidated,
    Finish,
    Heartbeat,
    Log,
    Outgoing,
    Reject,
    Tensors,
    Welcome,
)
from tests.federation.desk import Desk, of

MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]
A, B, C = (f"trainworker-edge-{index}" for index in range(3))
MakeDesk = Callable[..., Desk]


def test_a_run_waits_below_its_quorum_and_says_for_whom(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.join(A, B, C)
    desk.turn(A, B)
    desk.pass_deadline()
    status = desk.aggregator.status()
    assert status.degraded == f"round 1 of task 1: 2 of 3 needed workers are in; waiting for {C}"
    assert status.missing == (C,)
    desk.turn(C)
    assert desk.aggregator.status().degraded == ""
    assert desk.aggregator.history.faults.rounds_degraded == 0


def test_a_dead_worker_does_not_stop_a_run_with_a_quorum(make_desk: MakeDesk) -> None:
    desk = make_desk(aggregation={"quorum": 2})
    desk.join(A, B)
    while desk.aggregator.outcome is None:
        desk.turn()
        desk.pass_deadline()
    history = desk.aggregator.history
    assert [row.degraded for row in history.rounds] == [True] * 4
    assert history.rounds[0].workers[C].outcome == "absent"
    assert history.faults.rounds_degraded == 4


def test_policy_fail_ends_the_run(make_desk: MakeDesk) -> None:
    desk = make_desk(aggregation={"deadlinePolicy": "Fail"})
    desk.join(A, B, C)
    desk.turn(A)
    letters = desk.pass_deadline()
    assert [letter.worker for letter in letters] == [A, B, C]
    assert all(finish.reason == "failed" for finish in of(Finish, letters))
    outcome = desk.outcome
    assert (outcome.reason, outcome.exit_code, outcome.cause) == ("failed", 42, "QuorumNotReached")
    assert desk.connect(A) == [Outgoing(A, Finish("failed", outcome.message))]


def test_a_workers_configuration_error_ends_the_run_with_its_text(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.join(A, B, C)
    desk.say(A, Log("killed by the system", 137))
    assert desk.aggregator.outcome is None
    assert desk.federation.observer.states[A] == "failed"
    desk.say(B, Log("the loss is not finite in round 1; lower learningRate", 42, "NumericalError"))
    outcome = desk.outcome
    assert (outcome.reason, outcome.exit_code, outcome.cause) == ("failed", 42, "NumericalError")
    assert outcome.message == f"{B}: the loss is not finite in round 1; lower learningRate"
    assert outcome.history.faults.notes == [
        f"{A} ended with exit code 137: killed by the system",
        f"{B} ended with exit code 42: the loss is not finite in round 1; lower learningRate",
    ]


@pytest.mark.parametrize("reason", ["", "DataError", "Training", "x" * 10_000])
def test_a_reason_that_does_not_go_with_its_exit_code_is_not_passed_on(
    make_desk: MakeDesk, reason: str
) -> None:
    desk = make_desk()
    desk.join(A, B, C)
    desk.say(B, Log("spec.model.name: is wrong", 42, reason))
    assert (desk.outcome.exit_code, desk.outcome.cause) == (42, "")


def test_reconnects_are_counted_and_the_answer_that_is_held_is_asked_for(
    make_desk: MakeDesk, same_bits: SameBits
) -> None:
    clean, desk = make_desk(), make_desk()
    for each in (clean, desk):
        each.join(A, B, C)
    lost = desk.answer(A)
    assert len(lost) == 1
    desk.aggregator.disconnect(A, desk.now)
    assert desk.federation.observer.states[A] == "disconnected"
    [welcome] = of(Welcome, desk.join(A))
    assert welcome.resend
    assert desk.answer(A) == lost
    assert desk.learners[A].trained == [(1, 1)]
    desk.say(A, lost[0])
    clean.run()
    desk.run()
    assert same_bits(clean.aggregator.weights, desk.aggregator.weights)
    assert desk.aggregator.history.faults.reconnects == {A: 1}


def test_a_replaced_worker_gets_the_state_of_the_last_task(
    make_desk: MakeDesk, same_bits: SameBits, make_federation: MakeFederation
) -> None:
    clean, desk = make_desk(), make_desk()
    for each in (clean, desk):
        each.join(A, B, C)
    clean.run()
    for _ in range(3):
        desk.turn()
    assert desk.aggregator.status().task == 2
    desk.aggregator.disconnect(B, desk.now)
    del desk.sessions[B]
    desk.mail = [letter for letter in desk.mail if letter.worker != B]
    desk.learners[B] = make_federation().workers()[B]
    desk.join(B)
    desk.run()
    assert desk.learners[B].restored[0] != b""
    assert same_bits(clean.aggregator.weights, desk.aggregator.weights)


def test_a_worker_killed_between_its_consolidation_and_the_tasks_end_gets_the_new_state(
    make_desk: MakeDesk, same_bits: SameBits, make_federation: MakeFederation
) -> None:
    clean, desk = make_desk(rounds=(1, 1)), make_desk(rounds=(1, 1))
    for each in (clean, desk):
        each.join(A, B, C)
    clean.run()
    desk.turn()
    desk.turn(A)
    assert desk.aggregator.status().stage == "consolidate"
    desk.aggregator.disconnect(A, desk.now)
    del desk.sessions[A]
    desk.mail = [letter for letter in desk.mail if letter.worker != A]
    desk.learners[A] = make_federation().workers()[A]
    desk.join(A)
    desk.run()
    assert same_bits(clean.aggregator.weights, desk.aggregator.weights)


def test_the_state_of_a_consolidation_that_comes_too_late_is_kept(make_desk: MakeDesk) -> None:
    desk = make_desk(rounds=(1, 1), aggregation={"quorum": 2})
    desk.join(A, B, C)
    desk.turn()
    [late] = [answer for answer in desk.answer(C) if isinstance(answer, Consolidated)]
    desk.turn(A, B)
    desk.pass_deadline()
    assert desk.aggregator.status().task == 2
    assert of(Reject, desk.say(C, late))[0].reason == "late"
    assert of(Welcome, desk.connect(C))[0].state == late.state


def test_silence_shows_as_disconnected_and_any_byte_as_life(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.join(A, B, C)
    states = desk.federation.observer.states
    desk.now += 29
    desk.aggregator.tick(desk.now)
    assert states[A] == "training"
    desk.say(B, Heartbeat("training", 0.5, 1.25, 10))
    desk.now += 2
    desk.aggregator.tick(desk.now)
    assert (states[A], states[B]) == ("disconnected", "training")
    desk.aggregator.heard(A, desk.now)
    assert states[A] == "training"
    assert desk.federation.observer.beats == [Heartbeat("training", 0.5, 1.25, 10)]


def test_elastic_workers_that_are_told_to_stop_are_not_waited_for(make_desk: MakeDesk) -> None:
    desk = make_desk(elastic=True)
    desk.join(A, B, C)
    desk.turn(A, B)
    desk.say(C, Log("told to stop", 75))
    assert desk.aggregator.status().round == 2
    assert desk.aggregator.status().missing == (A, B)
