"""Sedna's and Ianvs' classes in a job of engram's: found, asked as their authors expect, bad ones named."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from engram.data import make_split
from engram.data.sources.digits import load_digits
from engram.errors import ConfigurationError
from engram.federation.aggregation import build
from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Tensors, Train
from engram.federation.settings import Settings
from engram.run.checks import check_code
from engram.run.observers import Silent
from engram.sedna.estimator import EstimatorCoordinator, EstimatorWorker, Given
from engram.sedna.plugin import Plugin, estimator_class
from engram.spec import FederatedIncrementalJob, parse_job

MODULE = "users_sedna_code"


class Mean:
    """An Estimator that writes down what it is given and predicts by the nearest mean image."""

    given: ClassVar[list[dict[str, Any]]] = []
    helped: ClassVar[list[Any]] = []

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.weights: list[Any] = [np.zeros((10, 64)), np.zeros(10)]

    def train(self, train_data: Any, valid_data: Any = None, **options: Any) -> dict[str, Any]:
        x, y = train_data
        assert x is train_data.x is train_data["label_x"]
        assert y is train_data.y is train_data["label_y"]
        assert x.shape == (len(y), 8, 8, 1)
        assert train_data["unlabel_x"].shape[1:] == (8, 8, 1)
        assert set(train_data["unlabel_y"]) <= {-1}
        Mean.given.append(options)
        noise = np.random.random()
        for label in np.unique(y):
            self.weights[0][label] = x[y == label].reshape(-1, 64).mean(axis=0)
        self.weights[1] = self.weights[1] + noise
        return {"num_samples": len(y), "loss": [1.0, 0.5], "noise": noise, "name": "not a number"}

    def predict(self, data: Any) -> Any:
        flat = np.asarray(data).reshape(len(data), 64)
        return -((flat[:, None, :] - self.weights[0][None]) ** 2).sum(axis=2)

    def get_weights(self) -> list[Any]:
        return [array.tolist() for array in self.weights]

    def set_weights(self, weights: list[Any]) -> None:
        self.weights = [np.array(array) for array in weights]

    def helper_function(self, info: dict[str, Any]) -> None:
        Mean.helped.append(info)

    def save(self, model_url: str) -> None:
        np.savez(model_url, *self.weights)

    def load(self, model_url: str) -> None:
        with np.load(model_url) as file:
            self.weights = [file[name] for name in file.files]


class Largest:
    """An Aggregation that takes the largest client's model, with a helper."""

    def aggregate(self, clients: list[Any]) -> list[Any]:
        return [array.tolist() for array in max(clients, key=lambda client: client.num_samples).weights]

    def helper_function(self, train_info: dict[str, Any]) -> dict[str, Any]:
        assert isinstance(train_info["noise"], float)
        return {"twice": 2 * train_info["num_samples"]}


@pytest.fixture(autouse=True)
def module() -> Iterator[ModuleType]:
    made = ModuleType(MODULE)
    sys.modules[MODULE] = made
    for kind in (Mean, Largest):
        setattr(made, kind.__name__, kind)
    Mean.given, Mean.helped = [], []
    yield made
    del sys.modules[MODULE]


def a_job(**spec: Any) -> FederatedIncrementalJob:
    return parse_job(
        {
            "apiVersion": "engram.dev/v1alpha1",
            "kind": "FederatedIncrementalJob",
            "metadata": {"name": "plugins"},
            "spec": {
                "tasks": {"count": 2, "classesPerTask": 2},
                "model": {"name": f"{MODULE}:Mean", "parameters": {"width": 3}},
                "training": {"roundsPerTask": 2},
                "workers": [{"name": "edge", "replicas": 2}],
                **spec,
            },
        }
    )


class Run:
    """A job in this process."""

    def __init__(self, job: FederatedIncrementalJob, store: CheckpointStore | None = None) -> None:
        dataset = load_digits(None)
        split = make_split(job, dataset)
        kind = estimator_class(job)
        assert kind is not None
        self.given = Given(job, kind, dataset, split)
        self.workers = {
            worker.name: EstimatorWorker(self.given, worker, split.shares[worker.position])
            for worker in job.workers()
        }
        settings = Settings.from_job(job, [2] * len(split.tasks))
        self.aggregator = Aggregator(settings, EstimatorCoordinator(self.given), store, Silent())

    def __call__(self, stop: Callable[[], bool] = lambda: False) -> Any:
        return run_in_process(self.aggregator, self.workers, stop)


def test_an_estimator_gets_what_ianvs_gives() -> None:
    outcome = Run(a_job())()
    assert outcome.reason == "complete"
    assert [(given["task_id"], given["round"]) for given in Mean.given[::2]] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert {given["task_size"] for given in Mean.given} == {2}
    assert {(given["epochs"], given["batch_size"]) for given in Mean.given} == {(2, 32)}
    row = outcome.history.rounds[0].workers["trainworker-edge-0"]
    assert row.metrics["loss"] == 0.5
    assert row.samples == row.metrics["labelled"]
    [first, second] = outcome.history.tasks
    assert sum(first.counts.right.values()) / sum(first.counts.total.values()) > 0.9
    # Of classes that nobody has trained the scores do not count.
    assert set(second.counts.total) == set(second.classes) | set(first.classes)


def test_equal_seeds_give_equal_bits_though_it_draws_from_global_generators() -> None:
    outcomes = [Run(a_job(seed=seed))() for seed in (1, 1, 2)]
    bits = [outcome.weights["w1"].tobytes() for outcome in outcomes]
    assert bits[0] == bits[1] != bits[2]


def test_it_trains_only_with_arguments_that_it_takes(module: ModuleType) -> None:
    class Narrow(Mean):
        def train(self, train_data: Any, batch_size: int) -> dict[str, Any]:  # type: ignore[override]
            assert batch_size == 32
            return {}

    module.Narrow = Narrow  # type: ignore[attr-defined]
    assert Run(a_job(model={"name": f"{MODULE}:Narrow"}))().reason == "complete"


def test_an_aggregation_class_and_its_helper() -> None:
    job = a_job(aggregation={"name": f"{MODULE}:Largest"})
    outcome = Run(job)()
    assert outcome.reason == "complete"
    assert outcome.weights["w0"].dtype == np.float32
    samples = {part.samples for part in outcome.history.rounds[0].workers.values()}
    # Nothing in the first round, then what became of the round before.
    assert len(Mean.helped) == 6
    assert {int(info["twice"]) for info in Mean.helped[:2]} == {2 * number for number in samples}


def test_what_the_helper_made_survives_a_restart(tmp_path: Path) -> None:
    job = a_job(aggregation={"name": f"{MODULE}:Largest"})
    store = CheckpointStore(tmp_path)
    run = Run(job, store)
    assert run(lambda: len(run.aggregator.history.rounds) == 1).reason == "suspended"
    assert not Mean.helped
    again = Run(job, store)
    again(lambda: len(again.aggregator.history.rounds) == 2)
    assert len(Mean.helped) == 2


def test_an_aggregation_class_works_with_engrams_own_models_too() -> None:
    rule = build(f"{MODULE}:Largest", {})
    model: Tensors = {"w": np.zeros(2, np.float32), "steps": np.array(1, np.int64)}
    rule.begin(model, 10)
    rule.add("b", 1, {"w": np.ones(2, np.float32), "steps": np.array(5, np.int64)})
    rule.add("a", 2, {"w": np.full(2, 3, np.float32), "steps": np.array(7, np.int64)})
    result = rule.finish()
    assert {name: array.tolist() for name, array in result.items()} == {"w": [3.0, 3.0], "steps": 7}
    assert [array.dtype for array in result.values()] == [np.float32, np.int64]


BAD_RULES: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing": (lambda self, clients: None, "aggregate returned NoneType, not 1 arrays"),
    "another shape": (lambda self, clients: [[1.0]], r"aggregate\(\)\[0\] has shape \[1\], not \[2\]"),
    "ragged": (lambda self, clients: [[[1.0], []]], r"aggregate\(\)\[0\]"),
    "an exception": (lambda self, clients: clients[7], "IndexError"),
}


@pytest.mark.parametrize(("aggregate", "message"), BAD_RULES.values(), ids=BAD_RULES.keys())
def test_an_aggregation_class_that_is_wrong_is_named(
    module: ModuleType, aggregate: Callable[..., Any], message: str
) -> None:
    module.Bad = type("Bad", (), {"aggregate": aggregate})  # type: ignore[attr-defined]
    rule = build(f"{MODULE}:Bad", {})
    rule.begin({"w": np.zeros(2, np.float32)}, 10)
    rule.add("a", 2, {"w": np.ones(2, np.float32)})
    with pytest.raises(ConfigurationError, match=message) as raised:
        rule.finish()
    assert f"{MODULE}:Bad" in str(raised.value)


def test_a_helper_that_returns_what_cannot_travel_is_named(module: ModuleType) -> None:
    class Bad(Largest):
        def helper_function(self, train_info: dict[str, Any]) -> Any:
            return {"model": object()}

    module.Bad = Bad  # type: ignore[attr-defined]
    job = a_job(aggregation={"name": f"{MODULE}:Bad"})
    with pytest.raises(
        ConfigurationError, match="helper_function returned 'model', which is no array of numbers"
    ):
        Run(job)()


BAD_ESTIMATORS: dict[str, tuple[str, Any, str]] = {
    "weights that are no list": ("get_weights", lambda self: 1, "get_weights returned int"),
    "weights that are no arrays": ("get_weights", lambda self: ["x"], r"get_weights\(\)\[0\] is no array"),
    "too few predictions": ("predict", lambda self, data: [1], "predict returned shape"),
    "an exception": ("train", lambda self, data: 1 / 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize(("method", "wrong", "message"), BAD_ESTIMATORS.values(), ids=BAD_ESTIMATORS.keys())
def test_an_estimator_that_is_wrong_is_named(
    module: ModuleType, method: str, wrong: Any, message: str
) -> None:
    module.Bad = type("Bad", (Mean,), {method: wrong})  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=message) as raised:
        Run(a_job(model={"name": f"{MODULE}:Bad"}))()
    assert "spec.model.name" in str(raised.value)
    assert f"{MODULE}:Bad" in str(raised.value)


def test_half_an_estimator_and_what_it_cannot_do_are_refused_before_anything_starts(
    module: ModuleType,
) -> None:
    module.Half = type("Half", (), {"get_weights": lambda self: []})  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="is an Estimator without train, predict, set_weights"):
        check_code(a_job(model={"name": f"{MODULE}:Half"}))
    with pytest.raises(ConfigurationError, match="replay trains engram's networks"):
        check_code(a_job(algorithm={"name": "replay"}))
    with pytest.raises(ConfigurationError, match="is not asked about classes to come"):
        check_code(a_job(evaluation={"unseen": True}))


def test_labels_are_as_good_as_scores(module: ModuleType) -> None:
    class Sure(Mean):
        def predict(self, data: Any) -> Any:
            return super().predict(data).argmax(axis=1)[:, None]

    module.Sure = Sure  # type: ignore[attr-defined]
    plugins = [Plugin(a_job(), kind) for kind in (Mean, Sure)]
    weights = {"w0": np.arange(640, dtype=np.float32).reshape(10, 64), "w1": np.zeros(10, np.float32)}
    images = np.random.RandomState(0).rand(600, 8, 8, 1).astype(np.float32)
    for plugin in plugins:
        plugin.set_weights(weights)
    scores, labels = (plugin.predictions(images, range(10)) for plugin in plugins)
    assert np.array_equal(scores, labels)
    assert len(labels) == 600


def test_the_model_is_read_from_and_written_to_where_sedna_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = [np.full((10, 64), 0.25), np.ones(10)]
    np.savez(tmp_path / "start.npz", *start)
    monkeypatch.setenv("PRETRAINED_MODEL_URL", str(tmp_path / "start.npz"))
    monkeypatch.setenv("MODEL_URL", str(tmp_path / "end.npz"))
    run = Run(a_job())
    assert run.aggregator.weights["w0"][0, 0] == 0.25
    outcome = run()
    with np.load(tmp_path / "end.npz") as file:
        assert np.array_equal(file["arr_0"], outcome.weights["w0"])


def test_a_worker_without_samples_of_a_task_abstains() -> None:
    run = Run(a_job())
    worker = run.workers["trainworker-edge-0"]
    nothing = np.empty(0, np.int64)
    tasks = tuple(replace(task, labelled=nothing) for task in worker._share.tasks)
    worker._share = replace(worker._share, tasks=tasks)
    update = worker.train(Train(1, 1, run.aggregator.weights, (0, 1)), lambda share, loss: None)
    assert update.samples == 0
    assert not update.weights


def test_a_name_in_sednas_class_factory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when KubeEdge's library is installed and the module registers its class by an alias."""
    library = ModuleType("sedna.common.class_factory")
    registry = {"aggregation": {"FedLargest": Largest}}
    library.ClassFactory = type("ClassFactory", (), {"__registry__": registry})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sedna.common.class_factory", library)
    build(f"{MODULE}:FedLargest", {})
    with pytest.raises(ConfigurationError, match="has no FedSmallest"):
        build(f"{MODULE}:FedSmallest", {})
