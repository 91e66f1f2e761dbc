"""Which classes appear in which task: fixed by the job alone, never by what a worker happens to see first."""

from __future__ import annotations

from collections import Counter

import numpy as np

from engram.errors import ConfigurationError
from engram.spec.job import FederatedIncrementalJob


def class_order(job: FederatedIncrementalJob, class_count: int) -> tuple[tuple[int, ...], ...]:
    """Return the label ids of each task in learning order, for a data set of `class_count` classes.

    `shuffled` is `numpy.random.RandomState(seed).permutation(class_count)` cut to what the tasks need.
    Raises ConfigurationError when the data set has too few classes or the list does not fit the tasks.
    """
    tasks, name = job.spec.tasks, job.spec.dataset.name
    needed = tasks.count * tasks.classes_per_task
    if tasks.class_order == "listed":
        _check_listed(tasks.classes, needed, class_count, name)
        order = list(tasks.classes)
    elif needed > class_count:
        raise ConfigurationError(
            f"{tasks.count} tasks of {tasks.classes_per_task} classes need {needed} classes, "
            f"but data set {name} has {class_count}",
            field="spec.tasks.count",
            remedy=_fitting(tasks.classes_per_task, class_count),
        )
    elif tasks.class_order == "natural":
        order = list(range(needed))
    else:
        order = np.random.RandomState(job.spec.seed).permutation(class_count)[:needed].tolist()
    step = tasks.classes_per_task
    return tuple(tuple(order[start : start + step]) for start in range(0, needed, step))


def _fitting(classes_per_task: int, class_count: int) -> str:
    if classes_per_task > class_count:
        return f"write spec.tasks.classesPerTask: {class_count} or fewer"
    return f"write count: {class_count // classes_per_task} or fewer, or a smaller classesPerTask"


def _check_listed(classes: list[int], needed: int, class_count: int, name: str) -> None:
    field = "spec.tasks.classes"
    if len(classes) != needed:
        raise ConfigurationError(
            f"{len(classes)} classes are listed, but count x classesPerTask is {needed}",
            field=field,
            remedy=f"list {needed} label ids",
        )
    unknown = sorted({label for label in classes if label >= class_count})
    if unknown:
        raise ConfigurationError(
            f"data set {name} has no class {', '.join(map(str, unknown))}",
            field=field,
            remedy=f"write label ids from 0 to {class_count - 1}",
        )
    if len(set(classes)) != len(classes):
        twice = sorted(label for label, times in Counter(classes).items() if times > 1)
        raise ConfigurationError(
            f"class {', '.join(map(str, twice))} is listed more than once",
            field=field,
            remedy="list each label id once",
        )
