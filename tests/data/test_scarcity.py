from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.data.scarcity import labelled_count, labelled_mask
from engram.data.seeding import random_state


@pytest.mark.parametrize(
    ("ratio", "samples", "expected"),
    [(0.2, 0, 0), (0.2, 1, 1), (0.2, 7, 1), (0.2, 8, 2), (0.5, 5, 3), (0.1, 4, 1), (1.0, 9, 9), (0.0, 9, 0)],
)
def test_rounding_is_the_contract(ratio: float, samples: int, expected: int) -> None:
    assert labelled_count(ratio, samples) == expected


@given(
    pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=120),
    ratios=st.lists(st.floats(0, 1), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
def test_stratified_per_worker_and_class(
    pairs: list[tuple[int, int]], ratios: list[float], seed: int
) -> None:
    labels = np.array([label for label, _ in pairs], np.int64)
    owners = np.array([owner for _, owner in pairs], np.int64)
    mask = labelled_mask(labels, owners, ratios, random_state(seed))
    for owner, ratio in enumerate(ratios):
        for label in range(4):
            here = (labels == label) & (owners == owner)
            samples = int(here.sum())
            wanted = max(1, math.floor(ratio * samples + 0.5)) if ratio > 0 and samples else 0
            assert mask[here].sum() == wanted


def test_labelled_samples_are_not_the_first_of_ordered_data() -> None:
    labels = np.repeat(np.arange(5), 100)
    mask = labelled_mask(labels, np.zeros(500, np.int64), [0.2], random_state(0))
    for label in range(5):
        where = np.flatnonzero(mask[labels == label])
        assert len(where) == 20
        assert where.max() >= 60, "cut from the front of the class"
        assert where.min() < 40, "cut from the end of the class"


def test_every_sample_can_be_labelled() -> None:
    labels = np.zeros(20, np.int64)
    owners = np.zeros(20, np.int64)
    ever = sum(labelled_mask(labels, owners, [0.1], random_state(seed)).astype(int) for seed in range(300))
    assert np.min(ever) > 10


def test_a_smaller_ratio_labels_a_subset() -> None:
    labels, owners = np.repeat(np.arange(3), 50), np.arange(150) % 4
    few = labelled_mask(labels, owners, [0.1] * 4, random_state(8))
    more = labelled_mask(labels, owners, [0.4] * 4, random_state(8))
    assert not (few & ~more).any()
    assert more.sum() > few.sum()
