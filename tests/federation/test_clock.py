"""The wall clock may jump; the time of a run does not."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from engram.federation.clock import Clock
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Tensors


def test_it_starts_at_the_wall_clock_and_follows_none_of_its_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, steady = [1000.0], [5.0]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    monkeypatch.setattr(time, "monotonic", lambda: steady[0])
    clock = Clock()
    assert clock() == 1000.0
    for jump in (-900.0, 86_400.0, 0.0):
        wall[0] += jump
        steady[0] += 1.0
    assert clock() == 1003.0


def test_a_run_under_a_jumping_wall_clock_closes_no_round_early(
    monkeypatch: pytest.MonkeyPatch,
    make_federation: Callable[..., Any],
    same_bits: Callable[[Tensors, Tensors], bool],
) -> None:
    calm = make_federation()
    expected = run_in_process(calm.aggregator(), calm.workers(), lambda: False)
    jumps = itertools.cycle([0.0, 86_400.0, -86_400.0, 1e9])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    federation = make_federation(aggregation={"roundDeadlineSeconds": 5, "quorum": 1})
    outcome = run_in_process(federation.aggregator(), federation.workers(), lambda: False)
    assert same_bits(outcome.weights, expected.weights)
    assert outcome.history.faults.rounds_degraded == 0
    assert 0 <= outcome.history.active_seconds < 3600
