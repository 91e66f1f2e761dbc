"""`engram run` and `engram aggregator` with protocol sedna."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engram.federation.checkpoint import CheckpointStore
from engram.run.ports import Reservation
from engram.spec.loader import load_job
from tests.importing.samples import from_sedna, sedna_job, sedna_objects
from tests.sedna.conftest import SednaClient

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def job(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "engram.dev/v1alpha1",
        "kind": "FederatedIncrementalJob",
        "metadata": {"name": "small"},
        "spec": {
            "protocol": "sedna",
            "tasks": {"count": 1, "classesPerTask": 10},
            "training": {"roundsPerTask": 4, "localSteps": 40, "batchSize": 8},
            "evaluation": {"every": "round"},
            "workers": [{"name": "edge", "replicas": 2}],
            **spec,
        },
    }


def engram(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engram", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=150)


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job()), encoding="utf-8")
    return path


def test_the_dialect_gives_the_same_bits_as_our_own_protocol(job_file: Path, tmp_path: Path) -> None:
    counts, models = [], []
    for name, options in {
        "sedna": (),
        "engram": ("--set", "protocol=engram"),
        "in-process": ("--transport", "in-process"),
    }.items():
        done = engram("run", job_file, "--quiet", "--out", tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / name / "record.json").read_text())
        counts.append([row["counts"]["right"] for row in record["history"]["rounds"]])
        assert record["history"]["faults"]["rejected"] == {}
        models.append(final_weights(tmp_path / name))
    assert counts[0] == counts[1] == counts[2]
    assert sum(counts[0][-1].values()) > sum(counts[0][0].values())
    assert models[0] == models[1] == models[2]


def final_weights(run: Path) -> dict[str, bytes]:
    """Return the bits of the model in a run's checkpoint."""
    digest = load_job(run / "job.yaml").digest()
    found = CheckpointStore(run / "checkpoint").load(digest)
    assert found is not None
    return {name: array.tobytes() for name, array in found[0].weights.items()}


def test_what_only_sednas_workers_know_cannot_be_run_here(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    unknown = {"name": "none"}
    path.write_text(yaml.safe_dump(job(dataset=unknown, model=unknown)), encoding="utf-8")
    assert engram("validate", path).returncode == 0
    done = engram("run", path, "--out", tmp_path / "run")
    assert done.returncode == 42
    assert "spec.model.name: none: the workers of this job bring model and data" in done.stderr
    assert not (tmp_path / "run").exists()


class Pod:
    """`engram aggregator` as a pod runs it."""

    def __init__(self, folder: Path, port: int, document: dict[str, Any]) -> None:
        (folder / "job.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        (folder / "key").write_text("ab" * 32, encoding="ascii")
        self._command = [
            *(sys.executable, "-m", "engram", "aggregator", "--job", str(folder / "job.yaml")),
            *("--key-file", str(folder / "key"), "--dir", str(folder / "run"), "--host", "127.0.0.1"),
            *("--port", str(port), "--status-host", "127.0.0.1", "--status-port", "0"),
        ]
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        assert self.process.stdout is not None
        assert "listening" in self.process.stdout.readline()

    def end(self) -> int:
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[tuple[Pod, int]]:
    unknown = {"name": "none"}
    with Reservation() as reserved:
        training = {"roundsPerTask": 3}
        pod = Pod(tmp_path, reserved.port, job(dataset=unknown, model=unknown, training=training))
        yield pod, reserved.port
        pod.process.kill()
        pod.process.communicate(timeout=30)


def test_an_imported_job_runs_with_sednas_workers(tmp_path: Path) -> None:
    imported = from_sedna(sedna_job(), *sedna_objects(), dialect=True)
    names = ["trainworker-worker1-0", "trainworker-worker2-0"]
    with Reservation() as reserved:
        pod = Pod(tmp_path, reserved.port, dict(imported.job))
        try:
            workers = [SednaClient(reserved.port, name).subscribe() for name in names]
            for round in (1, 2, 3):  # exit_round of the sample
                for number, worker in enumerate(workers):
                    worker.upload([[float(round), float(number)]])
                answers = [worker.weights() for worker in workers]
                assert [answer["data"]["weights"] for answer in answers] == [[[float(round), 0.5]]] * 2
            assert {answer["data"]["exit_flag"] for answer in answers} == {"ok"}
            for worker in workers:
                worker.close()
            assert pod.end() == 0
        finally:
            pod.process.kill()
            pod.process.communicate(timeout=30)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["status"], len(record["history"]["rounds"])) == ("complete", 3)


def test_an_aggregator_that_is_killed_goes_on_where_it_was(pod: tuple[Pod, int], tmp_path: Path) -> None:
    """The original has lost everything then."""
    aggregator, port = pod
    workers = [SednaClient(port, f"w{index}").subscribe() for index in range(2)]
    for worker in workers:
        worker.upload([[1.0, 2.0]])
    assert [worker.weights()["round_number"] for worker in workers] == [1, 1]
    aggregator.process.send_signal(signal.SIGKILL)
    aggregator.end()
    for worker in workers:
        worker.close()
    aggregator.start()
    workers = [SednaClient(port, f"w{index}").subscribe() for index in range(2)]
    for worker in workers:
        worker.upload([[9.0, 9.0]])
        answer = worker.weights()
        assert (answer["round_number"], answer["data"]["weights"]) == (1, [[1.0, 2.0]])
    for round in (2, 3):
        for worker in workers:
            worker.upload([[float(round), 2.0]])
        answers = [worker.weights() for worker in workers]
        assert [answer["data"]["weights"] for answer in answers] == [[[float(round), 2.0]]] * 2
    assert {answer["data"]["exit_flag"] for answer in answers} == {"ok"}
    for worker in workers:
        worker.close()
    assert aggregator.end() == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["status"] == "complete"
    assert record["history"]["faults"]["resumes"] == 1
    report = engram("report", tmp_path / "run")
    assert report.returncode == 0, report.stderr
