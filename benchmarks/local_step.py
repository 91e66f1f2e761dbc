"""CPU time of one local SGD step on one thread, beside the prototype's figure and a bare PyTorch loop.

    python benchmarks/local_step.py [--quick] [--json FILE]

Trains rounds of task 2 (old classes, exemplars and a teacher are there) through the same `LocalLearner` that
pods run, on random images of Fashion-MNIST's and of digits' shape: the values do not matter for the time. A
figure is the median over rounds of a round's CPU seconds (weights in and out, sampling and augmentation
included) divided by its steps. Data loading, imports and the report are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engram.data.types import DataSet, Indices, Split, TaskShare, WorkerShare
from engram.federation.messages import Consolidate, Train
from engram.learning import build_global, build_local
from engram.learning.models import build_network
from engram.spec import FederatedIncrementalJob, parse_job

PROTOTYPE = {"fashion-mnist": {"replay": 4.5}}
"""Milliseconds a step that a right implementation took (design, learning.md): the cnn at batch 16."""
ALLOWED = 1.5
"""Times the prototype that a step may take."""
ALGORITHMS = ("finetune", "fedprox", "fedlwf", "fedewc", "replay", "icarl")


@dataclass(frozen=True)
class Case:
    """A network and a batch."""

    name: str
    shape: tuple[int, int, int]
    batch: int
    augmentation: str


CASES = (Case("fashion-mnist", (1, 28, 28), 16, "shift1"), Case("digits", (1, 8, 8), 8, "none"))


@dataclass(frozen=True)
class Row:
    """One line of the table; milliseconds are CPU time of one step."""

    data: str
    batch: int
    parameters: int
    what: str
    milliseconds: float
    prototype: float | None

    @property
    def ratio(self) -> float | None:
        """Times the prototype; None where it has no figure."""
        return None if self.prototype is None else self.milliseconds / self.prototype


class RandomImages:
    """Images without meaning: 60 of each of four classes."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.labels = np.repeat(np.arange(4, dtype=np.int64), 60)
        self._images = np.random.RandomState(0).standard_normal((240, *shape)).astype(np.float32)

    def read(self, indices: Indices) -> NDArray[np.float32]:
        """Return the images at `indices`."""
        return self._images[indices]


def job_of(case: Case, algorithm: str, rounds: int, steps: int) -> FederatedIncrementalJob:
    """Return the job of one line."""
    return parse_job(
        {
            "apiVersion": "engram.dev/v1alpha1",
            "kind": "FederatedIncrementalJob",
            "metadata": {"name": "step"},
            "spec": {
                "tasks": {"count": 2, "classesPerTask": 2},
                "model": {"name": "cnn"},
                "training": {
                    "roundsPerTask": rounds,
                    "localSteps": steps,
                    "batchSize": case.batch,
                    "augmentation": case.augmentation,
                    "gradientClip": 5,
                    "optimizer": {"learningRate": 0.01, "momentum": 0.9, "weightDecay": 0.0001},
                },
                "algorithm": {"name": algorithm},
                "workers": [{"name": "edge", "replicas": 1}],
            },
        }
    )


def measured(case: Case, algorithm: str, rounds: int, steps: int) -> Row:
    """Train `rounds` rounds of task 2 and return the line."""
    job = job_of(case, algorithm, rounds, steps)
    source = RandomImages(case.shape)
    dataset = DataSet(case.name, source, source, ("a", "b", "c", "d"), "")
    shares = tuple(TaskShare(np.arange(120) + 120 * t, np.empty(0, np.int64)) for t in range(2))
    share = WorkerShare("trainworker-edge-0", shares)
    split = Split(((0, 1), (2, 3)), (share,), np.arange(240), False, "")
    worker, central = (
        build_local(job, job.workers()[0], dataset, share, split),
        build_global(job, dataset, split),
    )
    start = central.begin_task(1, None)
    order = Consolidate(1, start, central.seen(1), central.shared("", 1, 0))
    closed = central.close_task(1, start, {share.worker: worker.consolidate(order)})
    weights = central.begin_task(2, closed)
    figures = []
    for round in range(1, rounds + 1):
        train = Train(2, round, weights, central.seen(2), central.shared(share.worker, 2, round))
        before = time.process_time()
        worker.train(train, lambda done, loss: None)
        figures.append(1000 * (time.process_time() - before) / steps)
    parameters = sum(array.size for array in weights.values())
    prototype = PROTOTYPE.get(case.name, {}).get(algorithm)
    return Row(case.name, case.batch, parameters, algorithm, statistics.median(figures[1:]), prototype)


def bare(case: Case, rounds: int, steps: int) -> Row:
    """Return the line of the same network in a plain PyTorch loop: no sampling, augmentation or exchange."""
    network = build_network(job_of(case, "finetune", rounds, steps), case.shape, 4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0001)
    images, targets = torch.randn(case.batch, *case.shape), torch.arange(case.batch) % 4
    figures = []
    for _ in range(rounds):
        before = time.process_time()
        for _ in range(steps):
            optimizer.zero_grad()
            functional.cross_entropy(network(images), targets).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
        figures.append(1000 * (time.process_time() - before) / steps)
    parameters = sum(p.numel() for p in network.parameters())
    return Row(case.name, case.batch, parameters, "bare loop", statistics.median(figures[1:]), None)


def main() -> int:
    """Print the table; exit 1 when a step takes more than 1.5 times the prototype's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a few seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE as well")
    options = parser.parse_args()
    rounds, steps = (5, 32) if options.quick else (11, 128)
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread"
    print(f"CPU milliseconds of one local SGD step ({machine})\n")
    print("data           batch parameters  what           ms prototype  ratio")
    rows = []
    for case in CASES:
        lines = [bare(case, rounds, steps)]
        lines += [measured(case, algorithm, rounds, steps) for algorithm in ALGORITHMS]
        for row in lines:
            known = "" if row.prototype is None else f"{row.prototype:>9.1f} {row.ratio:>6.2f}"
            print(
                f"{row.data:<14} {row.batch:>5} {row.parameters:>10,}  {row.what:<10} "
                f"{row.milliseconds:>6.2f} {known}"
            )
        rows += lines
    slow = [row for row in rows if row.ratio is not None and row.ratio > ALLOWED]
    print(f"\n{'too slow' if slow else 'ok'}: at most {ALLOWED} times the prototype's figure")
    if options.json is not None:
        plain = [{**asdict(row), "ratio": row.ratio} for row in rows]
        facts = {"command": " ".join(sys.argv), "machine": machine, "rows": plain}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
