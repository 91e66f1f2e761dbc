"""What is trained in the benchmark: networks, batches, images without meaning, and how time is taken."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engram.data.types import Indices
from engram.learning.device import pick_device
from engram.spec import FederatedIncrementalJob, parse_job
from engram.spec.algorithms import ALGORITHMS

WORKERS = 5
PER_CLASS = 60 * WORKERS
LABELLED = 1 / 3
"""Share of the images whose label is visible."""
CLIP, RATE, MOMENTUM, DECAY = 5.0, 0.01, 0.9, 1e-4


PSEUDO = "pseudo-labels H=2"
"""replay with the pseudo-labels of two helpers: semifci without its other terms, which the design timed."""
NAMED: Mapping[str, tuple[str, Mapping[str, float]]] = {
    PSEUDO: ("semifci", {"helpers": 2, "compensationWeight": 0, "fusionWeight": 0})
}
"""What is measured under another name than an algorithm's: the algorithm and its parameters."""


@dataclass(frozen=True)
class Case:
    """A network and a batch."""

    name: str
    model: dict[str, Any]
    shape: tuple[int, int, int]
    batch: int
    augmentation: str
    prototype: Mapping[str, float] = field(default_factory=dict)
    """CPU milliseconds that a step of an algorithm took in the design's prototype, on one thread."""
    cuda_only: bool = False


CASES = (
    Case(
        "fashion-fcil-20",
        {"name": "cnn"},
        (1, 28, 28),
        16,
        "shift1",
        prototype={"replay": 4.5, PSEUDO: 9.5},
    ),
    Case("cifar-100, resnet18", {"name": "resnet18"}, (3, 32, 32), 128, "crop-flip", cuda_only=True),
)


class RandomImages:
    """Images without meaning, PER_CLASS of each of four classes."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.labels = np.repeat(np.arange(4, dtype=np.int64), PER_CLASS)
        self._images = np.random.RandomState(0).standard_normal((4 * PER_CLASS, *shape)).astype(np.float32)

    def read(self, indices: Indices) -> NDArray[np.float32]:
        """Return the images at `indices`."""
        return self._images[indices]


def job_of(case: Case, algorithm: str, rounds: int, steps: int) -> FederatedIncrementalJob:
    """Return the job that the figures of an algorithm, or of what is `NAMED`, are taken from."""
    kind, parameters = named(algorithm)
    return parse_job(
        {
            "apiVersion": "engram.dev/v1alpha1",
            "kind": "FederatedIncrementalJob",
            "metadata": {"name": "training"},
            "spec": {
                "dataset": {"labelRatio": LABELLED},
                "tasks": {"count": 2, "classesPerTask": 2},
                "model": case.model,
                "training": {
                    "roundsPerTask": rounds,
                    "localSteps": steps,
                    "batchSize": case.batch,
                    "augmentation": case.augmentation,
                    "gradientClip": CLIP,
                    "optimizer": {"learningRate": RATE, "momentum": MOMENTUM, "weightDecay": DECAY},
                },
                "algorithm": {"name": kind, "parameters": {**_parameters(kind), **parameters}},
                "workers": [{"name": "edge", "replicas": WORKERS}],
            },
        }
    )


def named(name: str) -> tuple[str, Mapping[str, float]]:
    """Return the algorithm and the parameters that a name of the table stands for."""
    return NAMED.get(name, (name, {}))


def _parameters(algorithm: str) -> dict[str, int]:
    """Return parameters under which unlabelled images count from a task's first round on."""
    return {"warmupRounds": 0} if "warmup_rounds" in ALGORITHMS[algorithm].model_fields else {}


def seconds() -> float:
    """Return processor time; with a CUDA device, wall time once the device has done what it was given."""
    if pick_device().type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
