from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from engram.errors import CheckpointError, ConfigurationError
from engram.federation.aggregation import Aggregation, OutOfRange, build
from engram.federation.messages import Tensors
from engram.spec.algorithms import NoParameters
from engram.spec.parameters import FedAdamParameters, FedAvgMParameters, KrumParameters, TrimmedMeanParameters

MODEL: Tensors = {"w": np.array([1.0, -2.0, 0.5], np.float32), "steps": np.array(4, np.int64)}


def run(rule: Aggregation, updates: Sequence[tuple[int, Sequence[float]]], model: Tensors = MODEL) -> Tensors:
    rule.begin(model, sum(samples for samples, _ in updates))
    for index, (samples, values) in enumerate(updates):
        rule.add(f"w{index}", samples, {"w": np.array(values, np.float32), "steps": np.array(9, np.int64)})
    return rule.finish()


def test_fedavg_is_the_mean_weighted_by_samples() -> None:
    result = run(build("fedavg", NoParameters()), [(1, [1, 2, 3]), (3, [5, 6, 7])])
    assert_array_equal(result["w"], np.array([4, 5, 6], np.float32))
    assert result["w"].dtype == np.float32
    assert list(result) == ["w", "steps"]


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam", "median", "trimmed-mean", "krum"])
def test_counters_are_never_averaged(name: str) -> None:
    rule = build(name, {"byzantine": 0} if name == "krum" else {})
    result = run(rule, [(1, [1, 2, 3]), (1, [1, 2, 3]), (1, [1, 2, 3])])
    assert result["steps"] == 4
    assert result["steps"].dtype == np.int64


def random_updates(seed: int, workers: int, spread: float) -> tuple[Tensors, list[tuple[int, Tensors]]]:
    rng = np.random.default_rng(seed)
    model: dict[str, NDArray[Any]] = {
        "weight": rng.normal(size=(37, 11)).astype(np.float32),
        "bias": np.zeros(11, np.float32),
        "tiny": (rng.normal(size=70_000) * 1e-6).astype(np.float32),
        "half": rng.normal(size=5).astype(np.float16),
        "double": rng.normal(size=5),
        "empty": np.zeros((0, 3), np.float32),
    }
    updates: list[tuple[int, Tensors]] = []
    for _ in range(workers):
        change: Tensors = {
            name: (array + spread * rng.normal(size=array.shape)).astype(array.dtype)
            for name, array in model.items()
        }
        updates.append((int(rng.integers(1, 5000)), change))
    return model, updates


def averaged(model: Tensors, updates: Sequence[tuple[int, Tensors]], name: str = "fedavg") -> Tensors:
    rule = build(name, {})
    rule.begin(model, sum(samples for samples, _ in updates))
    for index, (samples, weights) in enumerate(updates):
        rule.add(f"w{index}", samples, weights)
    return rule.finish()


@given(seed=st.integers(0, 10_000), workers=st.integers(1, 12), spread=st.floats(1e-6, 30), data=st.data())
@settings(max_examples=40, deadline=None)
def test_fedavg_is_exact_to_the_bit_in_any_order_of_arrival(
    seed: int, workers: int, spread: float, data: st.DataObject
) -> None:
    model, updates = random_updates(seed, workers, spread)
    shuffled = data.draw(st.permutations(updates))
    first, second = averaged(model, updates), averaged(model, shuffled)
    for name in model:
        assert first[name].tobytes() == second[name].tobytes()


def test_a_plain_sum_would_not_be() -> None:
    _, updates = random_updates(0, 10, 1.0)
    sums = [
        sum(np.float32(samples) * weights["weight"] for samples, weights in order)
        for order in (updates, updates[::-1])
    ]
    assert np.any(sums[0] != sums[1])


@given(seed=st.integers(0, 10_000), workers=st.integers(1, 12), spread=st.floats(1e-6, 30))
@settings(max_examples=30, deadline=None)
def test_fedavg_is_the_true_mean_within_a_rounding_of_float32(seed: int, workers: int, spread: float) -> None:
    model, updates = random_updates(seed, workers, spread)
    result = averaged(model, updates)
    total = sum(samples for samples, _ in updates)
    largest = max(float(np.abs(array).max()) for array in model.values() if array.size)
    for name in ("weight", "bias", "double"):
        true = sum(samples * weights[name].astype(np.longdouble) for samples, weights in updates) / total
        rounding = np.spacing(np.abs(true).astype(model[name].dtype)).astype(np.float64) * 0.5000001
        assert np.all(np.abs(result[name] - true) <= rounding + largest * 2.0**-30)


def test_all_permutations_of_a_round_give_the_same_bits() -> None:
    model, updates = random_updates(5, 5, 3.0)
    results = {averaged(model, order)["weight"].tobytes() for order in itertools.permutations(updates)}
    assert len(results) == 1


def test_values_out_of_range_are_refused() -> None:
    rule = build("fedavg", {})
    rule.begin(MODEL, 10)
    rule.add("a", 5, {**MODEL, "w": np.array([1, 1, 1], np.float32)})
    with pytest.raises(OutOfRange, match="w holds 1e\\+09"):
        rule.check(5, {"w": 1e9})
    assert_array_equal(rule.finish()["w"], np.ones(3, np.float32))


def test_more_samples_than_announced_are_refused() -> None:
    rule = build("fedavg", {})
    rule.begin(MODEL, 16)
    rule.add("a", 10, MODEL)
    with pytest.raises(OutOfRange, match="more than the workers said"):
        rule.check(7, {"w": 1.0})


def test_zeros_may_grow_and_headroom_is_wide() -> None:
    model: Tensors = {"w": np.zeros(2, np.float32), "v": np.array([0.01], np.float32)}
    rule = build("fedavg", {})
    rule.begin(model, 1)
    rule.check(1, {"w": 60.0, "v": 50.0})
    rule.add("a", 1, {"w": np.array([60, 0.125], np.float32), "v": np.array([50], np.float32)})
    assert_array_equal(rule.finish()["w"], np.array([60, 0.125], np.float32))


def test_fedavgm_by_hand() -> None:
    rule = build("fedavgm", FedAvgMParameters(momentum=0.5, learning_rate=2.0))
    first = run(rule, [(1, [2, -2, 0.5])])
    # Delta = [1, 0, 0]; v = Delta; w = [1, ..] + 2 v.
    assert_allclose(first["w"], [3, -2, 0.5])
    second = run(rule, [(1, [4, -2, 0.5])], {**MODEL, "w": np.asarray(first["w"])})
    # Delta = [1, 0, 0]; v = .5 + 1 = 1.5; w = 3 + 3.
    assert_allclose(second["w"], [6, -2, 0.5])


def test_fedavgm_without_momentum_is_fedavg() -> None:
    updates = [(2, [1.5, 2, 3]), (3, [0.25, -1, 7])]
    plain = run(build("fedavg", {}), updates)
    momentum = run(build("fedavgm", FedAvgMParameters(momentum=0.0)), updates)
    assert_allclose(momentum["w"], plain["w"], rtol=1e-7)


def test_fedadam_by_hand() -> None:
    parameters = FedAdamParameters(learning_rate=0.1, beta1=0.9, beta2=0.99, adaptivity=0.001)
    rule = build("fedadam", parameters)
    first = run(rule, [(1, [2, -2, 0.5])])
    # Delta = 1: m = .1, v = .99e-6 + .01, step = .1 * .1 / (sqrt(.01000099) + .001).
    step = 0.01 / (np.sqrt(0.01000099) + 0.001)
    assert_allclose(first["w"], np.array([1 + step, -2, 0.5]), rtol=1e-6)
    second = run(rule, [(1, [1, -2, 0.5])], {**MODEL, "w": np.array([0.5, -2, 0.5], np.float32)})
    # Delta = .5: m = .09 + .05, v = .99 * .01000099 + .01 * .25.
    step = 0.1 * 0.14 / (np.sqrt(0.0099009801 + 0.0025) + 0.001)
    assert_allclose(second["w"], np.array([0.5 + step, -2, 0.5]), rtol=1e-6)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_server_state_survives_a_restart_to_the_bit(name: str) -> None:
    updates = [(2, [1.5, 2, 3]), (3, [0.25, -1, 7])]
    rule, resumed = build(name, {}), build(name, {})
    run(rule, updates)
    resumed.restore(rule.state())
    assert run(rule, updates)["w"].tobytes() == run(resumed, updates)["w"].tobytes()
    assert run(build(name, {}), updates)["w"].tobytes() != run(rule, updates)["w"].tobytes()


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_server_state_grows_with_the_head(name: str) -> None:
    small: Tensors = {"head": np.ones((2, 3), np.float32)}
    large: Tensors = {"head": np.ones((4, 3), np.float32)}
    rule = build(name, {})
    for model, value in ((small, 2.0), (large, 3.0)):
        rule.begin(model, 1)
        rule.add("a", 1, {"head": np.full(model["head"].shape, value, np.float32)})
        result = rule.finish()["head"]
    assert result.shape == (4, 3)
    assert np.all(result[:2] > result[2:])
    assert all(array.shape == (4, 3) for array in rule.state().values())


def test_server_optimisers_average_the_statistics_of_normalisation_plainly() -> None:
    model: Tensors = {"norm.running_var": np.array([1.0], np.float32)}
    rule = build("fedavgm", FedAvgMParameters(momentum=0.9, learning_rate=10.0))
    rule.begin(model, 1)
    rule.add("a", 1, {"norm.running_var": np.array([0.5], np.float32)})
    assert rule.finish()["norm.running_var"] == np.float32(0.5)
    assert rule.state() == {}


def test_a_rule_without_state_refuses_a_checkpoint_of_one_with_state() -> None:
    with pytest.raises(CheckpointError):
        build("fedavg", {}).restore({"v/w": np.zeros(3)})


def test_median_by_hand_whatever_the_samples() -> None:
    odd = run(build("median", {}), [(900, [1, 9, 2]), (1, [2, 8, 3]), (1, [50, 7, 1])])
    assert_array_equal(odd["w"], np.array([2, 8, 2], np.float32))
    even = run(build("median", {}), [(1, [1, 0, 0]), (1, [2, 0, 0]), (1, [3, 0, 0]), (1, [99, 0, 0])])
    assert even["w"][0] == np.float32(2.5)


def test_trimmed_mean_by_hand() -> None:
    rule = build("trimmed-mean", TrimmedMeanParameters(trim=0.2))
    values = [(1, [value, 0, 0]) for value in (1000, 1, 2, 3, -1000)]
    assert_allclose(run(rule, values)["w"], [2, 0, 0])
    assert_allclose(run(build("trimmed-mean", TrimmedMeanParameters(trim=0)), values)["w"], [1.2, 0, 0])


def test_trimmed_mean_cuts_what_the_share_says_in_spite_of_floating_point() -> None:
    rule = build("trimmed-mean", TrimmedMeanParameters(trim=0.3))
    values = [(1, [value, 0, 0]) for value in (-99, -98, -97, 1, 2, 3, 4, 97, 98, 99)]
    assert_allclose(run(rule, values)["w"], [2.5, 0, 0])


def test_krum_takes_the_update_nearest_to_its_neighbours() -> None:
    close: list[list[float]] = [[1, 1, 1], [1.1, 1, 1], [0.9, 1, 1], [1.05, 1, 1]]
    rule = build("krum", KrumParameters(byzantine=1, keep=1))
    result = run(rule, [(1, [1e3, -1e3, 1e3]), *((1, values) for values in close)])
    # K - f - 2 = 2 nearest: the scores are .0125, .0125, .0325 and .005 for the last one's neighbours.
    assert_allclose(result["w"], [1.05, 1, 1], rtol=1e-6)
    assert rule.warnings() == ()


def test_multi_krum_averages_the_lowest_scores() -> None:
    close: list[list[float]] = [[1, 1, 1], [1.1, 1, 1], [0.9, 1, 1], [1.05, 1, 1]]
    rule = build("krum", KrumParameters(byzantine=1, keep=4))
    result = run(rule, [(1, [1e3, -1e3, 1e3]), *((1, values) for values in close)])
    assert_allclose(result["w"], np.mean(close, axis=0), rtol=1e-6)


def test_krum_with_too_few_updates_keeps_the_weights_and_says_so() -> None:
    rule = build("krum", KrumParameters(byzantine=1))
    result = run(rule, [(1, [9, 9, 9])] * 4)
    assert_array_equal(result["w"], MODEL["w"])
    assert "needs 5" in rule.warnings()[0]


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "krum"])
def test_robust_rules_ignore_the_order_of_arrival_too(name: str) -> None:
    model, updates = random_updates(3, 7, 1.0)
    named = list(enumerate(updates))
    results = []
    for order in (named, named[::-1]):
        rule = build(name, {})
        rule.begin(model, 1)
        for index, (samples, weights) in order:
            rule.add(f"w{index}", samples, weights)
        results.append(rule.finish())
    for tensor in model:
        assert results[0][tensor].tobytes() == results[1][tensor].tobytes()


OWN = """
import numpy as np
from engram.federation.aggregation import Aggregation

class Largest(Aggregation):
    def __init__(self, parameters):
        self.factor = parameters["factor"]
    def begin(self, weights, total_samples):
        self.best = (0, weights)
    def add(self, worker, samples, weights):
        self.best = max(self.best, (samples, weights), key=lambda pair: pair[0])
    def finish(self):
        return {name: array * self.factor for name, array in self.best[1].items()}

class Other:
    def __init__(self, parameters):
        pass
"""


def test_a_users_own_rule_by_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rule.py").write_text(OWN)
    (tmp_path / "broken_rule.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    rule = build("own_rule:Largest", {"factor": 2})
    assert_array_equal(run(rule, [(1, [1, 1, 1]), (5, [3, 3, 3])])["w"], np.full(3, 6, np.float32))
    with pytest.raises(ConfigurationError, match=r"KeyError.*factor"):
        build("own_rule:Largest", {})
    with pytest.raises(ConfigurationError, match="no subclass"):
        build("own_rule:Other", {})
    with pytest.raises(ConfigurationError, match="nothing_of_that_name"):
        build("broken_rule:Rule", {})


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="trimmed-mean, krum"):
        build("fedavgg", {})
