"""One contract for both transports: the same job gives the same weights and history, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engram.errors import FederationError, NumericalError
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Tensors, Train
from engram.federation.outcome import Outcome
from tests.federation.transports import InProcess, Transport, WebSocket, fast, rows_of

A, B, C = (f"trainworker-edge-{index}" for index in range(3))
MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"aggregation": {"name": "fedadam"}},
        {"aggregation": {"name": "median"}},
        {"aggregation": {"clientFraction": 0.5}, "rounds": (3, 2)},
        {"evaluation": {"every": "round"}},
        {"evaluation": {"location": "workers", "every": "round"}},
        {"rounds": (1,), "workers": 1},
        {"aggregation": {"compression": "float16"}, "evaluation": {"location": "workers", "every": "round"}},
        {"aggregation": {"compression": "int8", "name": "fedadam"}},
        {"aggregation": {"compression": "topk", "topkShare": 0.2, "name": "median"}, "rounds": (3, 3)},
        {"aggregation": {"compression": "topk", "clientFraction": 0.5}, "rounds": (3, 3)},
    ],
    ids=[
        *("fedavg", "fedadam", "median", "sampled", "every-round", "on-workers", "one-worker"),
        *("float16", "int8", "topk", "topk-sampled"),
    ],
)
def test_a_run_gives_the_same_bits_history_and_bytes(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    in_pieces: None,
    settings: dict[str, Any],
) -> None:
    federation = fast(make_federation, staging_slots=1, staging_bytes=0, **settings)
    outcome = transport.run(federation, federation.workers())
    wanted = expected(**settings)
    assert (outcome.reason, outcome.message) == ("complete", "")
    assert same_bits(outcome.weights, wanted.weights)
    assert rows_of(outcome) == rows_of(wanted)
    assert set(federation.observer.states.values()) == {"finished"}
    assert all(row.bytes_down > 100 for row in outcome.history.tasks[-1].workers.values())
    if isinstance(transport, WebSocket):
        assert set(transport.reasons.values()) == {"complete"}


def test_an_algorithm_that_wants_the_workers_models_gets_them(
    transport: Transport, make_federation: MakeFederation
) -> None:
    federation = fast(make_federation, rounds=(1,))
    federation.wants_models = True
    learners = federation.workers()
    learners[B].samples_of = lambda order: 0
    outcome = transport.run(federation, learners)
    (updates,) = federation.head.models
    assert {name: update.samples for name, update in updates.items()} == {A: 15, B: 0, C: 25}
    sums = 15 * updates[A].weights["head.weight"] + 25 * updates[C].weights["head.weight"]
    assert np.allclose(outcome.weights["head.weight"], sums / 40, atol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        updates[A].weights["head.weight"][:] = 0


def test_shared_groups_go_once_a_connection(transport: Transport, make_federation: MakeFederation) -> None:
    federation = fast(make_federation, rounds=(1, 3))
    outcome = transport.run(federation, federation.workers())
    down = [row.workers[A].bytes_down for row in outcome.history.rounds if row.task == 2]
    assert down[0] > down[1] == down[2]


def test_abstaining_workers_and_rounds_without_any_update(
    transport: Transport, make_federation: MakeFederation, same_bits: SameBits
) -> None:
    outcomes = []
    for each in (transport, InProcess()):
        federation = fast(make_federation)
        learners = federation.workers()
        for name, learner in learners.items():
            learner.samples_of = lambda order, name=name: 0 if order.round == 2 or name == B else 10
        outcomes.append(each.run(federation, learners))
    assert same_bits(outcomes[0].weights, outcomes[1].weights)
    rows = outcomes[0].history.rounds
    assert [row.workers[A].outcome for row in rows] == ["accepted", "abstained"] * 2
    assert {row.workers[B].outcome for row in rows} == {"abstained"}


def test_a_loss_that_is_not_finite_ends_the_run_with_the_workers_words(
    transport: Transport, make_federation: MakeFederation
) -> None:
    federation = fast(make_federation)
    learners = federation.workers()
    text = "trainworker-edge-1, task 1, round 2: the loss is not finite; lower learningRate"

    def diverge(order: Train) -> None:
        if order.round == 2:
            raise NumericalError(text)

    learners[B].on_train = diverge
    if isinstance(transport, InProcess):
        with pytest.raises(NumericalError, match="lower learningRate"):
            transport.run(federation, learners)
        return
    outcome = transport.run(federation, learners)
    assert (outcome.reason, outcome.exit_code) == ("failed", 42)
    assert outcome.message == text  # which names the worker already
    assert outcome.history.faults.notes == [f"{B} ended with exit code 42: {text}"]
    assert str(transport.errors[B]) == text
    assert transport.reasons == {A: "failed", C: "failed"}


def test_in_process_a_quorum_out_of_reach_is_an_error_and_no_endless_wait(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation()
    learners = federation.workers()
    del learners[C]
    with pytest.raises(FederationError, match=f"missing: {C}"):
        run_in_process(federation.aggregator(), learners, lambda: False)


def test_in_process_progress_is_shown_as_heartbeats(make_federation: MakeFederation) -> None:
    federation = make_federation(rounds=(1,), workers=1)
    run_in_process(federation.aggregator(), federation.workers(), lambda: False)
    [beat] = federation.observer.beats
    assert beat.state == "training"
    assert beat.progress == pytest.approx(1 / 3)
    assert np.isfinite(beat.loss)


def test_in_process_counts_the_bytes_that_the_codec_makes(make_federation: MakeFederation) -> None:
    federation = make_federation()
    outcome = run_in_process(federation.aggregator(), federation.workers(), lambda: False)
    history = outcome.history
    in_rows = sum(row.workers[A].bytes_up for row in history.rounds)
    in_rows += sum(row.workers[A].bytes_up for row in history.tasks)
    # Beside orders and answers there is the hello.
    assert in_rows < federation.observer.bytes[(A, "up")] < in_rows + 300
