"""What a record says beside the history: data, split, environment, cost, and a warning."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import engram
from engram.data import test_counts
from engram.data.split import empty_warnings, label_counts
from engram.federation.history import History, RoundRow, TaskRow
from engram.federation.messages import Hello
from engram.report.record import Cost, DatasetFacts, Environment, SplitFacts, WorkerFacts
from engram.run.composition import Composition
from engram.run.holdings import Holding, without_label, without_samples
from engram.spec import algorithm_parameters

BUDGET_LIMIT = 0.5
"""Above this share of all labels an exemplar budget no longer tests forgetting (learning.md, Scenario)."""


def dataset_facts(composition: Composition) -> DatasetFacts:
    """Return what data the run uses."""
    dataset = composition.dataset
    return DatasetFacts(
        name=dataset.name,
        sha256=dataset.sha256,
        train_samples=len(dataset.train.labels),
        test_samples=len(composition.split.test),
        shape=dataset.train.shape,
        class_names=list(dataset.class_names),
    )


def split_facts(composition: Composition, hellos: Mapping[str, Hello]) -> SplitFacts:
    """Return who holds what: as the split says, or the workers where they own their data."""
    split = composition.split
    labelled = {worker: dict(hello.labels.labelled) for worker, hello in _owners(hellos)}
    unlabelled = {worker: dict(hello.labels.unlabelled) for worker, hello in _owners(hellos)}
    for share, dataset in composition.shares:
        labelled[share.worker], unlabelled[share.worker] = label_counts(split, dataset, share)
    return SplitFacts(
        digest=split.digest,
        tasks=[list(task) for task in split.tasks],
        test_counts=test_counts(split, composition.dataset),
        labelled=labelled,
        unlabelled=unlabelled,
    )


def worker_facts(composition: Composition, hellos: Mapping[str, Hello]) -> list[WorkerFacts]:
    """Return the workers with their samples and devices; those of elastic groups that came later, too."""
    samples = {worker: hello.samples for worker, hello in hellos.items()}
    samples |= {share.worker: share.samples for share, _ in composition.shares}
    groups = {worker.name: worker.group for worker in composition.job.workers()}
    for worker in sorted(hellos.keys() - groups.keys()):
        groups[worker] = worker.rpartition("-")[0].rpartition("-")[2]
    return [
        WorkerFacts(
            name=worker,
            group=group,
            samples=samples.get(worker, 0),
            device=hellos[worker].device if worker in hellos else "",
        )
        for worker, group in groups.items()
    ]


def warnings(composition: Composition, hellos: Mapping[str, Hello]) -> list[str]:
    """Return what a reader of the record must know of the split."""
    found = list(composition.warnings())
    for worker, hello in _owners(hellos):
        held = [
            sum(hello.labels.labelled.get(label, 0) + hello.labels.unlabelled.get(label, 0) for label in task)
            for task in composition.split.tasks
        ]
        found += empty_warnings(worker, held)
    told = [
        Holding(worker, hello.labels.labelled, hello.labels.unlabelled) for worker, hello in _owners(hellos)
    ]
    if {holding.worker for holding in told} >= {worker.name for worker in composition.job.workers()}:
        # One that has not come yet may have them.
        known = composition.split.tasks, composition.dataset.class_names, told
        found += [*without_label(*known), *without_samples(*known)]
    return found


def _owners(hellos: Mapping[str, Hello]) -> list[tuple[str, Hello]]:
    """Return the workers that said what they own, sorted; none where the split is computed."""
    return sorted((worker, hello) for worker, hello in hellos.items() if hello.labels.labelled)


def exemplar_warning(composition: Composition) -> tuple[str, ...]:
    """Return the warning that exemplars would hold most labels, if they would (the report says it too)."""
    parameters = algorithm_parameters(composition.job)
    # An algorithm of the user's own has plain parameters; the budget goes by the same name.
    budget = (parameters if isinstance(parameters, dict) else parameters.dump()).get("exemplarsPerWorker")
    if not isinstance(budget, int):
        return ()
    held = [sum(len(task.labelled) for task in share.tasks) for share, _ in composition.shares]
    total = sum(held)
    kept = sum(min(budget, own) for own in held)
    if not total or kept / total <= BUDGET_LIMIT:
        return ()
    return (
        f"{budget} exemplars a worker hold {100 * kept / total:.0f}% of all {total} "
        f"labels: above {100 * BUDGET_LIMIT:.0f}% a run does not test forgetting",
    )


def environment(transport: str, command: str, *, batched: bool = False) -> Environment:
    """Return where and with what the run is made."""
    return Environment(
        engram=engram.__version__,
        python=platform.python_version(),
        torch=_version("torch"),
        numpy=_version("numpy"),
        platform=platform.platform(),
        cpu=_cpu(),
        cores=available_cores(),
        transport=transport,
        batched=batched,
        command=command,
    )


def available_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_seconds() -> float:
    """Return user and system time of this process and of all its children that have ended."""
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def cost(history: History, parameters: int, cpu: float | None) -> Cost:
    """Return what a run cost, from its history."""
    rows: list[RoundRow | TaskRow] = [*history.rounds, *history.tasks]
    parts = [part for row in rows for part in row.workers.values()]
    return Cost(
        seconds=history.active_seconds,
        cpu_seconds=cpu,
        bytes_down=sum(part.bytes_down for part in parts),
        bytes_up=sum(part.bytes_up for part in parts),
        parameters=parameters,
        local_steps=round(
            sum(part.metrics.get("steps", 0.0) for row in history.rounds for part in row.workers.values())
        ),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
