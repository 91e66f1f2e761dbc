"""A realistic record without any training: five tasks, five workers, faults, all from one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engram.federation.history import Counts, Faults, History, RoundRow, TaskRow, WorkerRound
from engram.report.record import Cost, DatasetFacts, Environment, Record, SplitFacts, WorkerFacts
from engram.spec.job import FederatedIncrementalJob

KEEP = {"finetune": 0.02, "replay": 0.72, "icarl": 0.86, "joint": 0.97}
"""Accuracy of the last task's classes after the next task; older classes lose it again each task."""

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


def build_record(
    algorithm: str = "replay",
    seed: int = 0,
    *,
    tasks: int = 5,
    finished: int | None = None,
    status: str = "complete",
    faults: bool = True,
    joint_upfront: bool = False,
    spec: dict[str, Any] | None = None,
) -> Record:
    size = 10 // tasks
    split = [ORDER[index : index + size] for index in range(0, size * tasks, size)]
    classes = [[label for task in split for label in task]] if joint_upfront else split
    job = job_document(algorithm, seed, tasks, spec or {})
    workers = [f"trainworker-{group}-{index}" for group, n in (("edge", 3), ("gpu", 2)) for index in range(n)]
    history = History()
    clock = 1_760_000_000.0
    done = len(classes) if finished is None else finished
    for task in range(1, done + 1):
        begun = clock
        for number in range(1, 5):
            parts = {}
            for worker in workers:
                absent = faults and (task, number, worker) == (3, 2, workers[1])
                lost = 1.9 * 0.55**number + 0.1 * draw(seed, worker, task) + 0.02 * task
                parts[worker] = (
                    WorkerRound(outcome="absent", bytes_down=72_900)
                    if absent
                    else WorkerRound(
                        outcome="accepted",
                        samples=40 + round(60 * draw(seed, worker, task)),
                        metrics={"loss": lost, "steps": 16.0, "seconds": 0.3 + 0.1 * draw(worker, number)},
                        bytes_down=72_900,
                        bytes_up=73_400,
                    )
                )
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
                    workers=parts,
                    degraded=faults and (task, number) == (3, 2),
                    counts=counts(algorithm, seed, classes, task, number / 4),
                )
            )
            clock += sum(seconds.values())
        ends = {w: WorkerRound(outcome="accepted", bytes_down=72_900, bytes_up=4_100) for w in workers}
        clock += 0.3
        history.tasks.append(
            TaskRow(
                task=task,
                classes=classes[task - 1],
                started=begun,
                seconds={"consolidate": 0.25, "evaluate": 0.03, "checkpoint": 0.02, "total": clock - begun},
                counts=counts(algorithm, seed, classes, task, 1.0),
                workers=ends,
            )
        )
    if faults:
        history.faults = Faults(
            reconnects={workers[1]: 2},
            rejected={"late": 1},
            rounds_degraded=1,
            resumes=1,
            notes=["trainworker-edge-1 was killed in task 3, round 2 and rejoined in round 3"],
        )
    labelled = {
        w: {label: 2 + round(28 * draw(seed, w, label) ** 2) for label in ORDER[: size * tasks]}
        for w in workers
    }
    rows = [part for row in history.rounds for part in row.workers.values()]
    rows += [part for row in history.tasks for part in row.workers.values()]
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
        split=SplitFacts(
            digest=hashlib.sha256(f"split {seed} {tasks}".encode()).hexdigest(),
            tasks=split,
            test_counts=dict.fromkeys(range(10), 36),
            labelled=labelled,
            unlabelled={w: {label: 2 * n for label, n in row.items()} for w, row in labelled.items()},
        ),
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
                name=w,
                group=w.split("-")[1],
                device="cuda:0" if "gpu" in w else "cpu",
                samples=3 * sum(labelled[w].values()),
                restarts=1 if faults and w == workers[1] else 0,
            )
            for w in workers
        ],
        history=history,
        cost=Cost(
            seconds=clock - 1_760_000_000.0,
            cpu_seconds=1.7 * (clock - 1_760_000_000.0),
            bytes_down=sum(part.bytes_down for part in rows),
            bytes_up=sum(part.bytes_up for part in rows),
            parameters=18_154,
            local_steps=16 * sum(part.outcome == "accepted" for part in rows),
        ),
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
