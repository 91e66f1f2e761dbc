from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.learning.memory import Memory, herding


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_first_choice_is_nearest_to_the_mean_then_the_rest_balances_it() -> None:
    # The mean points to 40 degrees (its length is below 1); 45 is nearest. With 45 taken, 30 brings the
    # average of both nearest to the mean; the outlier at 85 balances only with a third.
    features = unit(30.0, 85.0, 45.0, 0.0)
    assert herding(features, 2)[0] == 2
    assert sorted(herding(features, 4)) == [0, 1, 2, 3]


def test_greedy_choice_agrees_with_the_definition() -> None:
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(12, 3, dtype=torch.float64), dim=1)
    mean = features.mean(0)
    expected: list[int] = []
    for k in range(1, 7):
        total = features[expected].sum(0)
        costs = [
            (float((mean - (features[i] + total) / k).norm()), i) for i in range(12) if i not in expected
        ]
        expected.append(min(costs)[1])
    assert herding(features, 6) == expected


def test_no_sample_is_taken_twice_even_if_it_is_the_mean_itself() -> None:
    # A norm without axis, or no mask, takes the central sample again and again.
    features = unit(0.0, 20.0, 40.0)
    assert herding(features, 3)[0] == 1
    assert sorted(herding(features, 3)) == [0, 1, 2]


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 5))
def test_never_a_repeat_and_never_more_than_there_are(samples: int, count: int, seed: int) -> None:
    features = torch.randn(samples, 4, generator=torch.Generator().manual_seed(seed)).round()
    chosen = herding(features, count)
    assert len(chosen) == len(set(chosen)) == min(samples, count)


def test_length_of_features_does_not_matter() -> None:
    features = unit(10.0, 30.0, 70.0)
    stretched = features * torch.tensor([[1.0], [100.0], [0.1]], dtype=torch.float64)
    assert herding(features, 2) == herding(stretched, 2)


@pytest.mark.parametrize(("budget", "seen", "quota"), [(50, 2, 25), (50, 4, 12), (3, 4, 1), (0, 4, 0)])
def test_quota_is_the_floor_and_at_least_one(budget: int, seen: int, quota: int) -> None:
    assert Memory(budget).quota(seen) == quota


def test_learn_shrinks_old_classes_to_their_best() -> None:
    memory = Memory(6)
    memory.learn({7: (np.array([10, 11, 12, 13]), unit(0.0, 10.0, 50.0, 90.0))}, seen=2)
    best = memory.positions[7].tolist()
    assert len(best) == 3
    memory.learn({8: (np.array([20, 21, 22]), unit(0.0, 1.0, 2.0))}, seen=3)
    assert memory.positions[7].tolist() == best[:2]
    assert len(memory.positions[8]) == 2
    assert memory.all().tolist() == [*best[:2], *memory.positions[8].tolist()]


def test_class_without_samples_is_left_out() -> None:
    memory = Memory(6)
    memory.learn({7: (np.empty(0, np.int64), torch.zeros(0, 2))}, seen=1)
    assert memory.positions == {}


def test_state_is_small_and_comes_back() -> None:
    memory = Memory(4)
    memory.learn({300: (np.array([70_000, 5]), unit(0.0, 9.0)), 2: (np.array([1]), unit(0.0))}, seen=2)
    state = memory.state()
    assert {name: array.dtype.name for name, array in state.items()} == {
        "exemplars/labels": "uint16",
        "exemplars/counts": "uint8",
        "exemplars/positions": "uint32",
    }
    other = Memory(4)
    other.restore(state)
    assert {k: v.tolist() for k, v in other.positions.items()} == {
        k: v.tolist() for k, v in memory.positions.items()
    }
    assert other.all().dtype == np.int64


def test_empty_state_forgets() -> None:
    memory = Memory(4)
    memory.restore(Memory(4).state())
    assert memory.positions == {}
    memory.positions = {1: np.array([3])}
    memory.restore({})
    assert len(memory.all()) == 0


def test_labels_are_those_under_which_exemplars_are_kept() -> None:
    memory = Memory(6)
    memory.positions = {4: np.array([9, 2]), 1: np.array([5])}
    assert memory.all().tolist() == [9, 2, 5]
    assert memory.labels().tolist() == [4, 4, 1]
    assert Memory(6).labels().tolist() == []
