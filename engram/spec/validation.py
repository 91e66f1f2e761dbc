"""Rules that span fields: what a schema alone cannot say, found before any process or pod starts.

Each rule yields Problems; `check_job` collects those of a whole job. The CRD repeats as CEL what CEL can see.
Data that must be read to be judged (own data sets, class folders) are `engram.data`'s business.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from engram.spec.algorithm_rules import check_algorithm
from engram.spec.algorithms import ALGORITHMS
from engram.spec.asynchronous import check_buffer
from engram.spec.base import Spec
from engram.spec.job import FederatedIncrementalJob, JobSpec
from engram.spec.names import MOST_WORKERS, RESERVED_GROUP_NAMES
from engram.spec.objects import (
    check_metadata,
    check_pull_secret,
    check_quantity,
    check_resources,
    check_selector,
    check_volume,
)
from engram.spec.parameters import (
    AGGREGATIONS,
    AUGMENTATIONS,
    CLASS_COUNTS,
    DATASETS,
    MODELS,
    NONE,
    KrumParameters,
)
from engram.spec.problems import Problem, did_you_mean
from engram.spec.sedna import brings, check_sedna
from engram.spec.training import Aggregation, Algorithm, Model
from engram.spec.wording import check_model, unknown_name

QUORUM_PERCENT = re.compile(r"(100|[1-9][0-9]?)%")


def check_job(job: FederatedIncrementalJob) -> list[Problem]:
    """Return everything that is wrong with a job whose single fields are right; empty: the job is valid."""
    spec = job.spec
    return [
        *check_metadata(job.metadata.model_extra or {}),
        *_check_names(spec),
        *_check_tasks(spec),
        *_check_partition(spec),
        *_check_parameters(spec),
        *check_algorithm(spec),
        *_check_workers(spec),
        *_check_quorum(spec),
        *_check_straggler_factor(spec),
        *check_buffer(spec, sampled_workers(spec)),
        *_check_aggregation_rule(spec),
        *_check_aggregator(spec),
        *_check_objects(spec),
        *_check_report(spec),
        *check_sedna(spec),
    ]


def sampled_workers(spec: JobSpec) -> int:
    """Return how many workers each round asks: floor(clientFraction n + .5) of n, at least one."""
    workers = sum(group.replicas for group in spec.workers)
    return max(1, math.floor(spec.aggregation.client_fraction * workers + 0.5))


def _check_names(spec: JobSpec) -> Iterator[Problem]:
    """Names of built-in things, or dotted paths to the user's own."""
    named = (
        ("spec.dataset.name", spec.dataset.name, DATASETS, "a data set", "package.module:Class"),
        ("spec.model.name", spec.model.name, tuple(MODELS), "a model", "package.module:function"),
        (
            "spec.algorithm.name",
            spec.algorithm.name,
            tuple(ALGORITHMS),
            "an algorithm",
            "package.module:Class",
        ),
        (
            "spec.aggregation.name",
            spec.aggregation.name,
            tuple(AGGREGATIONS),
            "an aggregation",
            "package.module:Class",
        ),
        (
            "spec.training.augmentation",
            spec.training.augmentation,
            AUGMENTATIONS,
            "an augmentation",
            "package.module:Class",
        ),
    )
    for field, name, known, what, dotted in named:
        problem = unknown_name(field, name, known, what, dotted)
        if problem is not None and not (name == NONE and brings(field)):
            yield problem


def _check_tasks(spec: JobSpec) -> Iterator[Problem]:
    """Classes must suffice for the tasks, and a listed order must be complete."""
    tasks = spec.tasks
    needed = tasks.count * tasks.classes_per_task
    sentence = f"{_count(tasks.count, 'task')} of {_count(tasks.classes_per_task, 'class', 'classes')}"
    known = CLASS_COUNTS.get(spec.dataset.name)
    if known is not None and needed > known:
        yield Problem(
            "spec.tasks",
            f"{sentence} need {needed} classes, {spec.dataset.name} has {known}",
            f"lower count or classesPerTask until their product is at most {known}",
        )
    if tasks.class_order != "listed":
        if tasks.classes:
            yield Problem(
                "spec.tasks.classes",
                f"is given although classOrder is {tasks.class_order}",
                "write classOrder: listed, or remove classes",
            )
        return
    if not tasks.classes:
        yield Problem(
            "spec.tasks.classes",
            "is missing although classOrder is listed",
            f"write count x classesPerTask = {needed} label ids in learning order",
        )
        return
    repeated = sorted(label for label, times in Counter(tasks.classes).items() if times > 1)
    if repeated:
        listed = ", ".join(str(label) for label in repeated)
        yield Problem("spec.tasks.classes", f"names more than once: {listed}", "name each class once")
    if len(tasks.classes) != needed:
        yield Problem(
            "spec.tasks.classes",
            f"has {_count(len(tasks.classes), 'class', 'classes')}, but {sentence} need {needed}",
            "list count x classesPerTask label ids, or change count or classesPerTask",
        )
    if known is not None and max(tasks.classes) >= known:
        yield Problem(
            "spec.tasks.classes",
            f"names class {max(tasks.classes)}, but {spec.dataset.name} has classes 0 to {known - 1}",
            "write label ids of the data set",
        )


def _check_partition(spec: JobSpec) -> Iterator[Problem]:
    """With partition local there is no draw that could be repeated."""
    if spec.dataset.partition.method == "local" and spec.dataset.partition.min_samples:
        yield Problem(
            "spec.dataset.partition.minSamples",
            "has no effect with method local: each worker owns what its volume holds",
            "remove it, or write method: dirichlet, iid or shards",
        )


def _check_parameters(spec: JobSpec) -> Iterator[Problem]:
    """Parameters of everything built in, each by its own type."""
    parts: tuple[tuple[str, Model | Algorithm | Aggregation, Mapping[str, type[Spec]]], ...] = (
        ("model", spec.model, MODELS),
        ("algorithm", spec.algorithm, ALGORITHMS),
        ("aggregation", spec.aggregation, AGGREGATIONS),
    )
    for key, part, known in parts:
        model = known.get(part.name)
        if model is None:
            continue
        prefix = ("spec", key, "parameters")
        for problem in check_model(part.parameters, model, prefix):
            name = problem.field.rsplit(".", 1)[1]
            yield _foreign_parameter(problem, name, part.name, known) or problem


def _foreign_parameter(
    problem: Problem, name: str, owner: str, known: Mapping[str, type[Spec]]
) -> Problem | None:
    """Return a better problem for an unknown parameter: what `owner` takes, and who knows this one."""
    if problem.problem != "unknown field":
        return None
    own = [field.alias or key for key, field in known[owner].model_fields.items()]
    others = [
        other
        for other, model in known.items()
        if name in {field.alias or key for key, field in model.model_fields.items()}
    ]
    takes = f"{owner} takes {', '.join(own)}" if own else f"{owner} takes no parameters"
    near = did_you_mean(name, own) if own else ""
    if near.startswith("did you mean"):
        remedy = near
    elif others:
        remedy = f"{takes}; {name} belongs to {', '.join(others)}"
    else:
        remedy = takes
    return Problem(problem.field, "unknown parameter", remedy)


def _check_workers(spec: JobSpec) -> Iterator[Problem]:
    """Groups have names of their own, are not too many, and somebody holds labels."""
    seen: dict[str, int] = {}
    for index, group in enumerate(spec.workers):
        field = f"spec.workers[{index}].name"
        if group.name in seen:
            yield Problem(
                field,
                f"{group.name} is also the name of spec.workers[{seen[group.name]}]",
                "name each group once",
            )
        seen.setdefault(group.name, index)
        if group.name in RESERVED_GROUP_NAMES:
            yield Problem(
                field,
                f"{group.name} is reserved",
                f"write another name than {', '.join(RESERVED_GROUP_NAMES)}",
            )
    total = sum(group.replicas for group in spec.workers)
    if total > MOST_WORKERS:
        yield Problem("spec.workers", f"are {total} workers", f"write at most {MOST_WORKERS} over all groups")
    if all(group.dataset.label_ratio == 0 for group in spec.workers):
        yield Problem(
            "spec.workers",
            "every group has dataset.labelRatio 0, so nobody holds a label",
            "give at least one group a labelRatio above 0",
        )


def _check_quorum(spec: JobSpec) -> Iterator[Problem]:
    """A number from 1 to the sampled workers, or a percentage from 1 to 100."""
    quorum, field = spec.aggregation.quorum, "spec.aggregation.quorum"
    sampled = sampled_workers(spec)
    if isinstance(quorum, str):
        if quorum.isdigit():
            yield Problem(field, f"{quorum!r} is text", f"write {quorum} without quotes, or {quorum}%")
        elif not QUORUM_PERCENT.fullmatch(quorum):
            yield Problem(
                field,
                f"{quorum!r} is neither a number of workers nor a percentage",
                "write a whole number from 1, or 1% to 100%",
            )
    elif quorum < 1:
        yield Problem(field, f"{quorum} is too small", "write a whole number from 1, or 1% to 100%")
    elif quorum > sampled:
        workers = sum(group.replicas for group in spec.workers)
        fraction = spec.aggregation.client_fraction
        asked = f"there are {workers} workers"
        if sampled < workers:
            asked = f"a round samples {sampled} of {workers} workers (clientFraction {fraction:g})"
        yield Problem(
            field,
            f"{quorum} can never be reached: {asked}",
            f"write at most {sampled}",
        )


def _check_straggler_factor(spec: JobSpec) -> Iterator[Problem]:
    """Nobody is late in a round that waits for everybody."""
    aggregation, sampled = spec.aggregation, sampled_workers(spec)
    if aggregation.straggler_factor is None:
        return
    quorum = aggregation.quorum
    grows = spec.dataset.partition.method == "local"
    if quorum == "100%" or (quorum == sampled and not grows):
        yield Problem(
            "spec.aggregation.stragglerFactor",
            f"has no effect with quorum {quorum}: a round waits for all {_count(sampled, 'worker')}",
            "lower aggregation.quorum, for example to 75%, or remove it",
        )


def _check_aggregation_rule(spec: JobSpec) -> Iterator[Problem]:
    """Krum needs enough updates: 2f + 3 of them, and f + 2 more than it keeps (Blanchard et al. 2017)."""
    if spec.aggregation.name != "krum" or check_model(spec.aggregation.parameters, KrumParameters, ()):
        return
    parameters = KrumParameters.model_validate(spec.aggregation.parameters)
    sampled, liars = sampled_workers(spec), parameters.byzantine
    if sampled < 2 * liars + 3:
        remedy = f"lower byzantine to {(sampled - 3) // 2} or add workers" if sampled >= 3 else "add workers"
        yield Problem(
            "spec.aggregation.parameters.byzantine",
            f"krum against {liars} needs 2f + 3 = {2 * liars + 3} workers a round, {sampled} are sampled",
            remedy,
        )
    elif parameters.keep > sampled - liars - 2:
        yield Problem(
            "spec.aggregation.parameters.keep",
            f"krum cannot keep {parameters.keep} of {sampled} updates against {liars}",
            f"write at most workers - byzantine - 2 = {sampled - liars - 2}",
        )


def _check_aggregator(spec: JobSpec) -> Iterator[Problem]:
    """Exposure and checkpoint of the aggregator."""
    aggregator, field = spec.aggregator, "spec.aggregator"
    expose, checkpoint = aggregator.expose, aggregator.checkpoint
    if expose.type == "HostPort" and not aggregator.node_name:
        yield Problem(
            f"{field}.nodeName",
            "is missing although expose.type is HostPort",
            "write the node whose port it is",
        )
    if expose.type == "ClusterIP" and expose.port:
        yield Problem(
            f"{field}.expose.port",
            "has no effect with type ClusterIP",
            "write type: NodePort or HostPort, or remove it",
        )
    if checkpoint.volume and checkpoint.size:
        yield Problem(f"{field}.checkpoint", "has both volume and size", "keep one: size makes a new claim")
    if checkpoint.size:
        yield from check_quantity(checkpoint.size, f"{field}.checkpoint.size", positive=True)
    elif checkpoint.storage_class_name:
        yield Problem(
            f"{field}.checkpoint.size",
            "is missing although storageClassName is given",
            "write a size such as 1Gi",
        )


def _check_objects(spec: JobSpec) -> Iterator[Problem]:
    """Kubernetes' own objects inside the job."""
    yield from check_volume(spec.dataset.volume, "spec.dataset.volume")
    yield from check_volume(spec.aggregator.checkpoint.volume, "spec.aggregator.checkpoint.volume")
    yield from check_volume(spec.report.volume, "spec.report.volume")
    yield from check_resources(spec.aggregator.resources, "spec.aggregator.resources")
    for index, secret in enumerate(spec.image_pull_secrets):
        yield from check_pull_secret(secret, f"spec.imagePullSecrets[{index}]")
    for index, group in enumerate(spec.workers):
        field = f"spec.workers[{index}]"
        yield from check_resources(group.resources, f"{field}.resources")
        yield from check_volume(group.state.volume, f"{field}.state.volume")
        yield from check_volume(group.dataset.volume or {}, f"{field}.dataset.volume")


def _check_report(spec: JobSpec) -> Iterator[Problem]:
    """Where the report reads and what it compares with."""
    url = spec.report.prometheus.url
    if url and not re.match(r"https?://[^/\s]", url):
        yield Problem(
            "spec.report.prometheus.url", f"{url!r} is no URL", "write http://HOST:PORT or https://..."
        )
    yield from check_selector(spec.report.compare_with.selector, "spec.report.compareWith.selector")


def _count(number: int, singular: str, plural: str = "") -> str:
    """Return `1 task`, `2 tasks`."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
