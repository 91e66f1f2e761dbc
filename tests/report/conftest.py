"""A realistic record without any training: five tasks, five workers, faults, all from one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from engram.federation.history import Counts, Faults, History, RoundRow, TaskRow, WorkerRound
from engram.report.record import Cost, DatasetFacts, Environment, Record, SplitFacts, WorkerFacts
from engram.spec.job import FederatedIncrementalJob

KEEP = {"finetune": 0.02, "replay": 0.72, "icarl": 0.86, "joint": 0.97}
"""Accuracy of the last task's classes after the next task; older classes lose it again each task."""

STARTED = 1_760_000_000.0
"""Seconds since the epoch."""

ORDER = [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]


def draw(*parts: object) -> float:
    """Return a number in 0..1 that depends on its arguments only."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def job_document(algorithm: str, seed: int, tasks: int, spec: dict[str, Any]) -> dict[str, Any]:
    return FederatedIncrementalJob.model_validate(
        {
            "metadata": {"name": f"digits-{algorithm}"},
            "spec": {
                "seed": seed,
                "dataset": {"name": "digits", "labelRatio": 0.5},
                "tasks": {"count": tasks, "classesPerTask": 10 // tasks},
                "training": {"roundsPerTask": 4, "localSteps": 16, "batchSize": 8},
                "algorithm": {"name": algorithm},
                "workers": [{"name": "edge", "replicas": 3}, {"name": "gpu", "replicas": 2}],
                **spec,
            },
        }
    ).dump()


def counts(algorithm: str, seed: int, classes: list[list[int]], task: int, at: float) -> Counts:
    """Return plausible right predictions after `task`; `at` in 0..1 is how far its rounds are."""
    right, total = {}, {}
    for number, labels in enumerate(classes[:task], start=1):
        kept = KEEP.get(algorithm, 0.5) ** (task - number)
        for label in labels:
            share = (0.9 + 0.09 * draw(seed, label)) * (kept if number < task else 0.4 + 0.6 * at)
            right[label] = round(36 * min(1.0, share + 0.04 * draw(seed, task, label)))
            right[label], total[label] = min(36, right[label]), 36
    return Counts(right=right, total=total)


def worker_names() -> list[str]:
    return [f"trainworker-{group}-{index}" for group, n in (("edge", 3), ("gpu", 2)) for index in range(n)]


def worker_rounds(seed: int, task: int, number: int, faults: bool) -> dict[str, WorkerRound]:
    """Return every worker's part in one round; with faults trainworker-edge-1 is absent once."""
    parts: dict[str, WorkerRound] = {}
    for worker in worker_names():
        if faults and (task, number, worker) == (3, 2, "trainworker-edge-1"):
            parts[worker] = WorkerRound(outcome="absent", bytes_down=72_900)
            continue
        loss = 1.9 * 0.55**number + 0.1 * draw(seed, worker, task) + 0.02 * task
        parts[worker] = WorkerRound(
            outcome="accepted",
            samples=40 + round(60 * draw(seed, worker, task)),
            metrics={"loss": loss, "steps": 16.0, "seconds": 0.3 + 0.1 * draw(worker, number)},
            bytes_down=72_900,
            bytes_up=73_400,
        )
    return parts


def build_history(algorithm: str, seed: int, classes: list[list[int]], done: int, faults: bool) -> History:
    """Return the first `done` tasks of four rounds each."""
    history = History()
    clock = STARTED
    for task in range(1, done + 1):
        begun = clock
        for number in range(1, 5):
            seconds = {
                "broadcast": 0.02,
                "train": 0.41 + 0.05 * draw(seed, task, number),
                "upload": 0.03,
                "aggregate": 0.01,
                "evaluate": 0.02,
                "checkpoint": 0.015,
            }
            history.rounds.append(
                RoundRow(
                    task=task,
                    round=number,
                    started=clock,
                    seconds=seconds,
                    workers=worker_rounds(seed, task, number, faults),
                    degraded=faults and (task, number) == (3, 2),
                    counts=counts(algorithm, seed, classes, task, number / 4),
                )
            )
            clock += sum(seconds.values())
        clock += 0.3
        history.tasks.append(
            TaskRow(
                task=task,
                classes=classes[task - 1],
                started=begun,
                seconds={"consolidate": 0.25, "evaluate": 0.03, "checkpoint": 0.02, "total": clock - begun},
                counts=counts(algorithm, seed, classes, task, 1.0),
                workers={
                    worker: WorkerRound(outcome="accepted", bytes_down=72_900, bytes_up=4_100)
                    for worker in worker_names()
                },
            )
        )
    history.active_seconds = clock - STARTED
    if faults:
        history.faults = Faults(
            reconnects={"trainworker-edge-1": 2},
            rejected={"late": 1},
            rounds_degraded=1,
            resumes=1,
            notes=["trainworker-edge-1 was killed in task 3, round 2 and rejoined in round 3"],
        )
    return history


def build_split(seed: int, split: list[list[int]]) -> SplitFacts:
    labelled = {
        worker: {label: 2 + round(28 * draw(seed, worker, label) ** 2) for task in split for label in task}
        for worker in worker_names()
    }
    return SplitFacts(
        digest=hashlib.sha256(f"split {seed} {len(split)}".encode()).hexdigest(),
        tasks=split,
        test_counts=dict.fromkeys(range(10), 36),
        labelled=labelled,
        unlabelled={worker: {label: 2 * n for label, n in row.items()} for worker, row in labelled.items()},
    )


def build_cost(history: History) -> Cost:
    rows = [part for row in history.rounds for part in row.workers.values()]
    rows += [part for row in history.tasks for part in row.workers.values()]
    return Cost(
        seconds=history.active_seconds,
        cpu_seconds=1.7 * history.active_seconds,
        bytes_down=sum(part.bytes_down for part in rows),
        bytes_up=sum(part.bytes_up for part in rows),
        parameters=18_154,
        local_steps=16 * sum(part.outcome == "accepted" for part in rows),
    )


def build_record(
    algorithm: str = "replay",
    seed: int = 0,
    *,
    tasks: int = 5,
    finished: int | None = None,
    status: Literal["complete", "failed", "interrupted", "running"] = "complete",
    faults: bool = True,
    joint_upfront: bool = False,
    spec: dict[str, Any] | None = None,
) -> Record:
    size = 10 // tasks
    split = [ORDER[index : index + size] for index in range(0, size * tasks, size)]
    classes = [[label for task in split for label in task]] if joint_upfront else split
    job = job_document(algorithm, seed, tasks, spec or {})
    history = build_history(algorithm, seed, classes, len(classes) if finished is None else finished, faults)
    facts = build_split(seed, split)
    return Record(
        status=status,
        message="" if status == "complete" else "stopped by Ctrl-C",
        job=job,
        job_digest=hashlib.sha256(repr(job).encode()).hexdigest(),
        classes=classes,
        dataset=DatasetFacts(
            name="digits",
            sha256=hashlib.sha256(b"digits").hexdigest(),
            train_samples=1437,
            test_samples=360,
            shape=(1, 8, 8),
            class_names=[str(label) for label in range(10)],
        ),
        split=facts,
        environment=Environment(
            engram="0.1.0",
            python="3.11.9",
            torch="2.13.0",
            numpy="2.3.1",
            platform="Linux-6.1-x86_64",
            cpu="a CPU",
            cores=2,
            transport="websocket",
            command="engram run examples/01-digits.yaml",
        ),
        workers=[
            WorkerFacts(
                name=worker,
                group=worker.split("-")[1],
                device="cuda:0" if "gpu" in worker else "cpu",
                samples=3 * sum(facts.labelled[worker].values()),
                restarts=1 if faults and worker == "trainworker-edge-1" else 0,
            )
            for worker in worker_names()
        ],
        history=history,
        cost=build_cost(history),
        started="2025-10-09T08:53:20Z",
        completed="2025-10-09T08:53:34Z" if status == "complete" else None,
        notes=["trainworker-edge-2 holds no sample of class 7."] if faults else [],
    )


@pytest.fixture
def make_record() -> Callable[..., Record]:
    return build_record


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a record into a run directory of its own and return that directory."""

    def make(name: str, **arguments: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        record = build_record(**arguments)
        (folder / "record.json").write_text(record.model_dump_json(by_alias=True))
        return folder

    return make
