from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engram.data
from engram.data import DataSet, Split, label_counts, load_dataset, local_share, make_split, share_warnings
from engram.data.scarcity import labelled_count
from engram.data.sources.idx import DEBIAN_FASHION_MNIST
from engram.errors import ConfigurationError
from engram.spec.job import FederatedIncrementalJob

MakeJob = Callable[..., FederatedIncrementalJob]
MakeDataSet = Callable[..., DataSet]

GOLDEN_DIGITS = "ab17cf464c7a59145d24cde0c877180eac680be9da450a83c181a89905845fe1"
"""Digest of the demo's split. It changes only when a job no longer gives the split that it gave before: then
say so in CHANGELOG, as published results cannot be compared any more."""


def held(split: Split, worker: int) -> list[int]:
    parts = [[*task.labelled, *task.unlabelled] for task in split.shares[worker].tasks]
    return [int(index) for part in parts for index in part]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    workers=st.integers(1, 8),
    method=st.sampled_from(["iid", "dirichlet", "shards"]),
    ratio=st.floats(0.01, 1),
    cap=st.none() | st.integers(8, 60),
    validation=st.sampled_from([0, 0.25]),
    counts=st.lists(st.integers(8, 40), min_size=6, max_size=9),
)
def test_properties_of_every_split(
    make_job: MakeJob,
    make_dataset: MakeDataSet,
    seed: int,
    workers: int,
    method: str,
    ratio: float,
    cap: int | None,
    validation: float,
    counts: list[int],
) -> None:
    dataset = make_dataset(counts)
    job = make_job(
        workers,
        seed=seed,
        tasks={"count": 3, "classesPerTask": 2},
        partition={"method": method},
        labelRatio=ratio,
        samplesPerClass=cap,
        validationShare=validation,
    )
    split = make_split(job, dataset)
    labels = dataset.train.labels
    everything = [index for worker in range(workers) for index in held(split, worker)]
    assert len(everything) == len(set(everything)), "a sample has two owners"
    for task, classes in enumerate(split.tasks):
        for share in split.shares:
            own = share.tasks[task]
            own_labels = labels[np.concatenate([own.labelled, own.unlabelled])]
            assert set(own_labels.tolist()) <= set(classes), "a class of another task leaked"
            assert np.all(np.diff(own.labelled) > 0)
            assert np.all(np.diff(own.unlabelled) > 0)
            for label in classes:
                samples = int((own_labels == label).sum())
                assert (labels[own.labelled] == label).sum() == labelled_count(ratio, samples)
    for label in (label for task in split.tasks for label in task):
        of_class = np.flatnonzero(labels == label)
        kept = len(of_class) if cap is None else min(cap, len(of_class))
        out = int((labels[split.test] == label).sum()) if validation else 0
        assert len(set(everything) & set(of_class.tolist())) == kept - out, "samples are missing"
        assert out == (int(validation * kept + 0.5) or 1 if validation else 0)
    if validation:
        assert not set(split.test.tolist()) & set(everything), "held-out samples are trained on"
    again = make_split(job, dataset)
    assert again.digest == split.digest
    assert [held(again, w) for w in range(workers)] == [held(split, w) for w in range(workers)]


@pytest.mark.parametrize("method", ["iid", "dirichlet", "shards"])
def test_who_asks_first_changes_nothing(make_job: MakeJob, make_dataset: MakeDataSet, method: str) -> None:
    job, dataset = make_job(4, partition={"method": method}, labelRatio=0.3), make_dataset()
    np.random.seed(1)  # no global generator takes part
    split = make_split(job, dataset)
    for worker in reversed(job.workers()):
        np.random.seed(worker.position + 10)
        share = local_share(job, worker, dataset)
        assert share.worker == split.shares[worker.position].worker == worker.name
        for own, expected in zip(share.tasks, split.shares[worker.position].tasks, strict=True):
            assert np.array_equal(own.labelled, expected.labelled)
            assert np.array_equal(own.unlabelled, expected.unlabelled)


def test_digest_covers_what_decides_the_result(make_job: MakeJob, make_dataset: MakeDataSet) -> None:
    def digest(dataset: DataSet | None = None, workers: Any = 3, **keys: Any) -> str:
        return make_split(make_job(workers, **keys), dataset or make_dataset()).digest

    changed = {
        "nothing": digest(),
        "seed": digest(seed=1),
        "workers": digest(workers=4),
        "names": digest(workers=[{"name": "cloud", "replicas": 3}]),
        "alpha": digest(partition={"alpha": 0.6}),
        "method": digest(partition={"method": "iid"}),
        "labels": digest(labelRatio=0.5),
        "cap": digest(samplesPerClass=10),
        "test": digest(testSamplesPerClass=2),
        "validation": digest(validationShare=0.1),
        "tasks": digest(tasks={"count": 2, "classesPerTask": 5}),
        "order": digest(tasks={"count": 5, "classesPerTask": 2, "classOrder": "natural"}),
        "data": digest(make_dataset((41,) * 10)),
    }
    assert len(set(changed.values())) == len(changed), changed
    assert digest() == changed["nothing"]


def test_caps_take_a_drawn_training_set_and_the_first_of_the_test_set(
    make_job: MakeJob, make_dataset: MakeDataSet
) -> None:
    dataset = make_dataset((100,) * 10, test=9)
    split = make_split(make_job(samplesPerClass=20, testSamplesPerClass=4), dataset)
    assert split.test.tolist() == [9 * label + index for label in range(10) for index in range(4)]
    trained = np.sort([index for worker in range(3) for index in held(split, worker)])
    assert np.bincount(dataset.train.labels[trained]).tolist() == [20] * 10
    assert (trained % 100).max() > 80, "the first ones of each class"
    other = make_split(make_job(seed=1, samplesPerClass=20, testSamplesPerClass=4), dataset)
    assert {index for worker in range(3) for index in held(other, worker)} != set(trained.tolist())
    assert engram.data.test_counts(split, dataset) == {label: 4 for task in split.tasks for label in task}


def test_validation_replaces_the_test_set(make_job: MakeJob, make_dataset: MakeDataSet) -> None:
    dataset = make_dataset((50,) * 10)
    split = make_split(make_job(validationShare=0.2, testSamplesPerClass=1), dataset)
    assert split.validation
    assert engram.data.evaluation_source(split, dataset) is dataset.train
    assert engram.data.test_counts(split, dataset) == {label: 10 for task in split.tasks for label in task}
    other = make_split(make_job(seed=1, validationShare=0.2), dataset)
    assert not np.array_equal(other.test, split.test)
    plain = make_split(make_job(), dataset)
    assert not plain.validation
    assert engram.data.evaluation_source(plain, dataset) is dataset.test


def test_classes_outside_the_tasks_are_left_alone(make_job: MakeJob, make_dataset: MakeDataSet) -> None:
    dataset = make_dataset()
    job = make_job(tasks={"count": 2, "classesPerTask": 2, "classOrder": "listed", "classes": [7, 1, 3, 5]})
    split = make_split(job, dataset)
    trained = [index for worker in range(3) for index in held(split, worker)]
    assert set(dataset.train.labels[trained].tolist()) == {1, 3, 5, 7}
    assert set(dataset.test.labels[split.test].tolist()) == {1, 3, 5, 7}


def test_label_counts_name_every_class(make_job: MakeJob, make_dataset: MakeDataSet) -> None:
    dataset = make_dataset((20,) * 10)
    split = make_split(make_job(2, partition={"method": "iid"}, labelRatio=0.5), dataset)
    both = [label_counts(split, dataset, share) for share in split.shares]
    for label in range(10):
        assert sum(labelled[label] + unlabelled[label] for labelled, unlabelled in both) == 20
    assert list(both[0][0]) == [label for task in split.tasks for label in task]
    for share, (labelled, unlabelled) in zip(split.shares, both, strict=True):
        assert sum(labelled.values()) + sum(unlabelled.values()) == share.samples


def test_a_group_may_hold_unlabelled_data_only(make_job: MakeJob, make_dataset: MakeDataSet) -> None:
    groups = [
        {"name": "cloud", "replicas": 1},
        {"name": "edge", "replicas": 2, "dataset": {"labelRatio": 0}},
    ]
    dataset = make_dataset()
    split = make_split(make_job(groups, partition={"method": "iid"}), dataset)
    labelled = [sum(label_counts(split, dataset, share)[0].values()) for share in split.shares]
    assert labelled[0] == split.shares[0].samples > 0
    assert labelled[1:] == [0, 0]
    assert split.shares[1].samples > 0


def test_a_worker_that_holds_nothing_of_a_task_is_named(make_job: MakeJob, make_dataset: MakeDataSet) -> None:
    dataset = make_dataset((1, 1, 1, 1))
    job = make_job(4, tasks={"count": 2, "classesPerTask": 2}, partition={"method": "iid"})
    split = make_split(job, dataset)
    empty = {
        share.worker: [n for n, task in enumerate(share.tasks, 1) if not len(task.labelled)]
        for share in split.shares
    }
    assert sum(len(tasks) for tasks in empty.values()) == 4
    for worker, tasks in empty.items():
        named = [sentence for sentence in split.warnings if worker in sentence]
        assert len(named) == (1 if tasks else 0)
        assert all(str(task) in named[0] for task in tasks)


def test_a_class_without_samples_is_named(make_job: MakeJob, make_dataset: MakeDataSet) -> None:
    job = make_job(1, tasks={"count": 2, "classesPerTask": 2})
    split = make_split(job, make_dataset((5, 0, 5, 5), test=0))
    assert "class 1 (class 1) has no training samples" in split.warnings
    assert sum("has no test samples" in sentence for sentence in split.warnings) == 4
    assert engram.data.test_counts(split, make_dataset((5, 0, 5, 5), test=0)) == {0: 0, 1: 0, 2: 0, 3: 0}


def test_more_workers_than_samples(make_job: MakeJob, make_dataset: MakeDataSet) -> None:
    job = make_job(9, tasks={"count": 2, "classesPerTask": 2})
    with pytest.raises(ConfigurationError, match=r"9 workers share 8 training samples.*at most 8") as caught:
        make_split(job, make_dataset((2, 2, 2, 2)))
    assert caught.value.field == "spec.workers"
    assert caught.value.exit_code == 42


def test_min_samples_out_of_reach_names_the_field(make_job: MakeJob, make_dataset: MakeDataSet) -> None:
    with pytest.raises(ConfigurationError, match=r"minSamples"):
        make_split(make_job(5, partition={"minSamples": 17}), make_dataset())


class TestLocal:
    """partition.method local: each worker owns all that its own volume holds."""

    def test_a_worker_holds_all_of_its_own_data(self, make_job: MakeJob, make_dataset: MakeDataSet) -> None:
        dataset = make_dataset((30,) * 10)
        job = make_job(3, partition={"method": "local"}, labelRatio=0.2)
        worker = job.workers()[1]
        share = local_share(job, worker, dataset)
        split = make_split(job, dataset)
        assert share.worker == worker.name
        assert share.samples == 300
        assert split.shares == ()
        labelled, unlabelled = label_counts(split, dataset, share)
        assert set(labelled.values()) == {6}
        assert set(unlabelled.values()) == {24}
        other = local_share(job, job.workers()[2], dataset)
        assert not np.array_equal(share.tasks[0].labelled, other.tasks[0].labelled)

    def test_all_agree_on_the_digest_whatever_they_hold(
        self, make_job: MakeJob, make_dataset: MakeDataSet
    ) -> None:
        job = make_job(3, partition={"method": "local"})
        mine, theirs = make_split(job, make_dataset((30,) * 10)), make_split(job, make_dataset((7,) * 10))
        assert mine.digest == theirs.digest
        assert (
            mine.digest
            != make_split(make_job(3, seed=1, partition={"method": "local"}), make_dataset()).digest
        )

    def test_other_classes_are_another_digest(self, make_job: MakeJob, make_dataset: MakeDataSet) -> None:
        job = make_job(3, partition={"method": "local"}, tasks={"count": 2, "classesPerTask": 2})
        assert (
            make_split(job, make_dataset((9,) * 4)).digest != make_split(job, make_dataset((9,) * 5)).digest
        )

    def test_a_worker_without_a_class_has_empty_tasks(
        self, make_job: MakeJob, make_dataset: MakeDataSet
    ) -> None:
        tasks = {"count": 2, "classesPerTask": 1, "classOrder": "natural"}
        job = make_job(1, partition={"method": "local"}, tasks=tasks)
        share = local_share(job, job.workers()[0], make_dataset((4, 0)))
        assert [len(task.labelled) for task in share.tasks] == [4, 0]
        assert "task 2" in share_warnings(share)[0]

    def test_validation_is_held_out_on_every_worker(
        self, make_job: MakeJob, make_dataset: MakeDataSet
    ) -> None:
        job, dataset = make_job(2, partition={"method": "local"}, validationShare=0.5), make_dataset()
        split = make_split(job, dataset)
        for worker in job.workers():
            share = local_share(job, worker, dataset)
            trained = {index for task in share.tasks for index in task.labelled.tolist()}
            assert not trained & set(split.test.tolist())
            assert len(trained) == 200


def test_digits_split_is_the_one_published(make_job: MakeJob) -> None:
    dataset = load_dataset("digits", None)
    split = make_split(make_job(5, partition={"method": "dirichlet", "alpha": 1.0}, labelRatio=0.5), dataset)
    assert split.digest == GOLDEN_DIGITS
    assert [share.samples for share in split.shares] == [274, 306, 348, 153, 361]


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is not installed")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fashion_fcil_20_obeys_its_definition(make_job: MakeJob, seed: int) -> None:
    dataset = load_dataset("fashion-mnist", None)
    job = make_job(
        5,
        seed=seed,
        name="fashion-mnist",
        samplesPerClass=300,
        testSamplesPerClass=200,
        labelRatio=0.2,
        partition={"method": "dirichlet", "alpha": 0.5, "minSamples": 8},
    )
    started = time.process_time()
    split = make_split(job, dataset)
    assert time.process_time() - started < 1
    assert engram.data.test_counts(split, dataset) == {label: 200 for task in split.tasks for label in task}
    for label in range(10):
        first = np.flatnonzero(dataset.test.labels == label)[:200]
        assert set(first.tolist()) <= set(split.test.tolist())
    counts = [label_counts(split, dataset, share) for share in split.shares]
    for label in range(10):
        assert sum(labelled[label] + unlabelled[label] for labelled, unlabelled in counts) == 300
        for labelled, unlabelled in counts:
            assert labelled[label] == labelled_count(0.2, labelled[label] + unlabelled[label])
    for share in split.shares:
        assert min(len(task.labelled) + len(task.unlabelled) for task in share.tasks) >= 8
    assert split.warnings == ()


def test_a_class_that_nobody_may_see_a_label_of_is_refused_by_name(
    make_job: MakeJob, make_dataset: MakeDataSet
) -> None:
    groups = [
        {"name": "edge", "replicas": 1, "dataset": {"labelRatio": 0}},
        {"name": "far", "replicas": 1, "dataset": {"labelRatio": 1}},
    ]
    refused: list[ConfigurationError] = []
    for seed in range(20):
        tasks = {"count": 3, "classesPerTask": 2}
        job = make_job(groups, seed=seed, tasks=tasks, partition={"method": "dirichlet", "alpha": 0.2})
        dataset = make_dataset([20] * 6)
        try:
            split = make_split(job, dataset)
        except ConfigurationError as error:
            refused.append(error)
            continue
        for blind, seeing in zip(*(share.tasks for share in split.shares), strict=True):
            hidden = set(dataset.train.labels[blind.unlabelled])
            assert hidden <= set(dataset.train.labels[seeing.labelled])
    assert 0 < len(refused) < 20
    assert {error.field for error in refused} == {"spec.dataset.labelRatio"}
    only = "has no label on any worker: only trainworker-edge-0 holds images of it"
    assert all(only in str(error) for error in refused)
