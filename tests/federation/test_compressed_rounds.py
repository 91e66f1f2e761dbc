"""Rounds under compression: what is refused, what is owed after faults, and what a restart needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engram.federation.checkpoint import CheckpointStore
from engram.federation.compression.broadcast import Model
from engram.federation.compression.changes import RAW
from engram.federation.messages import Ack, Reject, Tensors, Train, Update
from tests.federation.desk import Desk, of

MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]
A, B, C = (f"trainworker-edge-{index}" for index in range(3))
COMPRESSED = ("float16", "int8", "topk")


@pytest.fixture
def make_desk(make_federation: MakeFederation) -> Callable[..., Desk]:
    def make(store: CheckpointStore | None = None, compression: str = "topk", **settings: Any) -> Desk:
        aggregation = {"compression": compression, "topkShare": 0.2, **settings.pop("aggregation", {})}
        return Desk(make_federation(store, aggregation=aggregation, **settings))

    return make


MakeDesk = Callable[..., Desk]


@pytest.fixture
def clean(make_desk: MakeDesk) -> Callable[..., Desk]:
    """Run a job in which nothing goes wrong."""

    def run(compression: str = "topk", **settings: Any) -> Desk:
        desk = make_desk(compression=compression, **settings)
        desk.join(A, B, C)
        desk.run()
        return desk

    return run


def changed(key: str, array: NDArray[Any] | None) -> Callable[[Update], Update]:
    def change(update: Update) -> Update:
        weights = {name: part for name, part in update.weights.items() if name != key}
        return replace(update, weights=weights if array is None else {**weights, key: array})

    return change


HARM: list[tuple[str, Callable[[Update], Update], str]] = [
    ("float16", changed("0/s", np.array([np.inf], np.float32)), "non-finite"),
    ("float16", changed("0/h", np.full(12, np.nan, np.float16)), "non-finite"),
    ("int8", changed("0/s", np.array([-1], np.float32)), "protocol"),
    ("int8", changed("0/s", np.array([np.nan], np.float32)), "non-finite"),
    ("int8", changed("0/s", np.array([3e38], np.float32)), "non-finite"),
    ("int8", changed("0/s", np.array([1e20], np.float32)), "norm"),
    ("int8", changed("0/q", None), "shape"),
    ("int8", changed("0/q", np.zeros(13, np.int8)), "shape"),
    ("int8", changed("2/r", np.array(3.0)), "shape"),
    ("int8", lambda update: replace(update, samples=10_000), "norm"),
    ("topk", changed("0/i", np.array([0, 3, 3], np.uint16)), "shape"),
    ("topk", changed("0/i", np.array([0xFF, 0x10], np.uint8)), "protocol"),
    ("topk", changed("0/v", np.zeros(4, np.float16)), "shape"),
    ("topk", changed("0/v", np.zeros(2**20, np.float16)), "shape"),
    ("topk", changed("9/v", np.zeros(4, np.float16)), "shape"),
    ("topk", lambda update: replace(update, weights={"head.weight": np.zeros((2, 6), np.float32)}), "shape"),
]


@pytest.mark.parametrize(("compression", "harm", "reason"), HARM)
def test_a_malformed_update_is_refused_and_counted_and_the_others_are_unharmed(
    make_desk: MakeDesk,
    clean: Callable[..., Desk],
    same_bits: SameBits,
    compression: str,
    harm: Callable[[Update], Update],
    reason: str,
) -> None:
    desk = make_desk(compression=compression)
    desk.join(A, B, C)
    [update] = desk.answer(A)
    [reject] = of(Reject, desk.say(A, harm(update)))
    assert reject.reason == reason
    assert desk.aggregator.history.faults.rejected == {reason: 1}
    assert of(Ack, desk.say(A, update)) == [Ack(1, 1)]
    desk.run()
    assert same_bits(desk.aggregator.weights, clean(compression).aggregator.weights)


@pytest.mark.parametrize("compression", COMPRESSED)
def test_uncompressed_weights_are_refused_where_the_job_compresses(
    make_desk: MakeDesk, compression: str
) -> None:
    desk = make_desk(compression=compression)
    desk.join(A, B, C)
    [order] = [
        letter.message for letter in desk.mail if letter.worker == A and isinstance(letter.message, Train)
    ]
    [reject] = of(Reject, desk.say(A, Update(1, 1, 10, order.weights)))
    assert reject.reason == "shape"


def test_the_largest_message_is_that_of_the_compression(make_desk: MakeDesk) -> None:
    limits = {
        name: make_desk(compression=name, message_slack_bytes=0).aggregator.message_limit
        for name in ("none", *COMPRESSED)
    }
    model = 4 * (12 + 2) + 8
    assert limits["none"] == 4 * model
    assert all(limit < 3 * model + 64 * 7 + 100 for limit in limits.values())


@pytest.mark.parametrize("compression", COMPRESSED)
def test_what_a_server_step_made_goes_down_packed(make_desk: MakeDesk, compression: str) -> None:
    desk = make_desk(compression=compression, aggregation={"topkShare": 0.5})
    desk.federation.head.server_step = lambda task, round, before, weights, updates: {
        **weights,
        "head.weight": before["head.weight"]
        + np.float32(4) * (weights["head.weight"] - before["head.weight"]),
    }
    desk.join(A, B, C)
    before = desk.aggregator.weights
    desk.turn()
    model = desk.aggregator.weights
    assert [row.round for row in desk.aggregator.history.rounds] == [1]
    assert isinstance(model, Model)
    parts = model.since(before)
    assert parts is not None
    assert not [name for name in parts if name.startswith("0/") and name.endswith(RAW)]
    desk.run()
    assert np.isfinite(desk.aggregator.weights["head.weight"]).all()


def test_only_error_feedback_needs_to_know_which_update_counts(clean: Callable[..., Desk]) -> None:
    for compression, counted in (("none", None), ("float16", None), ("int8", (2, 2)), ("topk", (2, 2))):
        engine = clean(compression).aggregator._engine
        assert engine._counted.get(A) == counted


def test_an_update_that_came_too_late_leaves_no_trace(make_desk: MakeDesk, same_bits: SameBits) -> None:
    results = []
    for late in (True, False):
        desk = make_desk(rounds=(3,), aggregation={"quorum": 2, "roundDeadlineSeconds": 20})
        desk.join(A, B, C)
        desk.turn()
        answers = desk.answer(C) if late else []
        desk.turn(A, B)
        desk.pass_deadline()
        for answer in answers:
            assert [reject.reason for reject in of(Reject, desk.say(C, answer))] == ["late"]
        if not late:
            desk.mail = [
                letter
                for letter in desk.mail
                if letter.worker != C or getattr(letter.message, "round", 0) != 2
            ]
        desk.run()
        assert [row.workers[C].outcome for row in desk.aggregator.history.rounds] == [
            "accepted",
            "absent",
            "accepted",
        ]
        results.append(desk.aggregator.weights)
    assert same_bits(*results)


def test_a_worker_that_lost_what_it_owed_goes_on_and_the_report_says_so(
    make_desk: MakeDesk, clean: Callable[..., Desk], same_bits: SameBits
) -> None:
    desk = make_desk()
    desk.join(A, B, C)
    desk.turn()
    desk.federation.residuals[B]._owed.clear()
    desk.run()
    assert desk.aggregator.history.faults.notes == [
        f"task 1, round 2: {B} had lost what its updates still owed; give its group a state.volume that "
        "keeps it"
    ]
    assert not same_bits(desk.aggregator.weights, clean().aggregator.weights)


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("durable", [True, False], ids=["durable", "checkpoint-not-written"])
def test_processes_that_are_killed_after_any_step_go_on_with_the_same_bits(
    make_desk: MakeDesk,
    clean: Callable[..., Desk],
    same_bits: SameBits,
    tmp_path: Path,
    compression: str,
    durable: bool,
) -> None:
    settings: dict[str, Any] = {"rounds": (3, 3)}
    wanted = clean(compression, **settings).aggregator
    for turns in range(1, 8):
        store = CheckpointStore(tmp_path / str(turns))
        first = make_desk(store, compression, **settings)
        first.join(A, B, C)
        for turn in range(turns):
            # A checkpoint that is still being written when the next round's updates are made is lost.
            first.settles = durable or turn < turns - 1
            first.turn()
        for worker in (A, C):
            first.answer(worker)  # computed, kept, and never sent
        second = make_desk(store, compression, **settings)
        second.federation.residuals = first.federation.residuals
        second.join(A, B, C)
        second.run()
        assert same_bits(second.aggregator.weights, wanted.weights)
        assert not second.aggregator.history.faults.notes


def test_a_damaged_newest_checkpoint_repeats_a_round_with_the_same_bits(
    make_desk: MakeDesk, clean: Callable[..., Desk], same_bits: SameBits, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"rounds": (5,)}
    store = CheckpointStore(tmp_path)
    first = make_desk(store, **settings)
    first.join(A, B, C)
    for _ in range(3):
        first.turn()
    for worker in (A, B, C):
        first.answer(worker)
    newest = max(tmp_path.glob("*.bin"))
    newest.write_bytes(newest.read_bytes()[:-1])
    second = make_desk(store, **settings)
    second.federation.residuals = first.federation.residuals
    second.join(A, B, C)
    second.run()
    assert [("is damaged" in note) for note in second.aggregator.history.faults.notes] == [True]
    assert same_bits(second.aggregator.weights, clean(**settings).aggregator.weights)


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedadam", "median", "trimmed-mean", "krum"])
def test_every_rule_works_on_what_was_unpacked(clean: Callable[..., Desk], rule: str) -> None:
    parameters = {"byzantine": 0} if rule == "krum" else {}
    aggregation = {"name": rule, "parameters": parameters}
    plain = clean("none", aggregation=aggregation, rounds=(3,)).aggregator.weights
    for compression in ("float16", "int8"):
        found = clean(compression, aggregation=aggregation, rounds=(3,)).aggregator.weights
        np.testing.assert_allclose(found["head.weight"], plain["head.weight"], atol=0.02)
        assert found["steps"] == plain["steps"]
