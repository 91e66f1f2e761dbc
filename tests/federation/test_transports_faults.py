"""Both transports when processes are killed, drained, late or missing: the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engram.errors import RetryError
from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.messages import Tensors, Train
from engram.federation.outcome import Outcome
from tests.federation.transports import InProcess, Killed, Transport, WebSocket, fast

A, B, C = (f"trainworker-edge-{index}" for index in range(3))
MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]


@pytest.mark.parametrize("compression", ["none", "topk"])
@pytest.mark.parametrize("position", [(1, 1), (1, 2), (2, 1)])
def test_a_worker_killed_in_the_middle_of_a_round_is_replaced(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    in_pieces: None,
    tmp_path: Path,
    position: tuple[int, int],
    compression: str,
) -> None:
    settings = {"aggregation": {"compression": compression}}
    federation = fast(make_federation, CheckpointStore(tmp_path), **settings)
    learners = federation.workers()

    def kill(order: Train) -> None:
        if (order.task, order.round) == position:
            raise Killed

    learners[B].on_train = kill
    outcome = transport.run(federation, learners)
    assert same_bits(outcome.weights, expected(**settings).weights)
    assert not [note for note in outcome.history.faults.notes if "owed" in note]
    if isinstance(transport, WebSocket):
        assert outcome.history.faults.reconnects == {B: 1}
        assert outcome.history.faults.resumes == 0


@pytest.mark.parametrize("compression", ["none", "int8"])
@pytest.mark.parametrize("position", [(1, 1), (1, 2), (2, 2)])
def test_an_aggregator_killed_while_it_aggregates_continues_from_its_checkpoint(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    in_pieces: None,
    tmp_path: Path,
    position: tuple[int, int],
    compression: str,
) -> None:
    settings = {"aggregation": {"compression": compression}}
    federation = fast(make_federation, CheckpointStore(tmp_path), **settings)
    original = federation.aggregator
    kills: list[tuple[int, int]] = []

    def aggregator() -> Aggregator:
        made: Aggregator = original()

        def kill(task: int, round: int) -> None:
            if (task, round) == position and not kills:
                kills.append(position)
                # No last words: the process would be gone.
                made.fail = lambda error: []  # type: ignore[method-assign]
                raise Killed

        federation.head.on_round = kill
        return made

    federation.aggregator = aggregator
    outcome = transport.run(federation, federation.workers())
    assert kills == [position]
    assert same_bits(outcome.weights, expected(**settings).weights)
    assert outcome.history.faults.resumes == (position != (1, 1))
    assert [(row.task, row.round) for row in outcome.history.rounds] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_a_dead_worker_is_left_out_with_a_quorum(
    transport: Transport, make_federation: MakeFederation, same_bits: SameBits
) -> None:
    settings: dict[str, Any] = {"aggregation": {"quorum": 2, "roundDeadlineSeconds": 20}}
    outcomes = []
    for each in (transport, InProcess()):
        federation = fast(make_federation, **settings)
        learners = federation.workers()
        del learners[C]
        outcomes.append(each.run(federation, learners))
    assert outcomes[0].reason == "complete"
    assert same_bits(outcomes[0].weights, outcomes[1].weights)
    assert outcomes[0].history.faults.rounds_degraded == 4
    assert all(row.workers[C].outcome == "absent" for row in outcomes[0].history.rounds)


def test_a_worker_that_joins_at_task_3_takes_part_from_there(
    transport: Transport, make_federation: MakeFederation, same_bits: SameBits
) -> None:
    settings: dict[str, Any] = {
        "rounds": (1, 1, 2),
        "aggregation": {"quorum": 2, "roundDeadlineSeconds": 20},
    }
    outcomes = []
    for each in (transport, InProcess()):
        federation = fast(make_federation, **settings)
        learners = federation.workers()
        late = learners.pop(C)
        original = federation.aggregator

        def aggregator(
            federation: Any = federation,
            learners: dict[str, Any] = learners,
            late: Any = late,
            each: Transport = each,
            original: Callable[[], Aggregator] = original,
        ) -> Aggregator:
            made = original()

            def join(task: int, round: int) -> None:
                if (task, round) == (2, 1):
                    learners[C] = late
                    if isinstance(each, WebSocket):
                        # From now on every round waits for all three.
                        each.clock.running = False

            federation.head.on_round = join
            return made

        federation.aggregator = aggregator
        outcomes.append(each.run(federation, learners))
    for outcome in outcomes:
        took_part = [row.workers[C].outcome for row in outcome.history.rounds]
        assert took_part == ["absent", "absent", "accepted", "accepted"]
    assert same_bits(outcomes[0].weights, outcomes[1].weights)


def test_workers_of_a_drained_aggregator_stay_and_go_on_with_the_next(
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    tmp_path: Path,
) -> None:
    transport = WebSocket()
    transport.drains = 1
    federation = fast(make_federation, CheckpointStore(tmp_path))
    learners = federation.workers()
    for learner in learners.values():
        # Nobody gets beyond the first round of task 2 before the aggregator is drained.
        learner.on_train = lambda order: order.task == 1 or federation.observer.over.wait(10)
    outcome = transport.run(
        federation, learners, stop=lambda: transport.drains == 1 and bool(federation.observer.of("task"))
    )
    assert outcome.reason == "complete"
    assert transport.drains == 0
    assert outcome.history.faults.resumes == 1
    assert set(transport.reasons.values()) == {"complete"}
    assert not transport.errors
    assert same_bits(outcome.weights, expected().weights)


def test_stopped_in_the_middle_and_resumed_gives_the_same_bits(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    tmp_path: Path,
) -> None:
    federation = fast(make_federation, CheckpointStore(tmp_path))
    learners = federation.workers()
    for learner in learners.values():
        # Nobody gets beyond the first round of task 2 before the run has stopped.
        learner.on_train = lambda order: order.task == 1 or federation.observer.over.wait(10)
    outcome = transport.run(federation, learners, stop=lambda: bool(federation.observer.of("task")))
    assert outcome.reason == "suspended"
    assert [(row.task, row.round) for row in outcome.history.rounds] == [(1, 1), (1, 2)]
    if isinstance(transport, WebSocket):
        assert not transport.reasons  # nobody said that the run is over; they were told to stop
        assert {type(error) for error in transport.errors.values()} == {RetryError}
    resumed = type(transport)().run(federation, federation.workers())
    assert resumed.reason == "complete"
    assert resumed.history.faults.resumes == 1
    assert same_bits(resumed.weights, expected().weights)
    assert [row.counts for row in resumed.history.tasks] == [row.counts for row in expected().history.tasks]
