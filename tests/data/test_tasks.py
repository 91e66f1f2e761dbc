from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.data import class_order
from engram.errors import ConfigurationError
from engram.spec.job import FederatedIncrementalJob

MakeJob = Callable[..., FederatedIncrementalJob]

ORDERS = {
    0: [2, 8, 4, 9, 1, 6, 7, 3, 0, 5],
    1: [2, 9, 6, 4, 0, 3, 1, 7, 8, 5],
    2: [4, 1, 5, 0, 7, 2, 3, 6, 9, 8],
}
"""The class orders of fashion-fcil-20 (learning.md)."""


@pytest.mark.parametrize("seed", ORDERS)
def test_shuffled_order_is_the_one_of_the_benchmark(make_job: MakeJob, seed: int) -> None:
    tasks = class_order(make_job(seed=seed), 10)
    assert [label for task in tasks for label in task] == ORDERS[seed]
    assert [len(task) for task in tasks] == [2] * 5
    assert all(type(label) is int for task in tasks for label in task)


def test_natural_order_takes_the_first_label_ids(make_job: MakeJob) -> None:
    job = make_job(tasks={"count": 2, "classesPerTask": 3, "classOrder": "natural"})
    assert class_order(job, 10) == ((0, 1, 2), (3, 4, 5))


def test_listed_order_is_as_written(make_job: MakeJob) -> None:
    tasks = {"count": 2, "classesPerTask": 2, "classOrder": "listed", "classes": [7, 0, 3, 9]}
    assert class_order(make_job(tasks=tasks), 10) == ((7, 0), (3, 9))


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 6),
    step=st.integers(1, 5),
    order=st.sampled_from(["shuffled", "natural"]),
)
def test_every_class_appears_once(make_job: MakeJob, seed: int, count: int, step: int, order: str) -> None:
    job = make_job(seed=seed, tasks={"count": count, "classesPerTask": step, "classOrder": order})
    tasks = class_order(job, 30)
    labels = [label for task in tasks for label in task]
    assert len(tasks) == count
    assert len(set(labels)) == len(labels) == count * step
    assert set(labels) <= set(range(30))


@pytest.mark.parametrize(
    ("tasks", "classes", "field", "words"),
    [
        ({"count": 6, "classesPerTask": 2}, 10, "spec.tasks.count", "need 12 classes, .* has 10.* count: 5"),
        ({"count": 1, "classesPerTask": 12}, 10, "spec.tasks.count", "classesPerTask: 10 or fewer"),
        (
            {"count": 2, "classesPerTask": 2, "classes": [0, 1, 2]},
            10,
            "spec.tasks.classes",
            "3 classes .* is 4",
        ),
        (
            {"count": 1, "classesPerTask": 2, "classes": [0, 12]},
            10,
            "spec.tasks.classes",
            "no class 12.* 0 to 9",
        ),
        (
            {"count": 1, "classesPerTask": 2, "classes": [4, 4]},
            10,
            "spec.tasks.classes",
            "class 4 .* more than",
        ),
    ],
)
def test_tasks_that_do_not_fit_the_data(
    make_job: MakeJob, tasks: dict[str, Any], classes: int, field: str, words: str
) -> None:
    order = "listed" if "classes" in tasks else "shuffled"
    job = make_job(tasks={**tasks, "classOrder": order})
    with pytest.raises(ConfigurationError, match=words) as caught:
        class_order(job, classes)
    assert caught.value.field == field
