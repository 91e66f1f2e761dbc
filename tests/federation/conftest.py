"""Learners of a few lines of numpy that need no data set: what federation's tests train."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from engram.federation import codec
from engram.federation import settings as settings_module
from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.compression.packer import Packer
from engram.federation.compression.residuals import MemoryResiduals
from engram.federation.history import History, RoundRow, TaskRow, WorkerState
from engram.federation.inprocess import run_in_process
from engram.federation.messages import (
    ClassCounts,
    Consolidate,
    Consolidated,
    Evaluate,
    Heartbeat,
    Hello,
    Reject,
    Shared,
    Tensors,
    Train,
    Update,
)
from engram.federation.outcome import Outcome
from engram.federation.roles import Progress
from engram.federation.settings import Settings
from engram.federation.validation import check_like
from engram.federation.websocket import stream
from engram.spec.training import Aggregation, Evaluation
from tests.federation.desk import Desk
from tests.federation.transports import InProcess, Transport, WebSocket

FEATURES = 6


def generator(*parts: object) -> np.random.Generator:
    """Return a generator seeded by a hash, as the package's rule says."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


class LeastSquares:
    """A worker: a few steps of gradient descent on its own samples; keeps a running state like exemplars."""

    split_digest = "split"
    device = "cpu"

    def __init__(self, worker: str, samples: int = 40) -> None:
        self.worker, self.samples = worker, samples
        self.memory: dict[str, float] = {}
        self.trained: list[tuple[int, int]] = []
        self.restored: list[bytes] = []
        self.on_train: Callable[[Train], None] = lambda order: None
        self.samples_of: Callable[[Train], int] = lambda order: self.samples // 2

    def restore(self, state: bytes) -> None:
        self.restored.append(state)
        self.memory = json.loads(state) if state else {}

    def train(self, order: Train, progress: Progress) -> Update:
        self.on_train(order)
        self.trained.append((order.task, order.round))
        rng = generator(self.worker, order.task, order.round)
        weight = np.array(order.weights["head.weight"], np.float32)
        rows = len(weight)
        features = rng.normal(size=(16, FEATURES)).astype(np.float32)
        target = rng.normal(size=(16, rows)).astype(np.float32) + np.float32(sum(self.memory.values()))
        if "teacher" in order.shared:
            target += np.float32(order.shared["teacher"]["w"].sum())
        for step in range(3):
            error = features @ weight.T - target
            weight -= np.float32(0.05) * (error.T @ features) / np.float32(16)
            progress((step + 1) / 3, float(np.mean(error**2)))
        samples = self.samples_of(order)
        if samples == 0:
            return Update(order.task, order.round, 0, metrics={"loss": 0.0})
        weights = {
            "head.weight": weight,
            "head.bias": np.array(order.weights["head.bias"]) + np.float32(0.1),
            "steps": np.array(order.weights["steps"]) + 3,
        }
        info = {"sum": features.sum(axis=0)}
        return Update(order.task, order.round, samples, weights, {"loss": 0.5, "steps": 3.0}, info)

    def consolidate(self, order: Consolidate) -> Consolidated:
        self.memory[str(order.task)] = float(np.float32(np.mean(order.weights["head.weight"])))
        sums = np.asarray(order.weights["head.weight"]).sum(axis=0) * self.samples
        state = json.dumps(self.memory, sort_keys=True).encode()
        return Consolidated(order.task, self.samples, {"sums": sums}, state, {"exemplars": 3.0})

    def evaluate(self, order: Evaluate) -> ClassCounts:
        value = int(abs(float(np.sum(order.weights["head.weight"]))) * 10) % 10
        return ClassCounts(dict.fromkeys(order.seen, value), dict.fromkeys(order.seen, 10))


class Head:
    """The aggregator's side: a head that grows by two rows a task, a teacher after the first one."""

    split_digest = "split"
    wants_models = False

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.teacher: Tensors = {}
        self.info = np.zeros(FEATURES, np.float32)
        self.calls: list[str] = []
        self.on_round: Callable[[int, int], None] = lambda task, round: None
        self.models: list[Mapping[str, Update]] = []
        """The updates of the rounds, where they come with their weights."""

    def seen(self, task: int) -> tuple[int, ...]:
        return tuple(range(2 * task))

    def begin_task(self, task: int, weights: Tensors | None) -> Tensors:
        self.calls.append(f"begin {task}")
        rows = generator("head", task).normal(size=(2, FEATURES)).astype(np.float32)
        if weights is None:
            return {
                "head.weight": rows,
                "head.bias": np.zeros(2, np.float32),
                "steps": np.array(0, np.int64),
            }
        return {
            "head.weight": np.concatenate([weights["head.weight"], rows]),
            "head.bias": np.concatenate([weights["head.bias"], np.zeros(2, np.float32)]),
            "steps": weights["steps"],
        }

    def shared(self, worker: str, task: int, round: int) -> Shared:
        return {"teacher": self.teacher} if self.teacher and not worker else {}

    def check_info(self, task: int, weights: Tensors, info: Tensors) -> None:
        if info:
            check_like(info, {"sum": self.info})

    def server_step(
        self, task: int, round: int, before: Tensors, weights: Tensors, updates: Mapping[str, Update]
    ) -> Tensors:
        return weights

    def close_round(self, task: int, round: int, weights: Tensors, updates: Mapping[str, Update]) -> None:
        self.on_round(task, round)
        self.calls.append(f"round {task}.{round} {len(updates)}")
        for worker in sorted(updates):
            assert bool(updates[worker].weights) == (self.wants_models and updates[worker].samples > 0)
            if "sum" in updates[worker].info:
                self.info = self.info + updates[worker].info["sum"]
        if self.wants_models:
            self.models.append(updates)

    def check_results(self, task: int, weights: Tensors, results: Tensors) -> None:
        check_like(results, {"sums": np.empty(FEATURES, np.float32)})

    def close_task(self, task: int, weights: Tensors, results: Mapping[str, Consolidated]) -> Tensors:
        self.calls.append(f"task {task} {len(results)}")
        total = sum(answer.samples for answer in results.values())
        sums = sum((results[worker].results["sums"] for worker in sorted(results)), np.zeros(FEATURES))
        self.teacher = {"w": (np.asarray(sums) / total).astype(np.float32) * np.float32(0.01)}
        corrected = np.array(weights["head.bias"]) * np.float32(0.5)
        return {**weights, "head.bias": corrected}

    def evaluate(self, task: int, weights: Tensors) -> ClassCounts:
        self.calls.append(f"evaluate {task}")
        value = int(abs(float(np.sum(weights["head.weight"]))) * 10) % 10
        return ClassCounts(dict.fromkeys(self.seen(task), value), dict.fromkeys(self.seen(task), 10))

    def initial_counts(self) -> ClassCounts | None:
        return None

    def state(self) -> Tensors:
        return {"info": self.info, **{f"teacher/{name}": array for name, array in self.teacher.items()}}

    def restore(self, task: int, state: Tensors) -> None:
        self.calls.append(f"restore {task}")
        self.info = np.array(state["info"])
        self.teacher = {
            name.removeprefix("teacher/"): array
            for name, array in state.items()
            if name.startswith("teacher/")
        }


@dataclass
class Recorder:
    """An observer that writes down what it is told."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    bytes: dict[tuple[str, str], int] = field(default_factory=dict)
    states: dict[str, WorkerState] = field(default_factory=dict)
    beats: list[Heartbeat] = field(default_factory=list)
    hellos: dict[str, Hello] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def worker_changed(self, worker: str, state: WorkerState) -> None:
        self.states[worker] = state
        self.events.append(("worker", worker, state))

    def introduced(self, worker: str, hello: Hello) -> None:
        self.hellos[worker] = hello

    def worker_failed(self, worker: str, text: str, exit_code: int) -> None:
        self.events.append(("failed", worker, text, exit_code))

    def heartbeat(self, worker: str, beat: Heartbeat) -> None:
        self.beats.append(beat)

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int) -> None:
        key = (worker, direction)
        self.bytes[key] = self.bytes.get(key, 0) + size

    def rejected(self, worker: str, reject: Reject) -> None:
        self.events.append(("rejected", worker, reject.reason))

    def round_started(self, task: int, round: int) -> None:
        self.events.append(("started", task, round))

    def consolidation_started(self, task: int) -> None:
        self.events.append(("consolidates", task))

    def evaluation_started(self, task: int, round: int) -> None:
        self.events.append(("evaluates", task, round))

    def round_closed(self, row: RoundRow, history: History) -> None:
        self.events.append(("closed", row.task, row.round))

    def task_closed(self, row: TaskRow, history: History) -> None:
        self.events.append(("task", row.task))

    def finished(self, reason: str, message: str, history: History) -> None:
        self.events.append(("finished", reason))
        self.over.set()

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == kind]


@dataclass
class Federation:
    """A small job and what runs it; `aggregator()` makes a new one, as a restart would."""

    settings: Settings
    store: CheckpointStore | None = None
    observer: Recorder = field(default_factory=Recorder)
    head: Head = field(init=False)
    wants_models: bool = False
    residuals: dict[str, MemoryResiduals] = field(default_factory=dict)
    """What a worker's directory keeps while its process is killed."""

    def aggregator(self) -> Aggregator:
        self.head = Head(len(self.settings.rounds))
        self.head.wants_models = self.wants_models
        return Aggregator(self.settings, self.head, self.store, self.observer)

    def residuals_of(self, worker: str) -> MemoryResiduals:
        return self.residuals.setdefault(worker, MemoryResiduals())

    def packer_of(self, worker: str) -> Packer | None:
        method = self.settings.method
        return None if method is None else Packer(method, self.residuals_of(worker))

    def workers(self) -> dict[str, LeastSquares]:
        return {name: LeastSquares(name, 30 + 10 * i) for i, name in enumerate(self.settings.workers)}


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings() -> MakeSettings:
    def make(
        workers: int = 3,
        rounds: tuple[int, ...] = (2, 2),
        aggregation: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Settings:
        values: dict[str, Any] = {
            "job_digest": "job",
            "seed": 7,
            "workers": tuple(f"trainworker-edge-{index}" for index in range(workers)),
            "rounds": rounds,
            "aggregation": Aggregation.model_validate(aggregation or {}),
            "evaluation": Evaluation.model_validate(evaluation or {}),
            "groups": ("edge",),
            **changes,
        }
        return Settings(**values)

    return make


@pytest.fixture
def make_federation(make_settings: MakeSettings) -> Callable[..., Federation]:
    def make(store: CheckpointStore | None = None, **settings: Any) -> Federation:
        return Federation(make_settings(**settings), store)

    return make


@pytest.fixture(params=["whole", "in-pieces", "in-place"])
def in_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every answer be a small one, or one that needs credit and comes in pieces, in place or not."""
    if request.param == "in-place":
        monkeypatch.setattr(stream, "SMALLEST", 20)
    if request.param != "whole":
        monkeypatch.setattr(settings_module, "LARGEST_WHOLE", 64)
        monkeypatch.setattr(settings_module, "SMALLEST_WHOLE", 64)
        monkeypatch.setattr(codec, "CHUNK", 100)


def same_bits(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and first[name].tobytes() == second[name].tobytes()
        for name in first
    )


@pytest.fixture(name="same_bits")
def same_bits_fixture() -> Callable[[Tensors, Tensors], bool]:
    return same_bits


@pytest.fixture
def make_desk(make_federation: Callable[..., Federation]) -> Callable[..., Desk]:
    def make(store: CheckpointStore | None = None, **settings: Any) -> Desk:
        return Desk(make_federation(store, **settings))

    return make


@pytest.fixture(params=[InProcess, WebSocket])
def transport(request: pytest.FixtureRequest) -> Transport:
    made: Transport = request.param()
    return made


@pytest.fixture
def expected(make_federation: Callable[..., Federation]) -> Callable[..., Outcome]:
    """Return what a job gives in process when nothing goes wrong."""

    def run(**settings: Any) -> Outcome:
        federation = make_federation(**settings)
        return run_in_process(federation.aggregator(), federation.workers(), lambda: False)

    return run
