"""The aggregator by hand: one message at a time, with a clock set by the test."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.errors import CheckpointError, ConfigurationError, RefusedError
from engram.federation.checkpoint import CheckpointStore
from engram.federation.codec import UP, Decoder, Encoder
from engram.federation.messages import (
    Ack,
    Consolidate,
    Consolidated,
    Evaluate,
    Evaluation,
    Finish,
    Heartbeat,
    Hello,
    Log,
    Outgoing,
    Reject,
    Shared,
    Tensors,
    Train,
    Update,
    Wait,
    Welcome,
)
from engram.federation.versions import PROTOCOL
from tests.federation.desk import Desk, of

MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]
A, B, C = (f"trainworker-edge-{index}" for index in range(3))


@pytest.fixture
def make_desk(make_federation: MakeFederation) -> Callable[..., Desk]:
    def make(store: CheckpointStore | None = None, **settings: Any) -> Desk:
        return Desk(make_federation(store, **settings))

    return make


MakeDesk = Callable[..., Desk]


def test_hello_is_answered_with_welcome_and_what_to_do(make_desk: MakeDesk) -> None:
    desk = make_desk()
    assert desk.join(A) == [
        Outgoing(A, Welcome("job", 1, 1, 10.0, b"")),
        Outgoing(A, Wait()),
    ]
    letters = desk.join(B, C)
    assert [letter.worker for letter in letters if isinstance(letter.message, Train)] == [A, B, C]
    train = of(Train, letters)[0]
    assert (train.task, train.round, train.seen, train.shared) == (1, 1, (0, 1), {})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": 9}, f"runs engram .* \\(protocol 9\\), the aggregator engram .*protocol {PROTOCOL}"),
        ({"version": "0.0.9"}, "engram 0.0.9 .* the aggregator engram"),
        ({"job_digest": "other"}, "another job file"),
        ({"split_digest": "other"}, "splits its data otherwise"),
        ({"worker": B}, "speaks for another"),
    ],
)
def test_who_does_not_fit_is_refused_with_the_reason(
    make_desk: MakeDesk, changes: dict[str, Any], reason: str
) -> None:
    desk = make_desk()
    with pytest.raises(RefusedError, match=reason):
        desk.connect(A, **changes)
    assert desk.aggregator.status().missing == (A, B, C)
    assert desk.federation.observer.of("rejected") == [(A, "unauthorised")]


def test_a_worker_the_job_does_not_have_is_refused_unless_its_group_is_elastic(make_desk: MakeDesk) -> None:
    newcomer = Hello("trainworker-edge-7", 0, PROTOCOL, "job", "split", 10)
    stranger = Hello("trainworker-cloud-7", 0, PROTOCOL, "job", "split", 10)
    fixed, elastic = make_desk(), make_desk(elastic=True)
    with pytest.raises(RefusedError, match="no worker of this job"):
        fixed.aggregator.connect(newcomer.worker, newcomer, 0.0)
    with pytest.raises(RefusedError, match="no worker of this job"):
        elastic.aggregator.connect(stranger.worker, stranger, 0.0)
    assert of(Wait, elastic.aggregator.connect(newcomer.worker, newcomer, 0.0))


def test_the_global_model_is_the_exact_weighted_mean_whatever_the_order(
    make_desk: MakeDesk, same_bits: SameBits
) -> None:
    results = []
    for order in ((A, B, C), (C, A, B)):
        desk = make_desk()
        desk.join(A, B, C)
        updates = {worker: desk.answer(worker)[0] for worker in (A, B, C)}
        for worker in order:
            desk.say(worker, updates[worker])
        total = sum(update.samples for update in updates.values())
        mean = sum(update.samples * np.float64(update.weights["head.weight"]) for update in updates.values())
        np.testing.assert_allclose(desk.aggregator.weights["head.weight"], mean / total, rtol=1e-6)
        assert desk.aggregator.weights["steps"] == 0
        results.append(desk.aggregator.weights)
    assert same_bits(*results)


def test_duplicates_late_and_early_updates_are_refused_and_change_nothing(
    make_desk: MakeDesk, same_bits: SameBits
) -> None:
    clean, desk = make_desk(), make_desk()
    for each in (clean, desk):
        each.join(A, B, C)
    [update] = desk.answer(A)
    assert of(Ack, desk.say(A, update)) == [Ack(1, 1)]
    [reject] = of(Reject, desk.say(A, update))
    assert (reject.reason, reject.task, reject.round) == ("duplicate", 1, 1)
    assert of(Reject, desk.say(B, replace(update, round=2)))[0].reason == "protocol"
    desk.turn(B, C)
    [reject] = of(Reject, desk.say(A, update))
    assert (reject.reason, reject.task, reject.round) == ("late", 1, 2)
    clean.run()
    desk.run()
    assert same_bits(clean.aggregator.weights, desk.aggregator.weights)
    assert desk.aggregator.history.faults.rejected == {"duplicate": 1, "protocol": 1, "late": 1}


def test_with_a_buffer_an_unfit_update_is_followed_by_the_next_version(make_desk: MakeDesk) -> None:
    desk = make_desk(aggregation={"buffer": {"size": 2}})
    desk.join(A, B, C)
    [update] = desk.answer(A)
    [reject] = of(Reject, desk.say(A, spoil(update, np.nan)))
    assert reject.reason == "non-finite"
    letters = desk.turn(B, C)
    assert [train.round for train in of(Train, letters)] == [2, 2, 2]
    assert [letter.worker for letter in letters if isinstance(letter.message, Train)] == [A, B, C]
    desk.run()
    assert desk.outcome.reason == "complete"


def test_with_a_buffer_an_update_held_over_a_cut_counts_by_the_version_that_it_is_of(
    make_desk: MakeDesk,
) -> None:
    desk = make_desk(aggregation={"buffer": {"size": 2}})
    desk.join(A, B, C)
    [held] = desk.answer(C)
    desk.post(desk.aggregator.disconnect(C, desk.now))
    desk.turn(A, B)
    assert of(Welcome, desk.join(C)) == [Welcome("job", 1, 1, 10.0, b"", resend=True)]
    [again] = desk.answer(C)
    assert again is held
    assert of(Ack, desk.say(C, again)) == [Ack(1, 1)]
    desk.turn(A)
    row = desk.aggregator.history.rounds[1]
    assert {name: part.metrics["staleness"] for name, part in row.workers.items()} == {A: 0, C: 1}
    assert desk.learners[C].trained == [(1, 1)]


def test_a_stale_update_that_moves_the_model_beyond_bounds_is_refused(make_desk: MakeDesk) -> None:
    desk = make_desk(aggregation={"buffer": {"size": 2}})
    desk.join(A, B, C)
    [update] = desk.answer(C)
    desk.turn(A, B)
    [reject] = of(Reject, desk.say(C, spoil(update, 1e20)))
    assert reject.reason == "norm"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda update: replace(update, samples=10_000), "norm"),
        (lambda update: replace(update, weights={}), "shape"),
        (lambda update: spoil(update, np.nan), "non-finite"),
        (lambda update: spoil(update, 1e20), "norm"),
    ],
)
def test_an_unfit_update_is_refused_and_a_good_one_still_counts(
    make_desk: MakeDesk, same_bits: SameBits, harm: Callable[[Update], Update], reason: str
) -> None:
    clean, desk = make_desk(), make_desk()
    for each in (clean, desk):
        each.join(A, B, C)
    [update] = desk.answer(A)
    [reject] = of(Reject, desk.say(A, harm(update)))
    assert reject.reason == reason
    desk.say(A, update)
    clean.run()
    desk.run()
    assert same_bits(clean.aggregator.weights, desk.aggregator.weights)
    assert f"round 1 of task 1: {A} was rejected: {reason}" in desk.aggregator.history.faults.notes[0]


@pytest.mark.parametrize("info", [{"sum": np.zeros(3, np.float32)}, {"total": np.zeros(6, np.float32)}])
def test_info_that_the_learner_cannot_use_is_refused_before_anything_is_added(
    make_desk: MakeDesk, same_bits: SameBits, info: Tensors
) -> None:
    clean, desk = make_desk(), make_desk()
    for each in (clean, desk):
        each.join(A, B, C)
    [update] = desk.answer(A)
    [reject] = of(Reject, desk.say(A, replace(update, info=info)))
    assert reject.reason == "shape"
    desk.say(A, update)
    clean.run()
    desk.run()
    assert same_bits(clean.aggregator.weights, desk.aggregator.weights)


def test_a_worker_that_abstains_says_nothing_beside(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.join(A, B, C)
    [update] = desk.answer(A)
    [reject] = of(Reject, desk.say(A, Update(1, 1, 0, info=update.info)))
    assert reject.reason == "protocol"
    assert of(Ack, desk.say(A, Update(1, 1, 0))) == [Ack(1, 1)]


def test_a_server_step_makes_the_next_model_of_the_average(make_desk: MakeDesk) -> None:
    desk, plain = make_desk(), make_desk()
    seen: list[tuple[Tensors, Tensors, Mapping[str, Update]]] = []

    def halfway(
        task: int, round: int, before: Tensors, weights: Tensors, updates: Mapping[str, Update]
    ) -> Tensors:
        seen.append((before, weights, updates))
        half = (before["head.weight"] + weights["head.weight"]) / np.float32(2)
        return {"steps": weights["steps"], "head.bias": weights["head.bias"], "head.weight": half}

    desk.federation.head.server_step = halfway
    for each in (desk, plain):
        each.join(A, B, C)
        start = each.aggregator.weights
        each.turn()
    [(before, average, updates)] = seen
    assert before is not average
    assert np.array_equal(before["head.weight"], start["head.weight"])
    assert np.array_equal(average["head.weight"], plain.aggregator.weights["head.weight"])
    assert set(updates) == {A, B, C}
    expected = (before["head.weight"] + average["head.weight"]) / np.float32(2)
    assert np.array_equal(desk.aggregator.weights["head.weight"], expected)
    assert list(desk.aggregator.weights) == list(start)
    with pytest.raises(ValueError, match="read-only"):
        desk.aggregator.weights["head.weight"][0, 0] = 1


def test_a_server_step_that_returns_other_shapes_is_a_configuration_error(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.federation.head.server_step = lambda task, round, before, weights, updates: {"head.bias": np.ones(2)}
    desk.join(A, B, C)
    with pytest.raises(ConfigurationError, match=r"spec\.algorithm\.name.*server_step returned weights that"):
        desk.turn()


def test_a_round_in_which_all_abstain_has_no_server_step(make_desk: MakeDesk) -> None:
    desk = make_desk(rounds=(1,))
    desk.federation.head.server_step = None
    desk.join(A, B, C)
    for worker in (A, B, C):
        desk.say(worker, Update(1, 1, 0))
    assert [row.round for row in desk.aggregator.history.rounds] == [1]


def spoil(update: Update, value: float) -> Update:
    weight = np.array(update.weights["head.weight"])
    weight[0, 0] = value
    return replace(update, weights={**update.weights, "head.weight": weight})


class Received(bytearray):
    """Bytes as they came from the network, that tell when they are freed."""


@pytest.mark.parametrize(("rule", "kept"), [("fedavg", False), ("fedadam", False), ("median", True)])
def test_the_bytes_of_an_update_are_freed_when_it_is_added_or_its_round_is_closed(
    make_desk: MakeDesk, rule: str, kept: bool
) -> None:
    desk = make_desk(aggregation={"name": rule})
    desk.join(A, B, C)
    alive: list[weakref.ref[Received]] = []
    for worker in (A, B):
        for answer in desk.answer(worker):
            received = Received(Encoder().encode(answer).join())
            alive.append(weakref.ref(received))
            desk.say(worker, Decoder[Any](UP).decode(received))
            del received
    # The learner of the tests reports beside the weights, too: that must not hold the message either.
    assert [ref() is not None for ref in alive] == [kept, kept]
    desk.turn(C)
    assert [row.round for row in desk.aggregator.history.rounds] == [1]
    assert [ref() for ref in alive] == [None, None]


def test_an_abstaining_worker_counts_as_in_but_not_in_the_mean(make_desk: MakeDesk) -> None:
    desk = make_desk(rounds=(1,))
    desk.learners[C].samples_of = lambda order: 0
    desk.join(A, B, C)
    desk.turn()
    row = desk.aggregator.history.rounds[0]
    assert [row.workers[worker].outcome for worker in (A, B, C)] == ["accepted", "accepted", "abstained"]
    assert not row.degraded
    desk.run()
    assert desk.aggregator.outcome is not None


def test_a_round_in_which_all_abstain_keeps_the_weights(make_desk: MakeDesk, same_bits: SameBits) -> None:
    desk = make_desk()
    for learner in desk.learners.values():
        learner.samples_of = lambda order: 0
    before = desk.aggregator.weights
    desk.join(A, B, C)
    desk.turn()
    assert desk.aggregator.status().round == 2
    assert same_bits(before, desk.aggregator.weights)


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


def test_evaluation_on_workers_sums_their_counts(make_desk: MakeDesk) -> None:
    desk = make_desk(rounds=(1,), evaluation={"location": "workers", "every": "round"})
    desk.join(A, B, C)
    letters = desk.turn()
    assert {type(message) for message in (letter.message for letter in letters)} >= {Ack, Evaluate}
    answers = {worker: desk.answer(worker)[-1] for worker in (A, B, C)}
    assert all(isinstance(answer, Evaluation) for answer in answers.values())
    for worker, answer in answers.items():
        desk.say(worker, answer)
    counts = desk.aggregator.history.rounds[0].counts
    assert counts is not None
    assert counts.total == {0: 30, 1: 30}
    assert counts.right[0] == sum(answer.counts.right[0] for answer in answers.values())
    desk.run()
    assert desk.aggregator.history.tasks[0].counts.total == {0: 30, 1: 30}
    assert desk.federation.head.calls.count("evaluate 1") == 0


def test_the_history_has_a_row_a_round_and_a_task(make_desk: MakeDesk) -> None:
    desk = make_desk(evaluation={"every": "round"})
    desk.join(A, B, C)
    desk.now += 5
    desk.turn()
    desk.run()
    history = desk.aggregator.history
    assert [(row.task, row.round) for row in history.rounds] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [(row.task, row.classes) for row in history.tasks] == [(1, [0, 1]), (2, [2, 3])]
    first = history.rounds[0]
    assert first.started == 1000.0
    assert first.seconds["train"] == 5.0
    assert set(first.seconds) == {"broadcast", "train", "upload", "aggregate", "evaluate"}
    assert first.workers[A].metrics == {"loss": 0.5, "steps": 3.0}
    assert first.counts is not None
    assert history.tasks[0].started == 1000.0
    assert history.tasks[0].seconds["total"] >= 5.0
    assert history.tasks[0].workers[A].metrics == {"exemplars": 3.0}
    assert history.active_seconds == 5.0
    observer = desk.federation.observer
    assert observer.of("closed") == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert observer.of("task") == [(1,), (2,)]
    assert observer.of("finished") == [("complete",)]


def test_a_task_that_takes_longer_to_close_than_a_round_may_last_costs_the_next_round_nothing(
    make_desk: MakeDesk,
) -> None:
    desk = make_desk(rounds=(1, 1))
    close_task = desk.federation.head.close_task

    def at_length(*arguments: Any) -> Any:
        desk.now += 2000
        return close_task(*arguments)

    desk.federation.head.close_task = at_length
    desk.join(A, B, C)
    while desk.aggregator.status().task == 1:
        desk.turn()
    desk.now += 599
    assert desk.post(desk.aggregator.tick(desk.now)) == []
    assert desk.aggregator.status().degraded == ""
    desk.turn()
    [first, second] = desk.aggregator.history.rounds
    assert second.started == first.started + 2000
    assert second.seconds["train"] + second.seconds["broadcast"] + second.seconds["upload"] == 599


def test_orders_carry_the_shared_groups_of_all_and_of_the_worker(make_desk: MakeDesk) -> None:
    desk = make_desk()
    own = {"helper": {"w": np.ones(2)}}

    def shared(worker: str, task: int, round: int) -> Shared:
        return own if worker == B else ({} if worker else {"teacher": {"w": np.zeros(2)}})

    desk.federation.head.shared = shared
    letters = desk.join(A, B, C)
    groups = {letter.worker: list(m.shared) for letter in letters if isinstance(m := letter.message, Train)}
    assert groups == {A: ["teacher"], B: ["teacher", "helper"], C: ["teacher"]}


def test_a_shared_group_that_cannot_be_sent_is_the_algorithms_error(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.federation.head.shared = lambda worker, task, round: {"bad": {"w": np.array([None])}}
    with pytest.raises(ConfigurationError, match="object may not travel"):
        desk.join(A, B, C)


def test_weights_given_to_learners_cannot_be_written(make_desk: MakeDesk) -> None:
    desk = make_desk()
    train = of(Train, desk.join(A, B, C))[0]
    with pytest.raises(ValueError, match="read-only"):
        train.weights["head.weight"][0, 0] = 1


class TestCheckpoints:
    """Restarts at every point give the run that was never interrupted."""

    @pytest.mark.parametrize("stop_after", range(10))
    @pytest.mark.parametrize("rule", ["fedavg", "fedadam"])
    @pytest.mark.parametrize("settles", [True, False], ids=["settled", "before-it-settled"])
    def test_a_restart_after_any_step_gives_the_same_bits(
        self,
        make_desk: MakeDesk,
        same_bits: SameBits,
        tmp_path: Path,
        stop_after: int,
        rule: str,
        settles: bool,
    ) -> None:
        clean = make_desk(aggregation={"name": rule})
        clean.join(A, B, C)
        clean.run()
        store = CheckpointStore(tmp_path)
        first = make_desk(store, aggregation={"name": rule})
        first.settles = settles
        first.join(A, B, C)
        for step in range(stop_after):
            first.turn((A, B, C)[step % 3])
        # The aggregator dies here; workers keep what they have.
        second = make_desk(store, aggregation={"name": rule})
        second.learners, second.sessions = first.learners, first.sessions
        second.join(A, B, C)
        second.run()
        assert same_bits(clean.aggregator.weights, second.aggregator.weights)
        assert [r.counts for r in clean.aggregator.history.tasks] == [
            r.counts for r in second.aggregator.history.tasks
        ]
        assert second.aggregator.history.faults.resumes == int(stop_after >= 3 + (not settles))
        assert len(second.aggregator.history.rounds) == 4

    def test_a_restart_asks_for_held_updates_instead_of_training_again(
        self, make_desk: MakeDesk, tmp_path: Path
    ) -> None:
        store = CheckpointStore(tmp_path)
        first = make_desk(store)
        first.join(A, B, C)
        first.turn()
        first.turn(A, B)
        second = make_desk(store)
        second.learners, second.sessions = first.learners, first.sessions
        second.join(A, B, C)
        second.run()
        assert first.learners[A].trained == [(1, 1), (1, 2), (2, 1), (2, 2)]
        assert all(row.seconds["checkpoint"] >= 0 for row in second.aggregator.history.rounds[1:])

    def test_new_workers_and_a_new_aggregator_give_the_same_bits(
        self, make_desk: MakeDesk, same_bits: SameBits, tmp_path: Path
    ) -> None:
        clean = make_desk()
        clean.join(A, B, C)
        clean.run()
        store = CheckpointStore(tmp_path)
        first = make_desk(store)
        first.join(A, B, C)
        for _ in range(4):
            first.turn()
        second = make_desk(store)
        second.join(A, B, C)
        second.run()
        assert second.federation.head.calls[0] == "restore 2"
        assert same_bits(clean.aggregator.weights, second.aggregator.weights)

    def test_suspending_keeps_everything_even_before_the_first_round(
        self, make_desk: MakeDesk, same_bits: SameBits, tmp_path: Path
    ) -> None:
        clean = make_desk()
        clean.join(A, B, C)
        clean.run()
        store = CheckpointStore(tmp_path)
        for turns in (0, 1, 2, 1):
            desk = make_desk(store)
            desk.join(A, B, C)
            for _ in range(turns):
                desk.turn()
            letters = desk.aggregator.suspend(desk.now)
            assert not letters  # the run is not over: workers wait for the next aggregator
            assert desk.aggregator.outcome.exit_code == 75
        desk = make_desk(store)
        desk.join(A, B, C)
        desk.run()
        assert desk.aggregator.history.faults.resumes == 4
        assert same_bits(clean.aggregator.weights, desk.aggregator.weights)
        assert desk.federation.head.calls.count("begin 1") == 0

    def test_a_complete_run_is_complete_when_it_is_resumed(self, make_desk: MakeDesk, tmp_path: Path) -> None:
        store = CheckpointStore(tmp_path)
        first = make_desk(store)
        first.join(A, B, C)
        first.run()
        second = make_desk(store)
        assert of(Finish, second.join(A)) == [Finish("complete", "")]
        assert second.aggregator.outcome.reason == "complete"

    def test_a_damaged_newest_checkpoint_repeats_a_round_with_a_note(
        self, make_desk: MakeDesk, same_bits: SameBits, tmp_path: Path
    ) -> None:
        clean = make_desk()
        clean.join(A, B, C)
        clean.run()
        store = CheckpointStore(tmp_path)
        first = make_desk(store)
        first.join(A, B, C)
        for _ in range(3):
            first.turn()
        newest = max(tmp_path.glob("*.bin"))
        newest.write_bytes(newest.read_bytes()[:-1])
        second = make_desk(store)
        assert second.aggregator.status().task == 1
        second.learners, second.sessions = first.learners, first.sessions
        second.join(A, B, C)
        second.run()
        assert any("is damaged" in note for note in second.aggregator.history.faults.notes)
        assert same_bits(clean.aggregator.weights, second.aggregator.weights)

    def test_another_jobs_checkpoint_is_refused(self, make_desk: MakeDesk, tmp_path: Path) -> None:
        store = CheckpointStore(tmp_path)
        make_desk(store).aggregator.suspend(0.0)
        with pytest.raises(ConfigurationError, match="another job"):
            make_desk(store, job_digest="other")

    def test_a_checkpoint_that_cannot_be_written_is_raised(self, make_desk: MakeDesk, tmp_path: Path) -> None:
        directory = tmp_path / "checkpoint"
        desk = make_desk(CheckpointStore(directory))
        directory.write_text("a file in the way")
        desk.join(A, B, C)
        with pytest.raises(CheckpointError, match="cannot be written"):
            desk.turn()
        letters = desk.aggregator.fail(CheckpointError("no room"))
        assert {finish.message for finish in of(Finish, letters)} == {"no room"}
        assert (desk.outcome.exit_code, desk.outcome.cause) == (42, "CheckpointFailed")

    def test_an_update_that_finds_no_room_is_raised_and_can_come_again(
        self, make_desk: MakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_bits: SameBits
    ) -> None:
        def full(*arguments: Any) -> int:
            raise OSError(28, "No space left on device")

        clean = make_desk(aggregation={"name": "median"})
        clean.join(A, B, C)
        clean.run()
        desk = make_desk(CheckpointStore(tmp_path), aggregation={"name": "median"})
        desk.join(A, B, C)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            with pytest.raises(CheckpointError, match="No space left"):
                desk.turn(A)
        # As after a restart with more room.
        again = make_desk(CheckpointStore(tmp_path), aggregation={"name": "median"})
        again.join(A, B, C)
        again.run()
        assert same_bits(clean.aggregator.weights, again.aggregator.weights)


def test_an_own_rule_that_returns_other_shapes_is_a_configuration_error(
    make_desk: MakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shapeless.py").write_text(
        "from engram.federation.aggregation.fedavg import FedAvg\n"
        "class Rule(FedAvg):\n"
        "    def finish(self):\n"
        "        return {name: array.reshape(-1) for name, array in super().finish().items()}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    desk = make_desk(aggregation={"name": "shapeless:Rule"})
    desk.join(A, B, C)
    with pytest.raises(ConfigurationError, match="returned weights that do not fit"):
        desk.turn()


def test_a_state_that_is_too_large_is_the_workers_configuration_error(make_desk: MakeDesk) -> None:
    desk = make_desk(rounds=(1,))
    desk.learners[A].consolidate = lambda order: Consolidated(order.task, 1, {}, bytes(300_000))
    desk.join(A, B, C)
    desk.turn()
    assert any(isinstance(letter.message, Consolidate) for letter in desk.mail)
    with pytest.raises(ConfigurationError, match="would keep a state of 300000 bytes"):
        desk.answer(A)
