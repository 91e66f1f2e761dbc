"""Putting a job together: whose data are where, and what the record says of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.errors import ConfigurationError
from engram.federation.history import Counts, History, RoundRow, TaskRow, WorkerRound
from engram.federation.messages import Hello, LabelCounts
from engram.federation.versions import PROTOCOL
from engram.metrics.matrix import AccuracyMatrix
from engram.report.compare import load_record
from engram.run.composition import Place, compose, compose_for_worker
from engram.run.directory import RunDirectory
from engram.run.facts import cost, environment, exemplar_warning
from engram.run.holdings import Holding, without_label
from engram.run.recording import Keeper, Recorder, write_record
from engram.run.worker import labels_of
from engram.spec import parse_job


def site(folder: Path, name: str, samples: int) -> None:
    """Write a data set of four classes with `samples` training images."""
    random = np.random.default_rng(samples)
    (folder / name).mkdir()
    np.savez(
        folder / name / "data.npz",
        train_images=random.integers(0, 255, (samples, 8, 8), dtype=np.uint8),
        train_labels=np.arange(samples) % 4,
        test_images=random.integers(0, 255, (8, 8, 8), dtype=np.uint8),
        test_labels=np.arange(8) % 4,
    )


@pytest.fixture
def local(document: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A job whose two groups own data of their own; the aggregator's test set is a third."""
    for name, samples in (("aggregator", 8), ("north", 40), ("south", 24)):
        site(tmp_path, name, samples)
    changed = copy.deepcopy(document)
    changed["spec"]["dataset"] = {"name": "npz", "path": "aggregator", "partition": {"method": "local"}}
    changed["spec"]["workers"] = [
        {"name": "north", "replicas": 2, "dataset": {"path": "north"}},
        {"name": "south", "replicas": 1, "dataset": {"path": "south"}},
    ]
    return changed


def test_groups_own_their_data_and_read_them_once(local: dict[str, Any], tmp_path: Path) -> None:
    job = parse_job(local)
    composition = compose(job, Place(tmp_path))
    assert [(share.worker, share.samples) for share, _ in composition.shares] == [
        ("trainworker-north-0", 40),
        ("trainworker-north-1", 40),
        ("trainworker-south-0", 24),
    ]
    first, second, third = (composition.worker_data(worker) for worker in job.workers())
    assert first[0] is second[0]
    assert first[0] is not third[0]
    assert {split.digest for _, split, _ in (first, second, third)} == {composition.split.digest}


def test_a_worker_reads_its_own_data_only(local: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "aggregator/data.npz").unlink()
    (tmp_path / "north/data.npz").unlink()
    job = parse_job(local)
    worker = job.workers()[2]
    composition = compose_for_worker(job, Place(tmp_path), worker)
    assert composition.worker_data(worker)[2].samples == 24


def test_an_aggregator_pod_records_no_shares_that_it_cannot_see(
    local: dict[str, Any], tmp_path: Path
) -> None:
    composition = compose(parse_job(local), Place(tmp_path, mount=tmp_path, alone=True))
    recorder = Recorder(composition, environment("websocket", "engram aggregator"))
    record = recorder.record(History(), "running")
    assert record.split.labelled == {}
    assert [worker.samples for worker in record.workers] == [0, 0, 0]
    assert exemplar_warning(composition) == ()
    # What it cannot see it is told, by newcomers of elastic groups, too.
    (task, *_) = composition.split.tasks
    labels = LabelCounts(dict.fromkeys(task, 3), dict.fromkeys(task, 1))
    newcomer = "trainworker-edge-9"
    hello = Hello(newcomer, 1, PROTOCOL, "job", "split", 8, device="cpu", labels=labels)
    Keeper(recorder, RunDirectory(tmp_path)).introduced(newcomer, hello)
    record = recorder.record(History(), "running")
    assert record.split.labelled == {newcomer: dict.fromkeys(task, 3)}
    assert record.split.unlabelled == {newcomer: dict.fromkeys(task, 1)}
    assert record.workers[-1].model_dump(include={"name", "group", "samples"}) == {
        "name": newcomer,
        "group": "edge",
        "samples": 8,
    }
    assert any(note.startswith(f"{newcomer} holds no samples of task") for note in record.notes)


def test_exemplar_budgets_above_half_of_the_labels_are_a_warning(
    document: dict[str, Any], tmp_path: Path
) -> None:
    assert exemplar_warning(compose(parse_job(document), Place(tmp_path))) == ()
    document["spec"]["dataset"] = {"samplesPerClass": 10}
    document["spec"]["algorithm"]["parameters"]["exemplarsPerWorker"] = 15
    (warning,) = exemplar_warning(compose(parse_job(document), Place(tmp_path)))
    assert "15 exemplars a worker hold" in warning
    assert "of all 40 labels" in warning
    # An algorithm of the user's own names its budget the same way.
    (tmp_path / "hoarder.py").write_text(
        "from engram.learning.algorithms.replay import Replay\n\nclass Hoarder(Replay):\n    pass\n"
    )
    document["spec"]["algorithm"]["name"] = "hoarder:Hoarder"
    assert exemplar_warning(compose(parse_job(document), Place(tmp_path))) == (warning,)


def test_an_algorithm_that_leaks_says_so_in_the_run_and_in_its_record(
    document: dict[str, Any], tmp_path: Path
) -> None:
    composition = compose(parse_job(document), Place(tmp_path))
    assert not any("leaks" in warning for warning in composition.warnings())
    document["spec"]["algorithm"] = {
        "name": "glfc",
        "parameters": {"proxyServer": "reconstruct", "acceptPrivacyRisk": True},
    }
    composition = compose(parse_job(document), Place(tmp_path))
    (warning,) = [warning for warning in composition.warnings() if "leaks" in warning]
    assert "proxyServer: reconstruct of glfc leaks by design" in warning
    record = Recorder(composition, environment("in-process", "engram run")).record(History(), "running")
    assert warning in record.notes


def test_helpers_say_what_they_cost_in_the_run_and_in_its_record(
    document: dict[str, Any], tmp_path: Path
) -> None:
    document["spec"]["dataset"] = {"labelRatio": 0.2}
    document["spec"]["workers"][0]["replicas"] = 3
    said = {}
    for name, parameters in (("votes", {}), ("alone", {"helpers": 0}), ("one", {"helpers": 1})):
        document["spec"]["algorithm"] = {"name": "semifci", "parameters": parameters}
        composition = compose(parse_job(document), Place(tmp_path))
        said[name] = [warning for warning in composition.warnings() if "secure sum" in warning]
        record = Recorder(composition, environment("in-process", "engram run")).record(History(), "running")
        assert set(said[name]) <= set(record.notes)
    assert "downloads the models of 2 other workers beside the global one" in said["votes"][0]
    assert "downloads the model of another worker beside the global one" in said["one"][0]
    assert said["alone"] == []


def test_rounding_that_leaves_nothing_unlabelled_is_refused_where_it_is_needed(
    document: dict[str, Any], tmp_path: Path
) -> None:
    document["spec"]["dataset"] = {"labelRatio": 0.999}
    compose(parse_job(document), Place(tmp_path))
    document["spec"]["algorithm"] = {"name": "discmatch"}
    assert refusal(document, tmp_path) == (
        "spec.dataset.labelRatio: 0.999 leaves no worker with an unlabelled sample of any class, and "
        "discmatch with these parameters uses them: write less, there or for a group that has its own, or "
        "write algorithm.parameters.unlabelledWeight: 0"
    )
    document["spec"]["algorithm"]["parameters"] = {"unlabelledWeight": 0}
    compose(parse_job(document), Place(tmp_path))


def refusal(document: dict[str, Any], folder: Path) -> str:
    """Return why a job does not fit its data."""
    with pytest.raises(ConfigurationError) as caught:
        compose(parse_job(document), Place(folder))
    return str(caught.value)


class TestWorkersThatOwnTheirData:
    """Nobody knows what the others hold, except on the machine where all of it lies."""

    @pytest.fixture
    def owned(self, local: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
        """Return a job in which only north's one worker has images of class 3, and may see no label."""
        north, south = local["spec"]["workers"]
        north["replicas"] = 1
        north["dataset"]["labelRatio"] = 0
        south["dataset"]["labelRatio"] = 0.5
        with np.load(tmp_path / "south" / "data.npz") as found:
            arrays = dict(found)
        arrays["train_labels"] %= 3
        np.savez(tmp_path / "south" / "data.npz", class_names=["0", "1", "2", "3"], **arrays)
        local["spec"]["tasks"] = {"count": 2, "classesPerTask": 2, "classOrder": "natural"}
        return local

    def test_a_class_that_nobody_has_a_label_of_is_refused(
        self, owned: dict[str, Any], tmp_path: Path
    ) -> None:
        assert refusal(owned, tmp_path) == (
            "spec.dataset.labelRatio: class 3 (3) of task 2 has no label on any worker: only "
            "trainworker-north-0 holds images of it, and may see no label: give a group that holds images of "
            "it a labelRatio above 0"
        )
        owned["spec"]["workers"][0]["dataset"]["labelRatio"] = 0.01
        compose(parse_job(owned), Place(tmp_path))

    def test_unlabelled_samples_that_nobody_has_are_refused_where_they_are_needed(
        self, owned: dict[str, Any], tmp_path: Path
    ) -> None:
        owned["spec"]["algorithm"] = {"name": "discmatch"}
        for group in owned["spec"]["workers"]:
            group["dataset"]["labelRatio"] = 0.999
        assert refusal(owned, tmp_path) == (
            "spec.dataset.labelRatio: 0.999 leaves no worker with an unlabelled sample of any class, and "
            "discmatch with these parameters uses them: write less, there or for a group that has its own, "
            "or write algorithm.parameters.unlabelledWeight: 0"
        )
        owned["spec"]["workers"][1]["dataset"]["labelRatio"] = 0.5
        compose(parse_job(owned), Place(tmp_path))

    def test_in_a_pod_the_record_says_so_once_all_workers_have_come(
        self, owned: dict[str, Any], tmp_path: Path
    ) -> None:
        composition = compose(parse_job(owned), Place(tmp_path, alone=True))
        recorder = Recorder(composition, environment("websocket", "engram aggregator"))
        hellos = {}
        for worker in parse_job(owned).workers():
            labels = labels_of(compose(parse_job(owned), Place(tmp_path, alone=True)), worker)
            assert labels is not None
            hellos[worker.name] = Hello(worker.name, 1, PROTOCOL, "job", "split", 10, labels=labels)
        missing = "class 3 (3) of task 2 has no label on any worker"
        recorder.hellos["trainworker-north-0"] = hellos["trainworker-north-0"]
        assert not any(missing in note for note in recorder.record(History(), "running").notes)
        recorder.hellos["trainworker-south-0"] = hellos["trainworker-south-0"]
        assert any(missing in note for note in recorder.record(History(), "running").notes)

    def test_a_class_that_nobody_holds_is_told(self, owned: dict[str, Any], tmp_path: Path) -> None:
        with np.load(tmp_path / "north" / "data.npz") as found:
            arrays = dict(found)
        arrays["train_labels"] %= 3
        np.savez(tmp_path / "north" / "data.npz", class_names=["0", "1", "2", "3"], **arrays)
        told = compose(parse_job(owned), Place(tmp_path)).warnings()
        assert "class 3 (3) has no training samples on any worker" in told

    def test_not_more_than_three_holders_are_named(self) -> None:
        holdings = [Holding(f"edge-{place}", {}, {7: 1}) for place in range(5)]
        (told,) = without_label([[7]], ["a"] * 8, holdings)
        assert "only edge-0, edge-1, edge-2 and 2 more hold images of it" in told

    def test_more_helpers_than_workers_are_told(self, owned: dict[str, Any], tmp_path: Path) -> None:
        owned["spec"]["algorithm"] = {"name": "semifci", "parameters": {"helpers": 5}}
        owned["spec"]["workers"][0]["dataset"]["labelRatio"] = 0.5
        told = compose(parse_job(owned), Place(tmp_path)).warnings()
        assert any("helpers: 5, but there is 1 other worker now" in one for one in told)


def history() -> History:
    part = WorkerRound(outcome="accepted", samples=4, metrics={"steps": 3.0}, bytes_down=100, bytes_up=50)
    rounds = [
        RoundRow(task=1, round=number, started=0, seconds={}, workers={"a": part, "b": part})
        for number in (1, 2)
    ]
    counts = Counts(right={2: 1, 8: 2}, total={2: 2, 8: 2})
    tasks = [TaskRow(task=1, classes=[2, 8], started=0, seconds={}, counts=counts, workers={"a": part})]
    return History(rounds=rounds, tasks=tasks, active_seconds=7.5)


def test_cost_adds_up_rounds_and_task_ends() -> None:
    found = cost(history(), 123, 4.5)
    assert (found.bytes_down, found.bytes_up, found.local_steps) == (500, 250, 12)
    assert (found.seconds, found.parameters, found.cpu_seconds) == (7.5, 123, 4.5)


def test_the_record_is_written_after_every_task(document: dict[str, Any], tmp_path: Path) -> None:
    composition = compose(parse_job(document), Place(tmp_path))
    directory = RunDirectory(tmp_path)
    recorder = Recorder(composition, environment("in-process", "engram run"))
    write_record(directory, recorder.record(History(), "running"))
    assert not directory.matrix.exists()
    keeper = Keeper(recorder, directory)
    worker = "trainworker-edge-0"
    keeper.introduced(worker, Hello(worker, 1, PROTOCOL, "job", "split", 10, device="cpu"))
    keeper.task_closed(history().tasks[0], history())
    record = load_record(tmp_path)
    assert record.status == "running"
    assert record.completed is None
    assert record.workers[0].device == "cpu"
    assert record.split.digest == composition.split.digest
    matrix = AccuracyMatrix.parse(json.loads(directory.matrix.read_text()))
    assert matrix.accuracy == ({2: 0.5, 8: 1.0},)
