"""Bad input: exit code 42, one clear sentence naming file and field, no traceback, nothing left behind."""

from __future__ import annotations

import gzip
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from engram.run.overrides import set_path

Engram = Callable[..., Any]
MNIST = {"name": "mnist", "path": "data"}


def refused(engram: Engram, *arguments: str | Path) -> str:
    """Run a command that must be refused; return its sentence."""
    before = sorted(Path.cwd().rglob("*"))
    result = engram(*arguments)
    assert result.exit_code == 42, result.output
    assert result.stderr.startswith("engram: error: ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert sorted(Path.cwd().rglob("*")) == before
    sentence: str = result.stderr.removeprefix("engram: error: ").rstrip("\n")
    return sentence


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec: [", "job.yaml"),
        ("- a\n- b\n", "job.yaml"),
        ("", "job.yaml"),
        ("a: 1\n---\nb: 2\n", "2 documents where one is meant"),
        ("apiVersion: engram.dev/v1alpha1\nkind: Job\nmetadata: {name: a}\n", "FederatedIncrementalJob"),
        ("apiVersion: v1\nkind: FederatedIncrementalJob\nmetadata: {name: a}\n", "engram.dev/v1alpha1"),
    ],
)
def test_files_that_are_no_job(engram: Engram, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    assert message in refused(engram, "run", "job.yaml")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("taskz", {}, "spec.taskz: unknown field: did you mean"),
        ("tasks.count", 9, "spec.tasks"),
        ("tasks.classes", [1, 2, 3], "spec.tasks"),
        ("dataset.labelRatio", 0, "spec.dataset.labelRatio"),
        ("dataset.labelRatio", 1.5, "spec.dataset.labelRatio"),
        ("dataset.name", "digit", "did you mean digits?"),
        ("model.name", "resnet", "spec.model.name"),
        ("algorithm.name", "icral", "did you mean icarl?"),
        ("algorithm.parameters", {"exemplarPerWorker": 4}, "exemplarsPerWorker"),
        ("aggregation.parameters", {"momentum": 0.9}, "momentum"),
        ("model.parameters", {"channels": "many"}, "spec.model.parameters.channels"),
    ],
)
def test_jobs_that_cannot_be_right(
    engram: Engram, job_file: Path, document: dict[str, Any], path: str, value: Any, message: str
) -> None:
    job_file.write_text(yaml.safe_dump(set_path(document, path.split("."), value)))
    sentence = refused(engram, "run", "job.yaml")
    assert sentence.startswith("job.yaml: spec.")
    assert message in sentence


def test_more_workers_than_samples(engram: Engram, job_file: Path) -> None:
    sentence = refused(
        engram, "run", job_file, "--set", "workers.edge.replicas=20", "--set", "dataset.samplesPerClass=2"
    )
    assert sentence.startswith(f"{job_file}: spec.workers: 20 workers")


def test_a_data_set_that_is_not_there_says_what_to_put_where(engram: Engram, job_file: Path) -> None:
    sentence = refused(
        engram, "run", job_file, "--set", "dataset.name=fashion-mnist", "--set", "dataset.path=nowhere"
    )
    assert sentence.startswith(f"{job_file}: spec.dataset: {job_file.parent / 'nowhere'}")
    assert "dataset-fashion-mnist" in sentence
    assert "train-images-idx3-ubyte" in sentence


def test_corrupt_data(engram: Engram, job_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (data / f"{name}-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03\0\0")[:-3])
    sentence = refused(engram, "run", "job.yaml", "--set", f"dataset={json.dumps(MNIST)}")
    assert sentence.startswith("job.yaml: spec.dataset: ")
    assert "idx" in sentence
    problem = sentence.removeprefix("job.yaml: ")
    copied = write_copy(job_file, "dataset", MNIST)
    assert refused(engram, "validate", "--data", copied) == f"{copied}: {problem}"
    sentence = refused(
        engram, "run", "job.yaml", "--vary", "dataset.name=digits,mnist", "--vary", "dataset.path=data"
    )
    assert sentence.startswith('job.yaml with dataset.name="mnist", dataset.path="data": spec.dataset: ')


def test_a_pickle_with_code_is_refused_and_never_run(engram: Engram, job_file: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "exploded"), "w"))

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps({b"data": Bomb()}))
    refused(engram, "run", job_file, "--set", "dataset.name=cifar10", "--set", "dataset.path=.")
    assert not (tmp_path / "exploded").exists()


def test_a_dotted_path_that_does_not_import_shows_the_end_of_the_users_traceback(
    engram: Engram, job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python leaves it beside a module
    (tmp_path / "broken_for_test.py").write_text("value = 1\nvalue.missing\n")
    sentence = refused(engram, "run", job_file, "--set", "model.name=broken_for_test:model")
    where = f"{job_file}: spec.model.name"
    assert sentence.startswith(f"{where}: broken_for_test:model does not import: AttributeError: ")
    assert "broken_for_test.py:2 in <module>: value.missing" in sentence
    assert "no_such_module_at_all" in refused(
        engram, "validate", write_copy(job_file, "algorithm.name", "no_such_module_at_all:Class")
    )


def write_copy(job_file: Path, path: str, value: Any) -> Path:
    """Write another job file beside `job_file`, with one value changed."""
    document = yaml.safe_load(job_file.read_text())
    changed = set_path(document, path.split("."), value)
    changed["spec"]["algorithm"].pop("parameters", None)
    copied = job_file.with_name("copy.yaml")
    copied.write_text(yaml.safe_dump(changed))
    return copied


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nosuch.yaml"], "nosuch.yaml: no such file"),
        (["run", "."], "is a directory"),
        (["run", "job.yaml", "--vary", "seeds=1"], "--vary: unknown path seeds: did you mean seed?"),
        (["run", "job.yaml", "--vary", "seed="], "--vary: seed= has no value"),
        (["run", "job.yaml", "--vary", "seed=1", "--vary", "seed=2"], "--vary: seed is given twice"),
        (["run", "job.yaml", "--set", "seed"], "--set: 'seed' assigns nothing"),
        (["run", "job.yaml", "--vary", "tasks.count=2,9"], "job.yaml with tasks.count=9"),
        (["run", "job.yaml", "--vary", "seed=1,2", "--port", "7363"], "--port: a grid has many aggregators"),
        (["run", "job.yaml", "--vary", "seed=1,2", "--rank", "accuracies"], "--rank: unknown metric"),
        (["run", "job.yaml", "--rank", "accuracies"], "--rank: unknown metric"),
        (["run", "job.yaml", "--resume"], "there is no run of small to resume"),
        (["run", "job.yaml", "--out", "elsewhere", "--resume"], "elsewhere holds no run to resume"),
        (["report", "nosuch", "--rank", "accuracies"], "--rank: unknown metric"),
        (["report", "nosuch"], "nosuch/record.json"),
        (["report"], "RUN: there is nothing to report: name a run directory, or a job on a cluster"),
        (["report", "--context", "prod"], "--context: names a cluster and no job of it: add --cluster"),
        (["report", "--kubeconfig", "a"], "--kubeconfig: names a cluster and no job of it: add --cluster"),
        (["report", "nosuch", "--cluster", "lab/digits"], "--cluster: fetches the report of one job"),
        (["metrics", "nosuch.json"], "nosuch.json"),
        (["worker", "--job", "job.yaml", "--index", "0", "--token-file", "none"], "--endpoint"),
        (
            ["worker", "--job", "job.yaml", "--index", "0", "--token-file", "none", "--endpoint", "host"],
            "--endpoint: 'host' names no port: write host:7363",
        ),
        (
            ["worker", "--job", "job.yaml", "--index", "7", "--token-file", "none", "--endpoint", "a:1"],
            "--index: small has no worker with index 7",
        ),
        (
            ["aggregator", "--job", "job.yaml", "--key-file", "none", "--dir", ".", "--status-port", "0"],
            "none: the secret cannot be read",
        ),
    ],
)  # fmt: skip
def test_options_that_cannot_be_right(
    engram: Engram, job_file: Path, arguments: list[str], message: str
) -> None:
    assert message in refused(engram, *arguments)


def test_pods_take_their_options_from_the_environment(
    engram: Engram, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "ENGRAM_JOB_FILE": str(job_file),
        "ENGRAM_KEY_FILE": "the-key",
        "ENGRAM_TOKEN_FILE": "the-token",
        "ENGRAM_CHECKPOINT_DIR": "checkpoint",
        "WORKER_NAME": "trainworker-edge-1",
        "AGG_IP": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    assert refused(engram, "aggregator").startswith("the-key: the secret cannot be read")
    assert refused(engram, "worker").startswith("the-token: the secret cannot be read")


def test_a_directory_that_holds_another_job_is_not_resumed(engram: Engram, job_file: Path) -> None:
    assert engram("run", job_file, "--transport", "in-process", "--out", "run").exit_code == 0
    sentence = refused(
        engram, "run", job_file, "--out", "run", "--resume", "--transport", "in-process", "--set", "seed=3"
    )
    assert sentence.startswith("--resume: run holds a run of another job: its spec.seed is 0, here 3")
    assert "run already holds a run: add --resume" in refused(engram, "run", job_file, "--out", "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--batched: workers that train together live in one process: add --transport in-process"),
        (("--transport", "in-process", "--set", "training.localSteps=null"), "spec.training.localSteps"),
        (
            ("--transport=in-process", "--set=algorithm.name=fedewc", "--set=algorithm.parameters={}"),
            "the loss of fedewc cannot",
        ),
        (
            ("--transport", "in-process", "--vary", "algorithm.name=finetune,fedewc"),
            'algorithm.name="fedewc"',
        ),
    ],
    ids=["websocket", "epochs", "algorithm", "grid"],
)
def test_workers_that_cannot_train_together(
    engram: Engram, job_file: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(engram, "run", job_file, "--batched", "--out", "run", *arguments)


def test_a_fetched_report_is_not_written_over(engram: Engram, tmp_path: Path) -> None:
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched/report.json").write_text("{}")
    said = refused(engram, "report", "fetched")
    assert said == (
        "fetched: is the report of a job on a cluster, and whole: open its report.html, or name more runs to "
        "compare it with"
    )


def test_an_installation_without_the_plug_in_says_what_to_install(
    engram: Engram, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.run.plugin.PLUGIN", "engram_nowhere")
    assert refused(engram, "check", job_file) == (
        "engram_nowhere is not part of this installation: pip install 'engram[kubectl]'"
    )
