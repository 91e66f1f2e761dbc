"""Is what a worker sent fit to be used? Checked whole, against the model, before a bit of it is added."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from engram.federation.messages import Consolidated, Evaluation, Tensors, Update
from engram.federation.tensors import magnitudes

MAX_METRICS = 256
"""Numbers that an answer may report; the history keeps them."""


class Unfit(ValueError):
    """An answer that must not be used; `reason` is one of `messages.Reject`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_update(update: Update, model: Tensors, samples: int) -> dict[str, float]:
    """Return the largest magnitude of each floating-point tensor of `update`.

    Raises Unfit unless it is one of `model`'s shape from a worker that holds `samples` samples. An abstaining
    update (samples 0) carries neither weights nor info.
    """
    check_finite(update.info)
    check_metrics(update.metrics)
    if update.samples == 0:
        if update.weights or update.info:
            raise Unfit("protocol", "an update of 0 samples carries weights or info")
        return {}
    check_samples(update.samples, samples)
    check_like(update.weights, model)
    return check_finite(update.weights)


def check_consolidated(answer: Consolidated, state_bytes: int, samples: int) -> None:
    """Raise Unfit unless the results are finite, of a worker that holds `samples` samples, and the state blob
    is at most `state_bytes` long.
    """
    if len(answer.state) > state_bytes:
        raise Unfit("too-large", f"the state has {len(answer.state)} bytes, more than {state_bytes}")
    check_samples(answer.samples, samples)
    check_metrics(answer.metrics)
    check_finite(answer.results)


def check_evaluation(answer: Evaluation, seen: Sequence[int], labels: Sequence[int]) -> None:
    """Raise Unfit unless a worker counts the labels of the job (`labels`; right ones among those `seen`), and
    of each no more right predictions than samples.
    """
    counts = answer.counts
    unknown = (counts.right.keys() - set(seen)) | (
        (counts.total.keys() | counts.right_unseen.keys()) - set(labels)
    )
    if unknown:
        raise Unfit("shape", f"counts of classes that it was not asked about: {sorted(unknown)[:5]}")
    for right in (counts.right, counts.right_unseen):
        for label, count in right.items():
            if count > counts.total.get(label, 0):
                raise Unfit("norm", f"{count} right of {counts.total.get(label, 0)} samples of class {label}")


def check_samples(samples: int, held: int) -> None:
    """Raise Unfit for more samples than the worker said it holds."""
    if not 0 <= samples <= held:
        raise Unfit("norm", f"{samples} samples, but the worker said it holds {held}")


def check_metrics(metrics: Mapping[str, float]) -> None:
    """Raise Unfit for so many metrics that the history would grow with them."""
    if len(metrics) > MAX_METRICS:
        raise Unfit("too-large", f"{len(metrics)} metrics, more than {MAX_METRICS}")


def check_like(tensors: Tensors, model: Tensors) -> None:
    """Raise Unfit unless names, dtypes and shapes are the model's."""
    if tensors.keys() != model.keys():
        different = sorted(tensors.keys() ^ model.keys())
        raise Unfit("shape", f"other tensors than the model's: {', '.join(different)[:200]}")
    for name, array in model.items():
        given = tensors[name]
        if given.dtype != array.dtype or given.shape != array.shape:
            raise Unfit(
                "shape", f"{name} is {given.dtype}{given.shape}, the model has {array.dtype}{array.shape}"
            )


def check_finite(tensors: Tensors) -> dict[str, float]:
    """Return the largest magnitude of each floating-point tensor. Raises Unfit for NaN or an infinity."""
    found = magnitudes(tensors)
    odd = [name for name, largest in found.items() if math.isinf(largest)]
    if odd:
        raise Unfit("non-finite", f"{odd[0]} holds values that are not finite")
    return found


def finite_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are finite numbers; a display value is no reason to lose an update."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
