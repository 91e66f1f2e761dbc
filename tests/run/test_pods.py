"""The commands as pods run them: last words, signals, TLS, lost aggregators, resized groups, the report."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.run.aggregator import FOR_GOOD
from engram.spec.compact import unpack
from engram.spec.last_word import read
from engram.spec.names import Reason, SpecKey
from tests.run.pods import UID, Pods, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

A, B, C = (f"trainworker-edge-{index}" for index in range(3))
MakePods = Callable[..., Pods]


@pytest.fixture
def document() -> dict[str, Any]:
    """Small enough for a test, long enough to be interrupted."""
    return {
        "apiVersion": "engram.dev/v1alpha1",
        "kind": "FederatedIncrementalJob",
        "metadata": {"name": "small", "namespace": "default"},
        "spec": {
            "dataset": {"partition": {"method": "iid"}},
            "tasks": {"count": 2, "classesPerTask": 2},
            "model": {"name": "cnn", "parameters": {"channels": [4], "dense": 8}},
            "training": {"roundsPerTask": 4, "localSteps": 60, "batchSize": 8, "gradientClip": 5},
            "algorithm": {"name": "icarl", "parameters": {"exemplarsPerWorker": 8}},
            "workers": [{"name": "edge", "replicas": 2}],
            "runPolicy": {"orphanSeconds": 60},
        },
    }


@pytest.fixture
def make_pods(tmp_path: Path, document: dict[str, Any]) -> Iterator[MakePods]:
    made: list[Pods] = []

    def make(**options: Any) -> Pods:
        made.append(Pods(tmp_path, document, **options))
        return made[-1]

    yield make
    for pods in made:
        pods.close()


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """The report of the undisturbed run, once a test has made one."""
    return {}


@pytest.fixture
def local(engram: Callable[..., Any], job_file: Path, tmp_path: Path, reference: dict[str, Any]) -> Any:
    """Return report.json of the undisturbed run, in process."""
    if not reference:
        command = engram("run", str(job_file), "--out", "expected", "--transport", "in-process")
        assert command.end() == 0, command.errors
        reference |= json.loads((tmp_path / "expected/report.json").read_text())
    return reference


@pytest.fixture
def expected(local: Any) -> Any:
    """Return R[t][k] of the undisturbed run."""
    return local["matrix"]


def matrix(pods: Pods) -> Any:
    return json.loads((pods.checkpoint / "matrix.json").read_text())


def test_a_job_over_tls_leaves_its_result_in_the_termination_message(
    make_pods: MakePods, expected: Any
) -> None:
    pods = make_pods()
    aggregator = pods.aggregator("--grace", "60")
    workers = [pods.worker(A), pods.worker(B)]
    aggregator.wait_for("with TLS")
    assert pods.status("/healthz") == (200, {"status": "ok"})
    wait_until(lambda: pods.status()[1].get("recordServed"))
    assert pods.status()[1]["phase"] == "Succeeded"
    assert pods.status()[1]["aggregator"]["memoryBytes"] > 50_000_000
    assert [worker.end() for worker in workers] == [0, 0]
    assert aggregator.summary.outcome == "complete"  # also for somebody who kills it now
    assert pods.status("/v1/record")[1]["status"] == "complete"
    assert aggregator.end() == 0  # the record was fetched
    summary = aggregator.summary
    assert (summary.outcome, summary.exit_code, summary.message) == ("complete", 0, "")
    assert (summary.rounds, summary.display["task"], summary.display["workers"]) == (8, "2/2", "2/2")
    assert [task["index"] for task in summary.tasks] == [1, 2]
    assert summary.matrix is not None
    assert [len(row) for row in summary.matrix] == [1, 2]
    assert matrix(pods) == expected
    assert aggregator.output.count("Traceback") == 0
    assert workers[0].last_word == "done"


def test_a_quorum_that_is_missed_ends_a_run_for_good_where_the_policy_says_so(
    make_pods: MakePods, document: dict[str, Any]
) -> None:
    document["spec"]["aggregation"] = {"roundDeadlineSeconds": 1, "deadlinePolicy": "Fail"}
    aggregator = make_pods().aggregator()
    assert aggregator.end() == 42  # nobody came, and no other pod would change that
    assert aggregator.summary.reason == Reason.QUORUM_NOT_REACHED


def test_only_an_end_that_no_other_pod_follows_waits_for_a_report() -> None:
    assert {0, 42, 43, 44} == FOR_GOOD


def test_the_report_pod_ends_the_aggregators_wait_and_reports_what_a_local_run_reports(
    make_pods: MakePods, local: Any
) -> None:
    pods = make_pods()
    aggregator = pods.aggregator("--grace", "600")
    early = pods.reporter()  # the aggregator has no record yet
    workers = [pods.worker(A), pods.worker(B)]
    assert early.end() == 0, early.output
    assert aggregator.end() == 0
    assert [worker.end() for worker in workers] == [0, 0]
    late = pods.reporter("--record", str(pods.checkpoint), ENGRAM_REPORT_DIR="")  # the aggregator has gone
    assert late.end() == 0, late.output
    found, again = unpack(early.output), unpack(late.output)
    assert found is not None
    assert again is not None
    assert found.files == again.files
    assert (found.location, again.location) == (f"default-small-{UID[:8]}", "")
    assert (pods.folder / "report" / found.location / "report.html").exists()
    report = json.loads(found.files["report.json"])
    for key in ("metrics", "matrix", "task_accuracy", "labels", "progress"):
        assert report[key] == local[key], key


@pytest.mark.parametrize(
    ("rate", "phase", "status", "outcome", "code"),
    [(0.05, "Succeeded", "complete", "complete", 0), (1000, "Failed", "failed", "failed", 42)],
    ids=["complete", "failed"],
)
def test_sigterm_ends_the_wait_for_the_report_at_once_with_the_code_of_the_run(
    make_pods: MakePods,
    document: dict[str, Any],
    rate: float,
    phase: str,
    status: str,
    outcome: str,
    code: int,
) -> None:
    document["spec"]["training"] |= {
        "roundsPerTask": 1,
        "gradientClip": None,
        "optimizer": {"learningRate": rate},
    }
    pods = make_pods()
    aggregator = pods.aggregator("--grace", "600")
    for name in (A, B):
        pods.worker(name)
    record = pods.checkpoint / "record.json"
    wait_until(lambda: record.exists() and json.loads(record.read_text())["status"] == status)
    assert record.stat().st_mode & 0o044 == 0o044  # the report's pod reads it where the checkpoint is durable
    wait_until(lambda: aggregator.last_word)
    assert pods.status()[1]["phase"] == phase
    assert aggregator.running
    assert aggregator.terminate() == code
    assert (aggregator.summary.outcome, aggregator.summary.exit_code) == (outcome, code)
    assert "Traceback" not in aggregator.output


@pytest.mark.parametrize(
    ("change", "code", "reason", "message"),
    [
        (
            {"algorithm": {"name": "absent.module:Thing"}},
            42,
            Reason.CONFIGURATION_ERROR,
            "absent.module:Thing",
        ),
        (
            {"algorithm": {"name": "icarl", "parameters": {"temperatur": 1}}},
            42,
            Reason.CONFIGURATION_ERROR,
            "temperatur",
        ),
        ({"dataset": {"name": "mnist", "volume": {"emptyDir": {}}}}, 43, Reason.DATA_ERROR, "is empty"),
        (
            {"dataset": {"name": "npz", "volume": {"emptyDir": {}}, "path": "x"}},
            43,
            Reason.DATA_ERROR,
            "is empty: put the data there",
        ),
    ],
)
def test_what_is_wrong_from_the_start_is_the_last_word_of_both(
    make_pods: MakePods,
    document: dict[str, Any],
    change: dict[str, Any],
    code: int,
    reason: Reason,
    message: str,
) -> None:
    document["spec"] |= change
    pods = make_pods()
    data = pods.folder / "data"
    data.mkdir()
    processes = [pods.aggregator(ENGRAM_DATA_DIR=str(data)), pods.worker(A, ENGRAM_DATA_DIR=str(data))]
    assert [process.end() for process in processes] == [code, code]
    aggregator, worker = processes
    summary = aggregator.summary
    assert (summary.outcome, summary.exit_code, summary.reason) == ("failed", code, reason)
    found, sentence = read(worker.last_word, code)
    assert found is reason
    for said in (summary.message, sentence):
        assert message in said
        assert "\n" not in said
    assert not any("Traceback (most recent call last)" in process.output for process in processes)


def test_wrong_options_and_files_are_configuration_errors(make_pods: MakePods) -> None:
    pods = make_pods()
    lacking = pods.worker(A, ENGRAM_JOB_FILE="")
    odd = pods.aggregator(AGG_BIND_PORT="many")
    without_key = pods.aggregator(ENGRAM_TLS_KEY_FILE=str(pods.folder / "absent"))
    unwritable = pods.aggregator(ENGRAM_CHECKPOINT_DIR="/proc/engram")
    assert [process.end() for process in (lacking, odd, without_key, unwritable)] == [42] * 4
    assert "--job" in lacking.last_word
    assert "AGG_BIND_PORT" in odd.summary.message
    assert "--tls-cert" in without_key.summary.message
    assert "spec.aggregator.checkpoint" in unwritable.summary.message
    assert unwritable.summary.reason == Reason.CHECKPOINT_FAILED


def test_a_port_that_somebody_else_holds_is_told_as_such(make_pods: MakePods) -> None:
    pods = make_pods()
    with socket.create_server(("127.0.0.1", pods.port)), socket.create_server(("127.0.0.1", 0)) as other:
        taken = pods.aggregator()
        status_taken = pods.aggregator("--status-port", str(other.getsockname()[1]))
        assert [taken.end(), status_taken.end()] == [42, 42]
    for process, words in (
        (taken, f"port {pods.port} of 127.0.0.1 is taken: end what listens there"),
        (status_taken, "cannot listen on 127.0.0.1"),
    ):
        assert (process.summary.outcome, process.summary.reason) == ("failed", Reason.PORT_TAKEN)
        assert words in process.summary.message


def test_a_failing_import_is_a_last_word_too(make_pods: MakePods, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text("raise RuntimeError('libcudart is not there')\n")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "numpy.py").write_text("raise ModuleNotFoundError('numpy', name='numpy')\n")
    pods = make_pods()
    aggregator = pods.aggregator(PYTHONPATH=str(tmp_path / "gone"))
    worker = pods.worker(A, PYTHONPATH=str(tmp_path / "broken"))
    assert (aggregator.end(), worker.end()) == (1, 1)
    assert aggregator.summary.outcome == "failed"
    assert "numpy" in aggregator.summary.message
    assert "libcudart is not there" in worker.last_word


def test_a_damaged_file_names_the_volume_that_it_is_in(make_pods: MakePods, document: dict[str, Any]) -> None:
    document["spec"]["dataset"] |= {"name": "npz", "volume": {"emptyDir": {}}, "path": "set.npz"}
    pods = make_pods()
    data = pods.folder / "data"
    data.mkdir()
    np.savez(data / "set.npz", train_images=np.zeros((1, 2, 2), np.uint8))
    worker = pods.worker(A, ENGRAM_DATA_DIR=str(data))
    assert worker.end() == 43
    assert "holds no array" in worker.last_word
    assert "it is in spec.dataset.volume" in worker.last_word


def test_sigterm_ends_a_worker_with_75_whatever_it_does(
    make_pods: MakePods, document: dict[str, Any]
) -> None:
    document["spec"]["training"]["localSteps"] = 100_000
    pods = make_pods()
    importing = pods.worker(A)
    wait_until(lambda: Path(f"/proc/{importing.pid}/maps").read_text().count("numpy"))
    assert importing.terminate() == 75
    assert importing.last_word.startswith("told to stop")
    connecting = pods.worker(A)
    connecting.wait_for("cannot reach the aggregator")
    assert connecting.terminate() == 75
    aggregator = pods.aggregator()
    training, waiting = pods.worker(A), pods.worker(B)
    wait_until(
        lambda: [row.get("state") for row in pods.status()[1].get("workerStatuses", [])] == ["training"] * 2
    )
    assert training.terminate() == 75
    assert waiting.terminate() == 75
    assert aggregator.terminate() == 75
    assert aggregator.summary.outcome == "suspended"
    assert "Traceback" not in training.output + aggregator.output


def test_workers_stay_when_the_aggregator_is_drained_and_when_it_loses_everything(
    make_pods: MakePods, expected: Any
) -> None:
    pods = make_pods()
    first = pods.aggregator()
    workers = [pods.worker(A), pods.worker(B)]
    first.wait_for("round 2/8")
    assert first.terminate() == 75
    assert first.summary.outcome == "suspended"
    assert first.summary.rounds >= 2
    second = pods.aggregator()
    second.wait_for("task 1/2 done")
    second.kill()
    shutil.rmtree(pods.checkpoint)  # an emptyDir dies with its pod
    third = pods.aggregator()
    third.wait_for("round 1/8")
    fresh = workers.pop()
    fresh.kill()  # as does a worker's: it takes its state from the welcome
    workers.append(pods.worker(B))
    assert third.end() == 0, third.output
    assert [worker.end() for worker in workers] == [0, 0]
    assert matrix(pods) == expected
    assert third.summary.resumes == 0


def test_a_crash_of_a_worker_is_in_the_aggregators_log_and_status(
    make_pods: MakePods, document: dict[str, Any]
) -> None:
    document["spec"]["training"]["augmentation"] = "faulty:Faulty"
    document["spec"]["workers"][0]["replicas"] = 1
    pods = make_pods()
    (pods.spec / "faulty.py").write_text(
        "class Faulty:\n    def __call__(self, *arguments):\n        return self.nothing\n"
    )
    aggregator, worker = pods.aggregator(), pods.worker(A)
    code = worker.end()
    assert code in (1, 42)
    assert "nothing" in worker.last_word
    assert read(worker.last_word, code)[0] is (Reason.CONFIGURATION_ERROR if code == 42 else None)
    if code == 42:  # an error of the user's own code ends the run
        assert aggregator.end() == 42
        assert "nothing" in aggregator.summary.message
        assert aggregator.summary.reason == Reason.CONFIGURATION_ERROR
    else:
        wait_until(lambda: "nothing" in json.dumps(pods.status()[1]))
    aggregator.wait_for(f"{A} ended with exit code {code}")


def test_a_group_that_shrinks_is_not_waited_for_and_one_that_grows_joins(
    make_pods: MakePods, document: dict[str, Any]
) -> None:
    document["spec"]["dataset"] = {"partition": {"method": "local"}}
    document["spec"]["training"]["localSteps"] = 200
    pods = make_pods()
    aggregator = pods.aggregator()
    workers = {name: pods.worker(name) for name in (A, B)}
    aggregator.wait_for("round 2/8")
    workers[A].pause()
    document["spec"]["workers"][0]["replicas"] = 3
    pods.write_job()
    workers[C] = pods.worker(C)
    wait_until(lambda: C in json.dumps(pods.status()[1]))
    workers[A].proceed()
    aggregator.wait_for("3 of 3 updates")
    workers[A].pause()
    assert pods.status()[1]["display"]["workers"] == "3/3"
    workers[C].kill()  # without a word, as when its node is off
    workers[B].kill()
    document["spec"]["workers"][0]["replicas"] = 1
    pods.write_job()
    workers[A].proceed()
    assert aggregator.end() == 0, aggregator.output
    assert workers[A].end() == 0
    record = json.loads((pods.checkpoint / "record.json").read_text())
    assert {row["name"] for row in record["workers"]} == {A, B, C}
    assert sum(record["split"]["labelled"][C].values()) > 0
    assert any("resized: edge 1" in note for note in record["history"]["faults"]["notes"])


def test_a_list_of_replicas_beside_the_job_file_lets_shares_of_a_computed_split_rest(
    make_pods: MakePods, document: dict[str, Any]
) -> None:
    document["spec"]["training"]["localSteps"] = 200
    pods = make_pods()
    (pods.spec / SpecKey.REPLICAS).write_text("edge 2\n")
    aggregator = pods.aggregator()
    workers = [pods.worker(A), pods.worker(B)]
    aggregator.wait_for("round 2/8")
    workers[1].kill()
    (pods.spec / SpecKey.REPLICAS).write_text("edge 1\n")
    assert aggregator.end() == 0, aggregator.output
    assert workers[0].end() == 0
    assert aggregator.summary.display["workers"] == "1/1"


def test_nothing_is_written_without_the_variable(make_pods: MakePods) -> None:
    worker = make_pods().worker(A, ENGRAM_JOB_FILE="/absent", ENGRAM_TERMINATION_LOG="")
    assert worker.end() == 42
    assert worker.last_word == ""


def test_a_replaced_worker_finds_what_compression_owes_on_its_state_volume_or_the_report_says_so(
    make_pods: MakePods, document: dict[str, Any], tmp_path: Path
) -> None:
    document["spec"]["aggregation"] = {"compression": "int8"}
    pods = make_pods()
    aggregator = pods.aggregator()
    kept = tmp_path / "state"
    first, second = pods.worker(A, ENGRAM_STATE_DIR=str(kept)), pods.worker(B)
    aggregator.wait_for("round 2/")
    first.kill()
    first = pods.worker(A, ENGRAM_STATE_DIR=str(kept))
    aggregator.wait_for("round 3/")
    assert list(kept.glob("residual-*.bin"))
    second.kill()
    second = pods.worker(B)
    assert [first.end(), second.end(), aggregator.end()] == [0, 0, 0]
    record = json.loads((pods.checkpoint / "record.json").read_text())
    [note] = [note for note in record["history"]["faults"]["notes"] if "owed" in note]
    assert f"{B} had lost what its updates still owed" in note
