"""Bit identity: in what order workers run, whether they share a process, and whether one was replaced."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from engram.federation.messages import Consolidate, Tensors

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld

FIRST = "trainworker-edge-0"
ALGORITHMS = ["finetune", "fedlwf", "fedewc", "replay", "icarl", "scaffold", "feddyn", "fot"]


def digest(tensors: Tensors) -> str:
    text = hashlib.sha256()
    for name, array in tensors.items():
        text.update(name.encode() + array.tobytes())
    return text.hexdigest()


def ignore(done: float, loss: float) -> None:
    pass


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_runs_agree_whatever_torch_s_global_generator_holds(
    make_job: MakeJob, make_world: MakeWorld, algorithm: str
) -> None:
    job = make_job(algorithm, training={"augmentation": "crop-flip"})
    torch.manual_seed(1)
    weights, counts = make_world(job).run()
    torch.manual_seed(2)
    again, counts_again = make_world(job).run()
    assert digest(weights) == digest(again)
    assert counts == counts_again


def test_dropout_is_seeded_too(make_job: MakeJob, make_world: MakeWorld, module_folder: Path) -> None:
    (module_folder / "own_dropout.py").write_text(
        "from torch import nn\n"
        "def build(shape, parameters):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5))\n"
    )
    job = make_job(model={"name": "own_dropout:build"})
    torch.manual_seed(1)
    weights, _ = make_world(job).run()
    torch.manual_seed(2)
    again, _ = make_world(job).run()
    assert digest(weights) == digest(again)


def test_seed_matters(make_job: MakeJob, make_world: MakeWorld) -> None:
    assert digest(make_world(make_job(seed=0)).run()[0]) != digest(make_world(make_job(seed=1)).run()[0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_worker_alone_returns_what_it_returns_among_others(
    make_job: MakeJob, make_world: MakeWorld, algorithm: str
) -> None:
    job = make_job(algorithm, workers=3)
    together, alone = make_world(job), make_world(job, only=(0,))
    start = together.central.begin_task(1, None)
    middle = together.round(1, 1, start)
    order = together.order(FIRST, 1, 2, middle)
    # Alone: without round 1, without the others before and after it.
    expected = alone.workers[FIRST].train(order, ignore)
    for name in reversed(together.workers):
        update = together.workers[name].train(together.order(name, 1, 2, middle), ignore)
        if name == FIRST:
            assert digest(update.weights) == digest(expected.weights)
    end = Consolidate(1, middle, together.central.seen(1))
    one, other = together.workers[FIRST].consolidate(end), alone.workers[FIRST].consolidate(end)
    assert (digest(one.results), one.state) == (digest(other.results), other.state)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_replaced_in_the_middle_of_a_task(make_job: MakeJob, make_world: MakeWorld, algorithm: str) -> None:
    job = make_job(algorithm)
    expected, counts = make_world(job).run()

    world = make_world(job)
    weights = world.central.begin_task(1, None)
    for round in (1, 2):
        weights = world.round(1, round, weights)
    results = world.consolidate(1, weights)
    weights = world.central.close_task(1, weights, results)
    states = {name: result.state for name, result in results.items()}
    for task in (2, 3):
        weights = world.central.begin_task(task, weights)
        weights = world.round(task, 1, weights)
        # Both sides are replaced between the rounds, as after a crash.
        state = world.central.state()
        world = make_world(job)
        world.central.restore(task, state)
        for name, worker in world.workers.items():
            worker.restore(states[name])
        weights = world.round(task, 2, weights)
        results = world.consolidate(task, weights)
        weights = world.central.close_task(task, weights, results)
        states = {name: result.state for name, result in results.items()}
        assert world.central.evaluate(task, weights) == counts[task - 1]
    assert digest(weights) == digest(expected)


def test_restore_of_nothing_starts_afresh(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job("replay"))
    world.task(1, None)
    world.workers[FIRST].restore(b"")
    weights = world.central.begin_task(2, world.central.begin_task(1, None))
    assert world.workers[FIRST].train(world.order(FIRST, 2, 1, weights), ignore).metrics["exemplars"] == 0


PROGRAM = """
import hashlib, sys
import numpy as np
from engram.data.types import DataSet, Split, TaskShare, WorkerShare
from engram.federation.messages import Train
from engram.learning import build_global, build_local
from engram.spec import parse_job

class Images:
    shape = (1, 8, 8)
    labels = np.repeat(np.arange(2, dtype=np.int64), 20)
    def read(self, indices):
        return np.random.RandomState(0).standard_normal((40, 1, 8, 8)).astype(np.float32)[indices]

job = parse_job({"apiVersion": "engram.dev/v1alpha1", "kind": "FederatedIncrementalJob",
    "metadata": {"name": "a"}, "spec": {"tasks": {"count": 1, "classesPerTask": 2},
    "model": {"name": "lenet5"}, "training": {"localSteps": 5, "augmentation": "shift1"},
    "workers": [{"name": "edge", "replicas": 1}]}})
share = WorkerShare("trainworker-edge-0", (TaskShare(np.arange(40), np.empty(0, np.int64)),))
dataset = DataSet("x", Images(), Images(), ("a", "b"), "")
split = Split(((0, 1),), (share,), np.arange(40), False, "")
central = build_global(job, dataset, split)
worker = build_local(job, job.workers()[0], dataset, share, split)
update = worker.train(Train(1, 1, central.begin_task(1, None), (0, 1)), lambda a, b: None)
text = hashlib.sha256()
for name, array in update.weights.items():
    text.update(name.encode() + array.tobytes())
names = ("torch._dynamo", "torch._inductor", "sympy", "sklearn", "matplotlib")
print(text.hexdigest(), [name for name in names if name in sys.modules])
"""


@pytest.mark.process
def test_processes_agree_and_load_no_compiler(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PATH": ""},
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert len(found) == 1
    exec(PROGRAM, {})
    assert capsys.readouterr().out.split()[0] == next(iter(found)).split()[0]
    # torch's compiler costs a second and 90 MB in every worker; nothing here needs it.
    assert found.pop().endswith(" []")


def test_threads_are_set_from_the_job(make_job: MakeJob, make_world: MakeWorld) -> None:
    world = make_world(make_job(training={"threads": 2}))
    assert torch.get_num_threads() == 2
    weights = world.central.begin_task(1, None)
    make_world(make_job())
    assert torch.get_num_threads() == 1
    world.workers[FIRST].train(world.order(FIRST, 1, 1, weights), ignore)
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    make_world(make_job())
    assert np.isfinite(weights["head.weight"]).all()
