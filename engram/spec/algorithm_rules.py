"""What an algorithm needs of the rest of the job: exemplars, unlabelled data, workers, a kind of model."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import ValidationError

from engram.spec.algorithms import (
    ALGORITHMS,
    DataFreeParameters,
    ExemplarParameters,
    GlfcParameters,
    ReplayParameters,
    SemiFciParameters,
)
from engram.spec.base import Spec
from engram.spec.job import JobSpec
from engram.spec.parameters import MODELS
from engram.spec.problems import Problem

FIELD = "spec.algorithm.parameters"
SERVER_OPTIMISERS = ("fedavgm", "fedadam")
"""Rules that go further than the average, or less far."""


def check_algorithm(spec: JobSpec) -> Iterator[Problem]:
    """Yield what does not go together with a built-in algorithm whose own parameters are right."""
    parameters = _parameters(spec)
    if parameters is None:
        return
    yield from _check_exemplars(spec, parameters)
    yield from _check_unlabelled(spec)
    yield from _check_rounds(spec, parameters)
    if isinstance(parameters, DataFreeParameters):
        yield from _check_norm(spec)
    if isinstance(parameters, SemiFciParameters):
        yield from _check_helpers(spec, parameters)
    if isinstance(parameters, ExemplarParameters):
        yield from _check_correction(spec, parameters)
    if isinstance(parameters, GlfcParameters):
        yield from _check_proxy_server(parameters)


def algorithm_warnings(spec: JobSpec) -> tuple[str, ...]:
    """Return what a person must know of the job's algorithm, beside what is wrong."""
    parameters = _parameters(spec)
    name = spec.algorithm.name
    if isinstance(parameters, GlfcParameters) and parameters.proxy_server != "none":
        return (
            f"proxyServer: reconstruct of {name} leaks by design: the aggregator rebuilds an "
            "image of each class of each worker, and its checkpoint keeps them",
        )
    if isinstance(parameters, SemiFciParameters) and parameters.needs_unlabelled:
        return tuple(_helper_warnings(spec, parameters))
    return ()


def _helper_warnings(spec: JobSpec, parameters: SemiFciParameters) -> Iterator[str]:
    others = sum(group.replicas for group in spec.workers) - 1
    helpers = min(parameters.helpers, others)
    if "helpers" in parameters.model_fields_set and helpers < parameters.helpers:
        there = _other_workers(others)
        yield f"helpers: {parameters.helpers}, but there {there} now, so no more than that help"
    if helpers:
        models = "the model of another worker" if helpers == 1 else f"the models of {helpers} other workers"
        yield (
            f"helpers of {spec.algorithm.name}: with a round each worker downloads {models} beside the "
            "global one, and the aggregator sees every update by itself, so that no secure sum is possible; "
            "helpers: 0 does without"
        )


def unlabelled_switch(spec: JobSpec) -> str:
    """Return the parameter that does without unlabelled data, where the algorithm uses them; else nothing."""
    parameters = _parameters(spec)
    if not getattr(parameters, "needs_unlabelled", False):
        return ""
    return "unlabelledWeight: 0" if hasattr(parameters, "unlabelled_weight") else "unlabelled: false"


def _parameters(spec: JobSpec) -> Spec | None:
    """Return the parameters of a built-in algorithm; None where they are wrong, which their own check tells,
    or belong to an algorithm of the user's own.
    """
    kind = ALGORITHMS.get(spec.algorithm.name)
    if kind is None:
        return None
    try:
        return kind.model_validate(spec.algorithm.parameters)
    except ValidationError:
        return None


def _check_exemplars(spec: JobSpec, parameters: Spec) -> Iterator[Problem]:
    """A budget below one exemplar a class could not be kept to: each class that was learned needs one."""
    budget = getattr(parameters, "exemplars_per_worker", 0)
    classes = spec.tasks.count * spec.tasks.classes_per_task
    if 0 < budget < classes:
        none = ", or 0 for none" if _may_be_zero(parameters) else ""
        yield Problem(
            f"{FIELD}.exemplarsPerWorker",
            f"{budget} is less than one exemplar for each of the job's {classes} classes",
            f"write at least {classes}{none}",
        )


def _check_unlabelled(spec: JobSpec) -> Iterator[Problem]:
    """Parameters say with `needs_unlabelled` whether the algorithm uses data without labels."""
    off = unlabelled_switch(spec)
    if not off:
        return
    ratios = [
        spec.dataset.label_ratio if group.dataset.label_ratio is None else group.dataset.label_ratio
        for group in spec.workers
    ]
    if min(ratios) == 1:
        yield Problem(
            "spec.dataset.labelRatio",
            f"1 leaves no worker with unlabelled data, and {spec.algorithm.name} with these parameters uses "
            "them",
            f"write less than 1, or algorithm.parameters.{off}",
        )


def _check_helpers(spec: JobSpec, parameters: SemiFciParameters) -> Iterator[Problem]:
    """Helpers are other workers; the default takes as many as there are. With partition local groups may grow
    while the job runs, so that there it is a warning.
    """
    workers = sum(group.replicas for group in spec.workers)
    asked = "helpers" in parameters.model_fields_set
    if asked and parameters.helpers > workers - 1 and spec.dataset.partition.method != "local":
        yield Problem(
            f"{FIELD}.helpers",
            f"{parameters.helpers} helpers, but there {_other_workers(workers - 1)}",
            f"write at most {workers - 1}",
        )


def _other_workers(count: int) -> str:
    return "is 1 other worker" if count == 1 else f"are {count} other workers"


def _check_correction(spec: JobSpec, parameters: ExemplarParameters) -> Iterator[Problem]:
    """Bias correction keeps exemplars of its own, at least one for each class; what else is asked of a
    correction must not contradict it.
    """
    if isinstance(parameters, ReplayParameters) and not parameters.weight_alignment:
        correction = parameters.classifier_correction
        if "classifier_correction" in parameters.model_fields_set and correction == "align":
            yield Problem(
                f"{FIELD}.weightAlignment", "contradicts classifierCorrection: align", "remove one of them"
            )
    if parameters.correction != "bic":
        return
    classes = spec.tasks.count * spec.tasks.classes_per_task
    held, budget = parameters.held_out, parameters.exemplars_per_worker
    if held < classes:
        yield Problem(
            f"{FIELD}.heldOutShare",
            f"leaves bic {held} of {budget} exemplars, less than one for each of the job's {classes} classes",
            f"write exemplarsPerWorker: {math.ceil(classes / parameters.held_out_share)} or more, or another "
            "classifierCorrection",
        )


def _check_proxy_server(parameters: GlfcParameters) -> Iterator[Problem]:
    """Images of the workers are rebuilt only where somebody has said that they may be."""
    if parameters.proxy_server == "reconstruct" and not parameters.accept_privacy_risk:
        yield Problem(
            f"{FIELD}.proxyServer",
            "reconstruct lets the aggregator rebuild images of the workers",
            "write acceptPrivacyRisk: true beside it if it may, or proxyServer: none",
        )


def _check_rounds(spec: JobSpec, parameters: Spec) -> Iterator[Problem]:
    """What an algorithm computes of the way from a round's weights to a worker's needs that way as it was."""
    name, aggregation = spec.algorithm.name, spec.aggregation
    optimizer = spec.training.optimizer.name
    if getattr(parameters, "needs_sgd", False) and optimizer != "sgd":
        yield Problem(
            "spec.training.optimizer.name",
            f"{name} reads gradients off the steps of SGD, those of {optimizer} have no size of their own",
            "write sgd",
        )
    if getattr(parameters, "needs_whole_rounds", False) and aggregation.buffer.size:
        yield Problem(
            "spec.aggregation.buffer.size",
            f"{name} compares each update with the weights of its round, in a buffer they are of several",
            "write 0",
        )
    if getattr(parameters, "takes_server_step", False) and aggregation.name in SERVER_OPTIMISERS:
        yield Problem(
            "spec.aggregation.name",
            f"{name} corrects the average of the workers, {aggregation.name} makes something else of it",
            "write fedavg",
        )


def _check_norm(spec: JobSpec) -> Iterator[Problem]:
    """Only BatchNorm layers keep the statistics that images can be made from; what a model of the user's own
    has is seen when it is built.
    """
    kind = MODELS.get(spec.model.name)
    norm = spec.model.parameters.get("norm", kind and kind.model_fields["norm"].default)
    if kind is not None and norm != "batch":
        yield Problem(
            "spec.model.parameters.norm",
            f"{norm} leaves {spec.algorithm.name} nothing to make images from: it needs the statistics that "
            "BatchNorm layers keep",
            "write batch",
        )


def _may_be_zero(parameters: Spec) -> bool:
    try:
        type(parameters).model_validate({"exemplarsPerWorker": 0})
    except ValidationError:
        return False
    return True
