"""The measures of class-incremental learning, each one pure function of the accuracy matrix.

Notation: a[t][c] = accuracy on the test samples of class c after task t; n_c its test samples; K_j the
classes of task j; T tasks, counted from 1; R[t][j] = n-weighted mean of a[t][c] over K_j; b[j] = R of the
freshly initialised model. A class without test samples has no accuracy: it is left out of every sum and of
the number that the sum is divided by, and `classes_without_test` names it. What is undefined is None, never
0. Sums are exact (`math.fsum`), so the order of classes cannot change a result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from engram.metrics.matrix import AccuracyMatrix


def measure(matrix: AccuracyMatrix) -> dict[str, Any]:
    """Return every measure by its name: floats, lists with one entry a task, None where undefined."""
    accuracies = [accuracy(matrix, task) for task in range(1, matrix.tasks + 1)]
    forget_rates, drops = forget_rate_by_task(matrix), forgetting_by_task(matrix)
    return {
        "accuracy": _last(accuracies),
        "final_accuracy": _last(accuracies),
        "average_incremental_accuracy": average_incremental_accuracy(matrix),
        "forget_rate": _last(forget_rates),
        "forgetting": _last(drops),
        "backward_transfer": backward_transfer(matrix),
        "forward_transfer": forward_transfer(matrix),
        "forget_rate_ianvs": forget_rate_ianvs(matrix),
        "accuracy_by_task": accuracies,
        "forget_rate_by_task": forget_rates,
        "forgetting_by_task": drops,
        "newest_task_accuracy_by_task": [
            task_accuracy(matrix, task, task) for task in range(1, matrix.tasks + 1)
        ],
        "intransigence_by_task": intransigence_by_task(matrix),
        "forget_rate_ianvs_by_task": forget_rate_ianvs_by_task(matrix),
        "classes_without_test": classes_without_test(matrix),
    }


def accuracy(matrix: AccuracyMatrix, task: int) -> float | None:
    """acc_t = (1/N) sum over all test samples of seen classes of I(prediction = label): the micro average.

    Higher is better. Source: the project's proposal. N counts the samples of classes 1..t, so
    acc_t = sum_c n_c a[t][c] / sum_c n_c.
    """
    return _weighted(matrix, task, matrix.accuracy[task - 1])


def task_accuracy(matrix: AccuracyMatrix, after: int, task: int) -> float | None:
    """R[t][j] with t = `after`, j = `task`: the n-weighted mean of a[t][c] over K_j; higher is better.

    Defined for j <= t; for later tasks only where the classes not yet seen were evaluated.
    """
    if task > after:
        return matrix.unseen.get((after, task))
    return _weighted(matrix, after, matrix.classes[task - 1])


def average_incremental_accuracy(matrix: AccuracyMatrix) -> float | None:
    """(1/T) sum_t acc_t; higher is better. Source: iCaRL (Rebuffi et al., CVPR 2017)."""
    return _mean(accuracy(matrix, task) for task in range(1, matrix.tasks + 1))


def forget_rate_by_task(matrix: AccuracyMatrix) -> list[float | None]:
    """f_t = (1/C_old) sum over old classes c of (max over s < t of a[s][c] - a[t][c]); lower is better.

    Signed: negative when old classes got better. Per class, not per sample: a class that trades one right
    image for another has forgotten nothing. s runs from the class's own task on; f_1 is undefined. Source:
    the project's proposal, IEEE 10574196.
    """
    return [_mean(drops) for drops in _class_drops(matrix)]


def forget_rate(matrix: AccuracyMatrix, task: int) -> float | None:
    """Return f_t of one task; see `forget_rate_by_task`."""
    return forget_rate_by_task(matrix)[task - 1]


def forgetting_by_task(matrix: AccuracyMatrix) -> list[float | None]:
    """F_t = (1/(t-1)) sum_{j<t} (max_{s in j..t-1} R[s][j] - R[t][j]); lower is better.

    Signed: negative when old tasks got better; F_1 is undefined. Source: Chaudhry et al., ECCV 2018
    (RWalk), equation 3.
    """
    best: dict[int, float] = {}
    found: list[float | None] = []
    for after in range(1, matrix.tasks + 1):
        row = {task: task_accuracy(matrix, after, task) for task in range(1, after + 1)}
        found.append(_mean(_drops(best, row)))
    return found


def forgetting(matrix: AccuracyMatrix, task: int) -> float | None:
    """Return F_t of one task; see `forgetting_by_task`."""
    return forgetting_by_task(matrix)[task - 1]


def backward_transfer(matrix: AccuracyMatrix) -> float | None:
    """(1/(T-1)) sum_{j<T} (R[T][j] - R[j][j]); higher is better, negative means forgetting.

    Undefined for T = 1. Source: GEM (Lopez-Paz and Ranzato, NeurIPS 2017), equation 3.
    """
    last = matrix.tasks
    return _mean(
        _difference(task_accuracy(matrix, last, task), task_accuracy(matrix, task, task))
        for task in range(1, last)
    )


def forward_transfer(matrix: AccuracyMatrix) -> float | None:
    """(1/(T-1)) sum_{j>1} (R[j-1][j] - b[j]); higher is better. Source: GEM (NeurIPS 2017), equation 4.

    None unless tasks to come were evaluated (`evaluation.unseen`): every task j > 1 that has test samples
    needs R[j-1][j] and b[j]. In class-incremental runs it is near zero by construction, because rows of the
    head for classes to come get no gradient.
    """
    if matrix.initial is None:
        return None
    gains: list[float] = []
    for task in range(2, matrix.tasks + 1):
        if not any(matrix.counts[task - 1][label] for label in matrix.classes[task - 1]):
            continue
        gain = _difference(task_accuracy(matrix, task - 1, task), matrix.initial[task - 1])
        if gain is None:
            return None
        gains.append(gain)
    return _mean(gains)


def intransigence_by_task(matrix: AccuracyMatrix) -> list[float | None] | None:
    """[a*_t - R[t][t]] by task; lower is better, negative when the run beat its reference.

    a*_t is the accuracy on task t of a joint run on the same split that keeps all data; None without one.
    Source: Chaudhry et al., ECCV 2018 (RWalk), equation 4.
    """
    if matrix.reference is None:
        return None
    return [
        _difference(best, task_accuracy(matrix, task, task))
        for task, best in enumerate(matrix.reference, start=1)
    ]


def forget_rate_ianvs_by_task(matrix: AccuracyMatrix) -> list[float | None]:
    """Ianvs' forget rate after each task; for comparison with published Ianvs tables only.

    Ianvs keeps one accuracy for each entry of its test index and compares entry by entry; here an entry is a
    class. Against f_t three things differ: an entry that got better counts 0 instead of a negative number
    (clipped); the sum over old entries is divided by all entries, old and new; the first task has the forced
    value 0:
        g_1 = 0,  g_t = (1/C_seen) sum over old c of max(0, max over s < t of a[s][c] - a[t][c])
    Derived from the design's test vector, where the best earlier value must count, not the one before:
    g_2 = (0 + .2) / 4 = .05 and g_3 = (.6 + .2 + 0 + .05) / 6 = .141667. Source: `evaluation` in Ianvs'
    federated_class_incremental_learning.py, which says the same of single images.
    """
    found: list[float | None] = []
    for drops, row in zip(_class_drops(matrix), matrix.accuracy, strict=True):
        entries = sum(value is not None for value in row.values())
        clipped = math.fsum(max(0.0, drop) for drop in drops)
        found.append(clipped / entries if drops else None if found else 0.0)
    return found


def forget_rate_ianvs(matrix: AccuracyMatrix) -> float | None:
    """(1/T) sum_t g_t with the forced g_1 = 0 averaged in (see `forget_rate_ianvs_by_task`); lower is better.

    None for T = 1 and wherever no old class was tested, because nothing could be forgotten.
    """
    rates = forget_rate_ianvs_by_task(matrix)
    return None if all(rate is None for rate in rates[1:]) else _mean(rates)


def classes_without_test(matrix: AccuracyMatrix) -> list[int]:
    """Return the label ids, in learning order, that some evaluation had no test samples of."""
    return [label for label in matrix.seen(matrix.tasks) if any(row.get(label) == 0 for row in matrix.counts)]


def _class_drops(matrix: AccuracyMatrix) -> Iterator[list[float]]:
    """Yield for t = 1, 2 ... what each old class that was tested then and now has lost since its best."""
    best: dict[int, float] = {}
    for row in matrix.accuracy:
        yield _drops(best, row)


def _drops(best: dict[int, float], now: Mapping[int, float | None]) -> list[float]:
    """Return best - now of all that `best` and `now` both have; then raise `best` to `now`."""
    measured = {key: value for key, value in now.items() if value is not None}
    drops = [best[key] - value for key, value in measured.items() if key in best]
    best.update({key: max(value, best.get(key, value)) for key, value in measured.items()})
    return drops


def _weighted(matrix: AccuracyMatrix, after: int, labels: Iterable[int]) -> float | None:
    """Return the mean of a[t][c] over `labels`, weighted by their test samples."""
    products: list[float] = []
    samples = 0
    for label in labels:
        value, count = matrix.accuracy[after - 1][label], matrix.counts[after - 1][label]
        if value is not None:
            products.append(value * count)
            samples += count
    return math.fsum(products) / samples if samples else None


def _difference(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _last(values: Sequence[float | None]) -> float | None:
    return values[-1] if values else None


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
