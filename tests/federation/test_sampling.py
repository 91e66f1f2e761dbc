from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.federation.sampling import Quorum, sample

WORKERS = [f"w{index}" for index in range(10)]


@pytest.mark.parametrize(
    ("written", "asked", "needed"),
    [
        ("100%", 5, 5),
        ("80%", 5, 4),
        ("80%", 3, 3),
        ("66.7%", 3, 3),
        ("66%", 3, 2),
        ("1%", 3, 1),
        (2, 3, 2),
        ("2", 3, 2),
        (9, 3, 3),
    ],
)
def test_quorum_rounds_up_and_stays_within_those_asked(written: int | str, asked: int, needed: int) -> None:
    assert Quorum.parse(written).of(asked) == needed


def test_a_percentage_that_is_exact_is_not_rounded_up_by_floating_point() -> None:
    assert all(Quorum.parse("70%").of(10 * n) == 7 * n for n in range(1, 100))


@given(
    fraction=st.floats(0.01, 1.0), task=st.integers(1, 9), round=st.integers(1, 9), count=st.integers(1, 10)
)
def test_sample_has_the_right_size_and_ignores_the_order_of_workers(
    fraction: float, task: int, round: int, count: int
) -> None:
    workers = WORKERS[:count]
    chosen = sample(3, task, round, workers, fraction)
    assert len(chosen) == max(1, int(fraction * count + 0.5))
    assert list(chosen) == sorted(set(chosen) & set(workers))
    assert chosen == sample(3, task, round, workers[::-1], fraction)


def test_samples_differ_between_rounds_and_seeds_and_ask_everybody_in_time() -> None:
    rounds = [sample(0, 1, round, WORKERS, 0.3) for round in range(1, 60)]
    assert len(set(rounds)) > 20
    assert {worker for chosen in rounds for worker in chosen} == set(WORKERS)
    assert rounds != [sample(1, 1, round, WORKERS, 0.3) for round in range(1, 60)]


def test_sample_is_pinned_so_that_a_new_version_continues_old_checkpoints() -> None:
    assert sample(7, 2, 3, WORKERS, 0.4) == ("w2", "w5", "w6", "w7")
