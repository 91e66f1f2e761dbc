from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.data.partition import dirichlet, iid, owners, shards
from engram.data.seeding import random_state
from engram.errors import ConfigurationError
from engram.spec.data import Partition

METHODS = st.sampled_from(["iid", "dirichlet", "shards"])
LABELS = st.lists(st.integers(0, 4), max_size=80)


def partition(method: str, alpha: float = 0.5, min_samples: int = 0) -> Partition:
    return Partition.model_validate({"method": method, "alpha": alpha, "minSamples": min_samples})


@given(method=METHODS, labels=LABELS, workers=st.integers(1, 12), seed=st.integers(0, 999))
def test_every_sample_has_one_owner_and_the_draw_repeats(
    method: str, labels: list[int], workers: int, seed: int
) -> None:
    array = np.array(labels, np.int64)
    first = owners(partition(method), array, workers, random_state(seed, "a"), 1)
    again = owners(partition(method), array, workers, random_state(seed, "a"), 1)
    assert len(first) == len(labels)
    assert np.array_equal(first, again)
    assert len(first) == 0 or (first.min() >= 0 and first.max() < workers)


@given(samples=st.integers(0, 60), workers=st.integers(1, 12), seed=st.integers(0, 99))
def test_iid_sizes_differ_by_at_most_one(samples: int, workers: int, seed: int) -> None:
    sizes = np.bincount(iid(samples, workers, random_state(seed)), minlength=workers)
    assert sizes.max() - sizes.min() <= 1


def test_iid_leaves_the_odd_sample_to_chance_not_to_the_first_worker() -> None:
    lucky = {int(iid(1, 8, random_state(seed))[0]) for seed in range(60)}
    assert lucky == set(range(8))


def test_shards_give_each_worker_few_classes() -> None:
    labels = np.repeat(np.arange(10), 30)
    found = shards(labels, 10, random_state(3))
    assert np.bincount(found).tolist() == [30] * 10
    assert max(len(np.unique(labels[found == worker])) for worker in range(10)) <= 4


def test_shards_of_fewer_samples_than_shards() -> None:
    assert len(shards(np.zeros(3, np.int64), 5, random_state(0))) == 3
    assert len(shards(np.zeros(0, np.int64), 5, random_state(0))) == 0


@given(
    alpha=st.floats(1e-300, 1e6),
    labels=LABELS,
    workers=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_dirichlet_is_sound_for_every_alpha(alpha: float, labels: list[int], workers: int, seed: int) -> None:
    found = dirichlet(np.array(labels, np.int64), workers, alpha, 0, random_state(seed))
    assert found is not None
    assert len(found) == len(labels)


def test_dirichlet_concentration_orders_evenness() -> None:
    labels = np.zeros(10_000, np.int64)

    def spread(alpha: float) -> float:
        sizes = [np.bincount(_drawn(labels, 10, alpha, seed), minlength=10) for seed in range(30)]
        return float(np.mean(np.std(sizes, axis=1)))

    assert spread(0.1) > spread(0.5) > spread(5.0) > spread(500.0)
    assert spread(1e6) < 5
    assert np.bincount(_drawn(labels, 10, 1e-6, 1), minlength=10).max() == 10_000


def test_dirichlet_shares_have_the_variance_of_the_distribution() -> None:
    labels = np.zeros(1000, np.int64)
    alpha, workers = 0.5, 5
    shares = np.array([(_drawn(labels, workers, alpha, seed) == 0).mean() for seed in range(800)])
    expected = (1 / workers) * (1 - 1 / workers) / (alpha * workers + 1)
    assert shares.mean() == pytest.approx(1 / workers, abs=0.03)
    assert shares.var() == pytest.approx(expected, rel=0.15)


def test_dirichlet_draws_each_class_by_itself() -> None:
    labels = np.repeat(np.arange(4), 500)
    found = _drawn(labels, 5, 0.3, 7)
    table = np.array([np.bincount(found[labels == label], minlength=5) for label in range(4)])
    assert len({tuple(row) for row in table.tolist()}) == 4


@given(seed=st.integers(0, 300), needed=st.integers(1, 8))
def test_redraw_until_every_worker_has_enough(seed: int, needed: int) -> None:
    labels = np.repeat(np.arange(2), 60)
    wanted = partition("dirichlet", 0.5, needed)
    found = owners(wanted, labels, 5, random_state(seed), 1)
    assert np.bincount(found, minlength=5).min() >= needed


def test_samples_of_a_worker_are_not_the_first_of_a_sorted_file() -> None:
    labels = np.zeros(200, np.int64)
    for method in ("iid", "dirichlet", "shards"):
        found = owners(partition(method, 100.0), labels, 2, random_state(5), 1)
        assert 20 < (found[:100] == 0).sum() < 80, method


def test_more_samples_asked_for_than_there_are() -> None:
    labels = np.zeros(20, np.int64)
    with pytest.raises(
        ConfigurationError, match=r"need 40 samples, but task 3 has 20.*write 2 or less"
    ) as caught:
        owners(partition("iid", min_samples=4), labels, 10, random_state(0), 3)
    assert caught.value.field == "spec.dataset.partition.minSamples"


def test_number_of_redraws_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.data.partition.MAX_DRAWS", 50)
    labels = np.zeros(100, np.int64)
    with pytest.raises(ConfigurationError, match=r"10 workers 10 samples of task 2.*larger alpha"):
        owners(partition("dirichlet", 0.01, 10), labels, 10, random_state(0), 2)


def _drawn(
    labels: np.ndarray[tuple[int], np.dtype[np.int64]], workers: int, alpha: float, seed: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    found = dirichlet(labels, workers, alpha, 0, random_state(seed, "drawn"))
    assert found is not None
    return found
