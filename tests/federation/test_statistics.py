"""Pooled statistics of normalisation layers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from engram.federation.aggregation import Aggregation, OutOfRange, build
from engram.federation.aggregation.statistics import variances, with_second_moments
from engram.federation.messages import Tensors


def layer(mean: list[float], variance: list[float]) -> dict[str, NDArray[Any]]:
    return {
        "norm.weight": np.ones(len(mean), np.float32),
        "norm.running_mean": np.array(mean, np.float32),
        "norm.running_var": np.array(variance, np.float32),
        "norm.num_batches_tracked": np.array(3),
    }


def run(rule: Aggregation, updates: list[tuple[int, Tensors]]) -> Tensors:
    rule.begin(layer([0.0], [1.0]), sum(samples for samples, _ in updates))
    for number, (samples, weights) in enumerate(updates):
        rule.add(f"w{number}", samples, weights)
    return rule.finish()


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam"])
def test_variance_is_that_of_all_samples_together(name: str) -> None:
    # Shares 1/4 and 3/4: mean (1 + 3 * 5) / 4 = 4; second moment (1 * (2 + 1) + 3 * (4 + 25)) / 4 = 22.5.
    result = run(build(name, {}), [(1, layer([1], [2])), (3, layer([5], [4]))])
    assert result["norm.running_mean"].tolist() == [4.0]
    assert result["norm.running_var"].tolist() == [22.5 - 16]
    assert result["norm.running_var"].dtype == np.float32
    assert result["norm.num_batches_tracked"] == 3


@given(st.integers(0, 1000), st.lists(st.integers(2, 50), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_it_is_what_one_worker_with_all_samples_would_have(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(rng.normal(), 1 + rng.random(), (count, 1)) for count in counts]
    updates = [(len(part), layer(list(part.mean(0)), list(part.var(0)))) for part in parts]
    together = np.concatenate(parts)
    result = run(build("fedavg", {}), [(samples, weights) for samples, weights in updates])
    assert_allclose(result["norm.running_mean"], together.mean(0), atol=1e-5)
    assert_allclose(result["norm.running_var"], together.var(0), rtol=1e-5)


def test_the_order_of_arrival_changes_no_bit() -> None:
    updates = [(n, layer([0.1 * n], [0.3 + n])) for n in (3, 7, 11)]
    found = {
        run(build("fedavg", {}), list(order))["norm.running_var"].tobytes()
        for order in itertools.permutations(updates)
    }
    assert len(found) == 1


def test_workers_that_agree_keep_what_they_agree_on() -> None:
    result = run(build("fedavg", {}), [(5, layer([3.25], [0.5])), (9, layer([3.25], [0.5]))])
    assert result["norm.running_var"].tolist() == [0.5]


def test_no_rounding_makes_a_variance_negative() -> None:
    result = run(build("fedavg", {}), [(3, layer([0.1], [0])), (4, layer([0.1], [0]))])
    assert 0 <= result["norm.running_var"][0] < 1e-9


def test_what_the_sum_has_no_room_for_is_refused() -> None:
    rule = build("fedavg", {})
    rule.begin(layer([0.0], [1.0]), 4)
    rule.check(4, {"norm.weight": 1.0, "norm.running_mean": 100.0, "norm.running_var": 100.0})
    with pytest.raises(OutOfRange, match=r"norm\.running_var"):
        rule.check(4, {"norm.weight": 1.0, "norm.running_mean": 200.0, "norm.running_var": 1.0})


def test_a_model_without_such_layers_is_left_alone() -> None:
    weights: Tensors = {
        "w": np.ones(3, np.float32),
        "odd.running_var": np.ones(2, np.float32),
        "other.running_mean": np.ones(2, np.float32),
        "odd.running_mean": np.ones(3, np.float32),
    }
    assert variances(weights) == {}
    assert with_second_moments(weights, {}) is weights
