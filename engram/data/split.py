"""Who holds what, and when: the split of a job, a pure function of its spec, its workers and the labels.

Every process of a run computes it alone and compares digests, so no indices travel over the network.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.data.partition import Owners, owners
from engram.data.scarcity import labelled_mask
from engram.data.seeding import random_state
from engram.data.selection import evaluation_samples, training_samples
from engram.data.tasks import class_order
from engram.data.types import DataSet, ImageSource, Indices, Split, TaskShare, WorkerShare
from engram.errors import ConfigurationError
from engram.spec.job import FederatedIncrementalJob, WorkerIdentity
from engram.spec.parameters import NONE

Tasks = tuple[tuple[int, ...], ...]


def make_split(job: FederatedIncrementalJob, dataset: DataSet) -> Split:
    """Return the split of `job` over all its workers.

    With partition `local` nobody knows what the others hold: `shares` is empty, `local_share` gives one's
    own, and the digest covers what all must agree on (tasks, seed, class names, image shape).

    Raises ConfigurationError for too few classes, more workers than samples, or a `minSamples` out of reach.
    """
    if dataset.name == NONE:
        return _nothing_to_split(job)
    tasks = class_order(job, len(dataset.class_names))
    classes = [label for task in tasks for label in task]
    training, held_out = training_samples(job, dataset.train.labels, classes)
    validation = job.spec.dataset.validation_share > 0
    test = held_out if validation else evaluation_samples(job, dataset.test.labels, classes)
    workers = job.workers()
    local = job.spec.dataset.partition.method == "local"
    shares = () if local else _shares(job, workers, dataset.train.labels, tasks, training)
    where = "validation" if validation else "test"
    untested = np.setdiff1d(classes, (dataset.train if validation else dataset.test).labels[test])
    warnings = [f"class {label} ({dataset.class_names[label]}) has no {where} samples" for label in untested]
    warnings += [
        f"class {label} ({dataset.class_names[label]}) has no training samples"
        for label, positions in training.items()
        if len(positions) == 0 and not local
    ]
    for share in shares:
        warnings += share_warnings(share)
    facts: dict[str, Any] = {"tasks": tasks, "validation": validation, "seed": job.spec.seed}
    if local:
        facts |= {"partition": "local", "classes": dataset.class_names, "shape": dataset.train.shape}
        digest = _digest(facts, ())
    else:
        facts |= {"dataset": dataset.sha256, "workers": [worker.name for worker in workers]}
        _check_labels(shares, dataset, tasks)
        parts = [
            part for share in shares for task in share.tasks for part in (task.labelled, task.unlabelled)
        ]
        digest = _digest(facts, [test, *parts])
    return Split(tasks, shares, test, validation, digest, tuple(warnings))


def _nothing_to_split(job: FederatedIncrementalJob) -> Split:
    """Return the split of data that only the workers know: one task without classes."""
    nothing = np.empty(0, np.int64)
    shares = tuple(WorkerShare(worker.name, (TaskShare(nothing, nothing),)) for worker in job.workers())
    return Split(((),), shares, nothing, False, _digest({"dataset": NONE}, ()))


def local_share(job: FederatedIncrementalJob, worker: WorkerIdentity, dataset: DataSet) -> WorkerShare:
    """Return what `worker` holds: its part of the computed split.

    With partition `local`: all that its own `dataset` has of each task's classes, after `samplesPerClass` and
    without the validation hold-out.
    """
    if job.spec.dataset.partition.method != "local":
        return make_split(job, dataset).shares[worker.position]
    tasks = class_order(job, len(dataset.class_names))
    labels = dataset.train.labels
    training, _ = training_samples(job, labels, [label for task in tasks for label in task])
    found = []
    for number, task in enumerate(tasks, start=1):
        positions = _positions(training, task)
        nobody_else = np.zeros(len(positions), np.int64)
        random = random_state(job.spec.seed, "labels", worker.name, number)
        mask = labelled_mask(labels[positions], nobody_else, [worker.label_ratio], random)
        found.append(TaskShare(positions[mask], positions[~mask]))
    return WorkerShare(worker.name, tuple(found))


def share_warnings(share: WorkerShare) -> list[str]:
    """Return a sentence that names the worker and the tasks of which it holds nothing, if there are any."""
    return empty_warnings(share.worker, [len(task.labelled) + len(task.unlabelled) for task in share.tasks])


def empty_warnings(worker: str, samples: Sequence[int]) -> list[str]:
    """As `share_warnings`, from the number of samples that `worker` holds of each task."""
    empty = [task for task, count in enumerate(samples, 1) if count == 0]
    if not empty:
        return []
    numbers = f"task {empty[0]}" if len(empty) == 1 else f"tasks {', '.join(map(str, empty))}"
    return [f"{worker} holds no samples of {numbers}; it takes part when it has data"]


def evaluation_source(split: Split, dataset: DataSet) -> ImageSource:
    """Return the source that `split.test` indexes."""
    return dataset.train if split.validation else dataset.test


def label_counts(split: Split, dataset: DataSet, share: WorkerShare) -> tuple[dict[int, int], dict[int, int]]:
    """Return label id -> number of labelled, and of unlabelled, samples that `share` holds.

    Every class of the job is a key, in learning order.
    """
    labels = dataset.train.labels
    nothing = [np.empty(0, np.int64)]
    labelled = np.concatenate(nothing + [task.labelled for task in share.tasks])
    unlabelled = np.concatenate(nothing + [task.unlabelled for task in share.tasks])
    return _counts(split, labels[labelled]), _counts(split, labels[unlabelled])


def test_counts(split: Split, dataset: DataSet) -> dict[int, int]:
    """Return label id -> number of samples that evaluation uses, every class of the job in learning order."""
    return _counts(split, evaluation_source(split, dataset).labels[split.test])


def _counts(split: Split, labels: NDArray[np.int64]) -> dict[int, int]:
    found = np.bincount(labels, minlength=1 + max(max(task, default=0) for task in split.tasks))
    return {label: int(found[label]) for task in split.tasks for label in task}


def _shares(
    job: FederatedIncrementalJob,
    workers: Sequence[WorkerIdentity],
    labels: NDArray[np.int64],
    tasks: Tasks,
    training: dict[int, Indices],
) -> tuple[WorkerShare, ...]:
    samples = sum(len(positions) for positions in training.values())
    if samples < len(workers):
        raise ConfigurationError(
            f"{len(workers)} workers share {samples} training samples, so some would never hold any",
            field="spec.workers",
            remedy=f"write at most {samples} replicas in all, or raise spec.dataset.samplesPerClass",
        )
    seed, partition = job.spec.seed, job.spec.dataset.partition
    ratios = [worker.label_ratio for worker in workers]
    found: list[list[TaskShare]] = [[] for _ in workers]
    for number, task in enumerate(tasks, start=1):
        positions = _positions(training, task)
        random = random_state(seed, partition.method, number)
        owner = owners(partition, labels[positions], len(workers), random, number)
        mask = labelled_mask(labels[positions], owner, ratios, random_state(seed, "labels", number))
        for share, task_share in zip(found, _cut(positions, owner, mask, len(workers)), strict=True):
            share.append(task_share)
    return tuple(WorkerShare(w.name, tuple(own)) for w, own in zip(workers, found, strict=True))


def _check_labels(shares: Sequence[WorkerShare], dataset: DataSet, tasks: Tasks) -> None:
    """Raise ConfigurationError for a class of which workers hold samples, and nobody a label."""
    labels = dataset.train.labels
    for number, task in enumerate(tasks, start=1):
        held = [share.tasks[number - 1] for share in shares]
        shown = np.unique(labels[np.concatenate([part.labelled for part in held])])
        hidden = labels[np.concatenate([part.unlabelled for part in held])]
        nameless = [label for label in task if label not in shown and label in hidden]
        if nameless:
            label = nameless[0]
            owners = [
                share.worker
                for share, part in zip(shares, held, strict=True)
                if label in labels[part.unlabelled]
            ]
            raise ConfigurationError(
                f"class {label} ({dataset.class_names[label]}) of task {number} has no label on any worker: "
                f"only {', '.join(owners[:3])} {'hold' if len(owners) > 1 else 'holds'} images of it, and "
                "may see no label",
                field="spec.dataset.labelRatio",
                remedy="give a group that holds them a labelRatio above 0, or raise partition.alpha or "
                "minSamples so that others hold some too",
            )


def _positions(training: dict[int, Indices], task: Sequence[int]) -> Indices:
    return np.sort(np.concatenate([training[label] for label in task]))


def _cut(positions: Indices, owner: Owners, mask: NDArray[np.bool_], workers: int) -> list[TaskShare]:
    order = np.argsort(owner, kind="stable")  # stable: a worker's positions stay in file order
    bounds = np.searchsorted(owner[order], np.arange(workers + 1))
    held = [order[start:end] for start, end in itertools.pairwise(bounds)]
    return [TaskShare(positions[own[mask[own]]], positions[own[~mask[own]]]) for own in held]


def _digest(facts: dict[str, Any], arrays: Sequence[Indices]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    for array in arrays:
        digest.update(len(array).to_bytes(8, "little"))
        digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()
