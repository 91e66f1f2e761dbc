"""What code of the user's own may make of a round: the next model, and answers for every worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.errors import ConfigurationError
from engram.federation.messages import Consolidate, Consolidated, Shared, Tensors, Train, Update
from tests.federation.desk import Desk, of

MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]
A, B, C = (f"trainworker-edge-{index}" for index in range(3))
MakeDesk = Callable[..., Desk]


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
