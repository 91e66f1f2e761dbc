from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.federation.pace import LEAST_SECONDS, ROUNDS, Pace, remembered

seconds = st.floats(0.0, 1e6)


def paced(**taken: float) -> Pace:
    pace = Pace()
    for worker in taken:
        pace.ordered(worker, 100.0)
    for worker, duration in taken.items():
        pace.answered(worker, 100.0 + duration)
    return pace


def test_nothing_is_known_before_a_round_was_measured() -> None:
    assert paced(a=5.0, b=5.0).patience(2.0, ()) is None


def test_a_round_waits_the_factor_times_the_median_of_the_rounds_before() -> None:
    assert Pace().patience(2.0, (10.0, 30.0, 12.0)) == 24.0


def test_a_round_in_which_everybody_is_slower_waits_by_its_own_median() -> None:
    assert paced(a=50.0, b=60.0, c=70.0).patience(2.0, (10.0,)) == 120.0
    assert paced(a=5.0, b=6.0, c=7.0).patience(2.0, (10.0,)) == 20.0


def test_jitter_of_quick_rounds_makes_nobody_late() -> None:
    assert paced(a=0.01).patience(1.5, (0.01,)) == LEAST_SECONDS


def test_those_still_at_work_count_as_slow_ones_when_the_round_closes() -> None:
    pace = Pace()
    for worker in "abc":
        pace.ordered(worker, 0.0)
    pace.answered("a", 2.0)
    assert pace.closed(4.0) == 4.0


def test_a_worker_that_is_gone_or_had_its_update_ready_says_nothing_of_the_pace() -> None:
    pace = Pace()
    pace.ordered("a", 0.0)
    pace.gone("a")
    pace.answered("b", 9.0)
    assert pace.closed(10.0) is None


def test_a_worker_that_came_back_is_measured_from_its_new_order() -> None:
    pace = Pace()
    pace.ordered("a", 0.0)
    pace.gone("a")
    pace.ordered("a", 50.0)
    pace.answered("a", 53.0)
    assert pace.closed(60.0) == 3.0


@given(st.lists(seconds, min_size=1, max_size=20), st.floats(1.1, 100.0), st.lists(seconds, max_size=20))
def test_patience_is_never_below_the_floor_nor_below_any_of_its_measures(
    before: list[float], factor: float, taken: list[float]
) -> None:
    pace = paced(**{f"w{index}": value for index, value in enumerate(taken)})
    patience = pace.patience(factor, before)
    assert patience is not None
    assert patience >= max(LEAST_SECONDS, factor * median(before))
    own = sum(value <= patience for value in taken)
    assert 2 * own >= len(taken), "half of those who came are never late"


@given(st.lists(st.one_of(st.none(), seconds), max_size=30))
def test_the_last_measured_rounds_are_remembered_in_their_order(closed: list[float | None]) -> None:
    before: tuple[float, ...] = ()
    for value in closed:
        before = remembered(before, value)
    measured = [value for value in closed if value is not None]
    assert list(before) == measured[-ROUNDS:]


@pytest.mark.parametrize("slow", [2, 3, 4])
def test_a_majority_of_slow_workers_is_waited_for_after_some_rounds(slow: int) -> None:
    """Rounds that close without most workers raise the median until half of them are in."""
    before: tuple[float, ...] = (1.0,)
    closes: float | None = None
    for _ in range(50):
        pace, took = Pace(), {f"w{index}": 10.0 if index < slow else 1.0 for index in range(5)}
        for worker in took:
            pace.ordered(worker, 0.0)
        for worker, duration in took.items():
            if duration == 1.0:
                pace.answered(worker, duration)
        closes = pace.patience(2.0, before)
        assert closes is not None
        for worker, duration in took.items():
            if 1.0 < duration <= closes:
                pace.answered(worker, duration)
        before = remembered(before, pace.closed(closes))
    assert closes is not None
    assert (closes >= 10.0) == (slow > 2)
