"""Asynchronous rounds over both transports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.messages import Tensors, Train
from engram.federation.outcome import Outcome
from tests.federation.transports import InProcess, Killed, Transport, WebSocket, fast

A, B, C = (f"trainworker-edge-{index}" for index in range(3))
MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]


@pytest.mark.parametrize("rule", ["fedavg", "fedadam"])
def test_a_buffer_of_all_workers_gives_the_bits_of_rounds_that_wait(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    rule: str,
) -> None:
    federation = fast(make_federation, aggregation={"name": rule, "buffer": {"size": 3}})
    outcome = transport.run(federation, federation.workers())
    assert outcome.reason == "complete"
    assert same_bits(outcome.weights, expected(aggregation={"name": rule}).weights)
    parts = [part for row in outcome.history.rounds for part in row.workers.values()]
    assert [part.metrics["staleness"] for part in parts] == [0.0] * 12


def staleness_of(outcome: Outcome) -> list[dict[str, float]]:
    """Return who is in each round, and how many rounds behind."""
    assert not any(row.degraded for row in outcome.history.rounds)
    return [
        {worker: part.metrics["staleness"] for worker, part in row.workers.items()}
        for row in outcome.history.rounds
    ]


def test_in_process_the_workers_of_a_buffer_take_turns(make_federation: MakeFederation) -> None:
    federation = make_federation(rounds=(3, 1), aggregation={"buffer": {"size": 2}})
    outcome = InProcess().run(federation, federation.workers())
    assert staleness_of(outcome) == [{A: 0, B: 0}, {A: 0, C: 1}, {B: 1, A: 0}, {A: 0, B: 0}]
    assert all(set(row.workers) == {A, B, C} for row in outcome.history.tasks)


def test_a_slow_worker_counts_in_a_later_round(make_federation: MakeFederation) -> None:
    federation = fast(make_federation, rounds=(3, 1), aggregation={"buffer": {"size": 2}})
    learners = federation.workers()
    closed = {round: threading.Event() for round in (1, 2)}

    def wait(order: Train, name: str) -> None:
        """C is slow in round 1; A waits in round 2 until it is closed by B and what C has trained."""
        if order.task == 1 and (name, order.round) in ((C, 1), (A, 2)):
            assert closed[order.round].wait(30)

    for name, learner in learners.items():
        learner.on_train = lambda order, name=name: wait(order, name)
    original = federation.aggregator

    def aggregator() -> Aggregator:
        made: Aggregator = original()
        federation.head.on_round = lambda task, round: closed[round].set() if round in closed else None
        return made

    federation.aggregator = aggregator
    outcome = WebSocket().run(federation, learners)
    assert outcome.reason == "complete"
    assert staleness_of(outcome)[:2] == [{A: 0, B: 0}, {B: 0, C: 1}]
    assert all(len(row.workers) == 2 for row in outcome.history.rounds)
    assert all(set(row.workers) == {A, B, C} for row in outcome.history.tasks)


def test_a_buffer_survives_a_killed_aggregator(
    transport: Transport, make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = fast(
        make_federation, CheckpointStore(tmp_path), rounds=(3, 2), aggregation={"buffer": {"size": 2}}
    )
    kills: list[int] = []
    original = federation.aggregator

    def aggregator() -> Aggregator:
        made: Aggregator = original()

        def kill(task: int, round: int) -> None:
            if len(kills) < 3:
                kills.append(round)
                # No last words, and nothing is heard any more: the process would be gone.
                made.fail = lambda error: []  # type: ignore[method-assign]
                made.receive = lambda worker, message, now: []  # type: ignore[method-assign]
                raise Killed

        federation.head.on_round = kill
        return made

    federation.aggregator = aggregator
    outcome = transport.run(federation, federation.workers())
    assert outcome.reason == "complete"
    rows = [(row.task, row.round) for row in outcome.history.rounds]
    assert rows == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert all(len(row.workers) == 2 for row in outcome.history.rounds)
