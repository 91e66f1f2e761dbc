"""The aggregator by hand: one message at a time, with a clock set by the test."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engram.errors import RefusedError
from engram.federation.codec import UP, Decoder, Encoder
from engram.federation.messages import (
    Ack,
    Evaluate,
    Evaluation,
    Hello,
    Outgoing,
    Reject,
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
