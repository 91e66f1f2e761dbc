"""Exemplars with pseudo-labels: which samples they are, and that hidden labels decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engram.data.types import DataSet
from engram.federation.messages import Tensors
from engram.learning.guesses import joined
from engram.learning.state import unpack

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld, World

FIRST = "trainworker-edge-0"
ALGORITHMS: Mapping[str, Mapping[str, Any]] = {"discmatch": {}, "semifci": {"helpers": 1}}
both = pytest.mark.parametrize("name", list(ALGORITHMS))


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def world(make_job: MakeJob, make_world: MakeWorld, name: str, exemplars: int, **parameters: Any) -> World:
    basis = {**ALGORITHMS[name], "exemplarsPerWorker": exemplars, "threshold": 0.5, **parameters}
    return make_world(make_job(name, basis, dataset={"labelRatio": 0.34}))


@both
def test_hidden_labels_decide_nothing(
    make_job: MakeJob, make_world: MakeWorld, dataset: DataSet, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With the labels of all unlabelled samples exchanged within their task, every bit stays the same."""
    made = world(make_job, make_world, name, 12)
    expected, counts = made.run()
    hidden = np.unique(np.concatenate([p.unlabelled for share in made.split.shares for p in share.tasks]))
    shown = np.concatenate([p.labelled for share in made.split.shares for p in share.tasks])
    exchanged = {0: 5, 5: 0, 3: 1, 1: 3, 4: 2, 2: 4}
    labels = dataset.train.labels.copy()
    only_hidden = np.setdiff1d(hidden, shown)
    labels[only_hidden] = [exchanged[label] for label in labels[only_hidden]]
    assert len(only_hidden) > 20
    again = world(make_job, make_world, name, 12)
    monkeypatch.setattr(dataset.train, "labels", labels)
    weights, found = again.run()
    assert same(weights, expected)
    assert found == counts


@both
@pytest.mark.parametrize(("off", "more"), [({}, True), ({"pseudoExemplars": False}, False)])
def test_workers_hold_both_kinds_where_labels_leave_room(
    make_job: MakeJob, make_world: MakeWorld, name: str, off: Mapping[str, Any], more: bool
) -> None:
    made = world(make_job, make_world, name, 36, **off)
    weights = made.task(1, None)
    answer = made.consolidate(1, weights)[FIRST]
    part = made.split.shares[0].tasks[0]
    assert (answer.metrics["exemplars"] > len(part.labelled)) is more
    _, kept = unpack(answer.state)
    assert set(part.labelled) <= set(kept["exemplars/positions"]) <= {*part.labelled, *part.unlabelled}


@both
@pytest.mark.parametrize(("candidates", "some"), [("task", True), ("seen", False)])
def test_a_model_that_sees_old_classes_everywhere_fills_no_exemplars_unless_it_is_asked_of_the_task(
    make_job: MakeJob, make_world: MakeWorld, name: str, candidates: str, some: bool
) -> None:
    made = world(make_job, make_world, name, 36, candidates=candidates)
    weights = made.central.begin_task(2, made.task(1, None))
    bias = weights["head.bias"].copy()
    bias[:2] = 100
    answer = made.consolidate(2, {**weights, "head.bias": bias})[FIRST]
    _, kept = unpack(answer.state)
    of_task = set(made.split.shares[0].tasks[1].unlabelled)
    assert bool(of_task & set(kept["exemplars/positions"])) is some


def test_semifci_without_pseudo_labels_keeps_labelled_samples_only(
    make_job: MakeJob, make_world: MakeWorld
) -> None:
    made = world(make_job, make_world, "semifci", 36, unlabelledWeight=0)
    answer = made.consolidate(1, made.task(1, None))[FIRST]
    assert answer.metrics["exemplars"] == len(made.split.shares[0].tasks[0].labelled)


def test_labelled_samples_come_first_class_by_class() -> None:
    found = joined({4: np.array([7, 1]), 2: np.array([3])}, {2: np.array([9, 8]), 4: np.array([], np.int64)})
    assert {label: positions.tolist() for label, positions in found.items()} == {4: [7, 1], 2: [3, 9, 8]}
