"""Real processes of which one is ten times slower than the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc"),
]

Start = Callable[..., Any]
SLOW = "trainworker-edge-3"
ROUNDS, STEPS = 4, 16
USUAL, LATE = 0.02, 0.2
"""Seconds that a step takes at least."""

ALGORITHM = f'''
import time

from engram.learning.algorithm import Algorithm
from engram.learning.memory import Memory
from engram.spec.base import Spec


class SleepyParameters(Spec):
    usual: float = {USUAL}
    late: float = {LATE}


class Sleepy(Algorithm):
    Parameters = SleepyParameters

    def __init__(self, parameters):
        super().__init__(parameters)
        self.memory = Memory(20)
        self.parameters = parameters

    def loss(self, context, batch):
        slow = context.worker == "{SLOW}"
        time.sleep(self.parameters.late if slow else self.parameters.usual)
        return super().loss(context, batch)
'''


@pytest.fixture
def document() -> dict[str, Any]:
    return {
        "apiVersion": "engram.dev/v1alpha1",
        "kind": "FederatedIncrementalJob",
        "metadata": {"name": "stragglers"},
        "spec": {
            "dataset": {"partition": {"method": "iid"}},
            "tasks": {"count": 2, "classesPerTask": 3},
            "model": {"name": "cnn", "parameters": {"channels": [4], "dense": 16}},
            "training": {"roundsPerTask": ROUNDS, "localSteps": STEPS, "batchSize": 16},
            "algorithm": {"name": "sleepy:Sleepy"},
            "aggregation": {"quorum": "75%", "stragglerFactor": 2},
            "workers": [{"name": "edge", "replicas": 4}],
        },
    }


def record_of(folder: Path) -> Any:
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def accuracy_of(folder: Path) -> float:
    """Return the final accuracy over all classes."""
    final = record_of(folder)["history"]["tasks"][-1]["counts"]
    right, total = (sum(map(int, final[key].values())) for key in ("right", "total"))
    return right / total


@pytest.fixture
def patient(engram: Start, job_file: Path, tmp_path: Path) -> Callable[..., float]:
    """Return a function: options -> final accuracy of rounds that wait for all, without the waiting."""
    (tmp_path / "sleepy.py").write_text(ALGORITHM, encoding="utf-8")

    def run(*options: str) -> float:
        # In process nobody is late.
        awake = ["--set", "algorithm.parameters.usual=0", "--set", "algorithm.parameters.late=0"]
        command = engram(
            "run", str(job_file), "--out", "patient", "--transport", "in-process", *awake, *options
        )
        assert command.end() == 0, command.errors
        return accuracy_of(tmp_path / "patient")

    return run


def test_rounds_close_without_a_worker_that_is_ten_times_slower_and_the_accuracy_stays(
    engram: Start, job_file: Path, tmp_path: Path, patient: Callable[..., float]
) -> None:
    expected = patient()
    command = engram("run", str(job_file), "--out", "run")
    assert command.end() == 0, command.errors
    history = record_of(tmp_path / "run")["history"]
    rounds = history["rounds"]
    assert rounds[0]["workers"][SLOW]["outcome"] == "accepted", "the first round has nothing to go by"
    late = [row for row in rounds if row["workers"][SLOW]["outcome"] == "absent"]
    assert len(late) >= len(rounds) - 2
    assert all(row["degraded"] for row in late)
    assert history["faults"]["rounds_degraded"] == len(late)
    for row in history["tasks"]:
        assert {part["outcome"] for part in row["workers"].values()} == {"accepted"}
    waiting = len(rounds) * STEPS * LATE
    assert sum(sum(row["seconds"].values()) for row in rounds) < 0.75 * waiting
    assert accuracy_of(tmp_path / "run") > expected - 0.1


def test_with_a_buffer_a_slow_worker_counts_when_it_is_ready_and_the_accuracy_stays(
    engram: Start, job_file: Path, tmp_path: Path, patient: Callable[..., float]
) -> None:
    late = 4 * USUAL
    options = [
        *("--set", "training.roundsPerTask=6", "--set", f"algorithm.parameters.late={late}"),
        *("--set", "aggregation.quorum=100%", "--set", "aggregation.stragglerFactor=null"),
    ]
    buffer = ("--set", "aggregation.buffer.size=3", "--set", "aggregation.buffer.maxStaleness=10")
    expected = patient(*options[:2], *options[4:])
    command = engram("run", str(job_file), "--out", "run", *options, *buffer)
    assert command.end() == 0, command.errors
    history = record_of(tmp_path / "run")["history"]
    rounds = history["rounds"]
    assert [len(row["workers"]) for row in rounds] == [3] * 12
    assert history["faults"]["rounds_degraded"] == 0
    staleness = [row["workers"][SLOW]["metrics"]["staleness"] for row in rounds if SLOW in row["workers"]]
    assert 0 < len(staleness) < len(rounds)
    assert max(staleness) >= 1
    for row in history["tasks"]:
        assert {part["outcome"] for part in row["workers"].values()} == {"accepted"}
    assert accuracy_of(tmp_path / "run") > expected - 0.1
