"""`engram import`: what is written where, that the file is a job that runs, and input that is refused."""

from __future__ import annotations

import itertools
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from engram.run.grid import expand
from engram.run.source import load_mapping
from engram.spec.yaml_text import dump_yaml
from tests.importing.samples import SECRET_KEY, benchmark, sedna_job, sedna_objects

Engram = Callable[..., Any]


def write(folder: Path, files: dict[str, Any]) -> None:
    """Write each file as YAML below `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump_yaml(content), encoding="utf-8")


def write_all(path: Path, documents: list[Any]) -> None:
    path.write_text("---\n".join(map(dump_yaml, documents)), encoding="utf-8")


def refused(engram: Engram, *arguments: str | Path) -> str:
    """Run a command that must be refused and leave nothing behind; return its sentence."""
    before = sorted(Path.cwd().rglob("*"))
    result = engram("import", *arguments)
    assert result.exit_code == 42, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("engram: error: ")
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(Path.cwd().rglob("*")) == before
    sentence: str = result.stderr.removeprefix("engram: error: ").rstrip("\n")
    return sentence


def head_of(text: str) -> list[str]:
    """The comments at the head of a job file, without their marks."""
    lines = text.splitlines()
    assert all(line.startswith("#") for line in lines[: lines.index("")])
    return [line.removeprefix("#").removeprefix(" ") for line in lines[: lines.index("")]]


def test_the_job_goes_to_standard_output_and_the_account_to_both(engram: Engram, tmp_path: Path) -> None:
    write(tmp_path, benchmark())
    result = engram("import", "ianvs", "bench.yaml")
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout)["kind"] == "FederatedIncrementalJob"
    assert head_of(result.stdout) == result.stderr.splitlines()
    assert (
        "  engram run job.yaml --rank accuracy:descend,forget_rate_ianvs:ascend" in result.stderr.splitlines()
    )
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == ["bench.yaml"]


def test_it_goes_to_a_file_that_validates(engram: Engram, tmp_path: Path) -> None:
    write(tmp_path, benchmark())
    result = engram("import", "ianvs", "bench.yaml", "--out", "made.yaml")
    assert (result.exit_code, result.stdout) == (0, "")
    assert head_of((tmp_path / "made.yaml").read_text()) == result.stderr.splitlines()
    checked = engram("validate", "--data", "made.yaml")
    assert checked.exit_code == 0, checked.output
    assert "finetune on digits, 3 tasks, 2 workers" in checked.stdout


def test_an_imported_benchmark_runs(engram: Engram, tmp_path: Path) -> None:
    write(tmp_path, benchmark())
    assert engram("import", "ianvs", "bench.yaml", "--out", "made.yaml").exit_code == 0
    small = ("--set", "training.roundsPerTask=1", "--set", "training.localSteps=2")
    result = engram("run", "made.yaml", "--transport", "in-process", "--quiet", "--out", "run", *small)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["matrix"]["classes"] == [[0, 1], [2, 3], [4, 5]]


def test_the_grid_that_is_proposed_is_one(engram: Engram, tmp_path: Path) -> None:
    files = benchmark()
    hyperparameters = files["./fedavg/algorithm.yaml"]["algorithm"]["modules"][0]["hyperparameters"]
    hyperparameters[0]["batch_size"]["values"] = [8, 16]
    hyperparameters[1]["learning_rate"]["values"] = [0.1, 1e-05]
    write(tmp_path, files)
    result = engram("import", "ianvs", "bench.yaml", "--out", "made.yaml")
    (command,) = (line.split() for line in result.stderr.splitlines() if line.startswith("  engram run"))
    assert command[2] == "made.yaml"
    varies = [word for before, word in itertools.pairwise(command) if before == "--vary"]
    grid = expand(load_mapping(tmp_path / "made.yaml"), (), varies, "made.yaml")
    rates = {cell.job.spec.training.optimizer.learning_rate for cell in grid.cells}
    assert (len(grid.cells), rates) == (4, {0.1, 1e-05})


def test_data_paths_work_from_the_folder_of_the_job(engram: Engram, tmp_path: Path) -> None:
    files = benchmark()
    files["./env/testenv.yaml"]["testenv"]["dataset"] = {"train_url": "./data/train.npz"}
    write(tmp_path, files)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "data").mkdir()
    pictures(tmp_path / "data" / "train.npz", seed=0)
    assert engram("import", "ianvs", "bench.yaml", "--out", "jobs/made.yaml").exit_code == 0
    result = engram("validate", "--data", "jobs/made.yaml")
    assert result.exit_code == 0, result.output


def pictures(path: Path, seed: int) -> None:
    """Write a data set of six classes with a few small pictures each."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), 4)
    images = random.integers(0, 255, (len(labels), 1, 8, 8), dtype=np.uint8)
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)


def test_an_imported_federated_learning_job_runs_on_the_data_of_its_workers(
    engram: Engram, tmp_path: Path
) -> None:
    documents = [sedna_job(), *sedna_objects()]
    for number in (1, 2):
        (tmp_path / f"data{number}").mkdir()
        pictures(tmp_path / f"data{number}" / "set.npz", seed=number)
        documents[number]["spec"]["url"] = str(tmp_path / f"data{number}" / "set.npz")
    write_all(tmp_path / "fl.yaml", documents)
    result = engram("import", "sedna", "fl.yaml", "--protocol", "engram", "--out", "made.yaml")
    assert result.exit_code == 0, result.output
    assert "  kubectl apply -f made.yaml" in result.stderr.splitlines()
    assert "  engram run made.yaml" in result.stderr.splitlines()
    assert SECRET_KEY not in (tmp_path / "made.yaml").read_text()
    changes = (
        "training.roundsPerTask=1",
        "training.localSteps=1",
        "model.name=cnn",
        "tasks.classesPerTask=6",
    )
    sets = [word for change in changes for word in ("--set", change)]
    result = engram("run", "made.yaml", "--transport", "in-process", "--quiet", "--out", "run", *sets)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "report.json").read_text())["status"] == "complete"


def test_the_images_of_an_imported_job_train_as_they_are(engram: Engram, tmp_path: Path) -> None:
    write_all(tmp_path / "fl.yaml", [sedna_job(), *sedna_objects()])
    result = engram("import", "sedna", "fl.yaml", "--out", "made.yaml")
    assert result.exit_code == 0, result.output
    assert "  kubectl apply -f made.yaml" in result.stderr.splitlines()
    assert not any("engram run" in line for line in result.stderr.splitlines())
    checked = engram("validate", "made.yaml")
    assert checked.exit_code == 0, checked.output
    assert yaml.safe_load((tmp_path / "made.yaml").read_text())["spec"]["protocol"] == "sedna"


@pytest.mark.parametrize("system", ["ianvs", "sedna"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("spec: [", "in.yaml: line 1"),
        ("", "in.yaml: is empty"),
        ("- a\n- b\n", "in.yaml: is a list, not a"),
        ("kind: Job\n", "in.yaml: "),
        ("\x07", "in.yaml: line 1: not YAML"),
        ("a: " + "x" * 1_100_000, "in.yaml: has 1,100,003 bytes"),
    ],
)
def test_bad_input(engram: Engram, tmp_path: Path, system: str, content: str, message: str) -> None:
    (tmp_path / "in.yaml").write_text(content)
    assert refused(engram, system, "in.yaml").startswith(message)


@pytest.mark.parametrize("system", ["ianvs", "sedna"])
def test_files_that_are_none(engram: Engram, tmp_path: Path, system: str) -> None:
    (tmp_path / "folder").mkdir()
    assert refused(engram, system, "folder") == "folder: is a directory: name the file in it"
    assert refused(engram, system, "none.yaml") == "none.yaml: no such file: check the path"


def test_a_file_of_the_other_system_says_which_command_reads_it(engram: Engram, tmp_path: Path) -> None:
    write(tmp_path, benchmark())
    write_all(tmp_path / "fl.yaml", [sedna_job()])
    assert "engram import sedna" in refused(engram, "ianvs", "fl.yaml")
    assert "engram import ianvs" in refused(engram, "sedna", "bench.yaml")


def test_a_file_that_is_named_and_not_there(engram: Engram, tmp_path: Path) -> None:
    files = benchmark()
    del files["./env/testenv.yaml"]
    write(tmp_path, files)
    sentence = refused(engram, "ianvs", "bench.yaml")
    assert sentence.startswith(
        "bench.yaml: benchmarkingjob.testenv: './env/testenv.yaml' was not found: looked in"
    )


def test_two_documents_are_one_too_many_for_ianvs(engram: Engram, tmp_path: Path) -> None:
    write_all(tmp_path / "two.yaml", [benchmark()["bench.yaml"], {"a": 1}])
    assert refused(engram, "ianvs", "two.yaml") == "two.yaml: found 2 documents where one is meant: keep one"


def test_a_value_that_the_job_refuses_is_named_as_the_input_has_it(engram: Engram, tmp_path: Path) -> None:
    job = sedna_job()
    container = job["spec"]["trainingWorkers"][1]["template"]["spec"]["containers"][0]
    container["resources"]["limits"]["memory"] = "2GB"
    write_all(tmp_path / "fl.yaml", [job])
    place = "spec.trainingWorkers[1].template.spec.containers[0].resources.limits.memory"
    problem = "spec.workers[1].resources.limits.memory of the job '2GB' is no quantity"
    sentence = refused(engram, "sedna", "fl.yaml", "--out", "made.yaml")
    assert sentence == f"fl.yaml: {place}: {problem}: Kubernetes writes G or Gi for GB"


def test_nothing_is_written_over(engram: Engram, tmp_path: Path) -> None:
    write(tmp_path, benchmark())
    (tmp_path / "there.yaml").write_text("mine")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "gone")
    for name in ("there.yaml", "link.yaml", "bench.yaml", "env"):
        sentence = refused(engram, "ianvs", "bench.yaml", "--out", name)
        assert sentence == f"{name}: --out: exists already: name a new file, or remove this one"
    assert (tmp_path / "there.yaml").read_text() == "mine"
    sentence = refused(engram, "ianvs", "bench.yaml", "--out", "none/made.yaml")
    assert sentence == "none/made.yaml: --out: its folder does not exist: make it first"


def test_a_file_that_cannot_be_written_whole_is_not_written_at_all(engram: Engram, tmp_path: Path) -> None:
    write(tmp_path, benchmark())
    sentence = refused(engram, "ianvs", "bench.yaml", "--out", "n" * 300)
    assert "--out: cannot be written: File name too long: name another file" in sentence
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        sentence = refused(engram, "ianvs", "bench.yaml", "--out", "made.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sentence == "made.yaml: --out: cannot be written: File too large: name another file"


def test_help_says_what_is_read(engram: Engram) -> None:
    assert "FederatedLearningJob" in engram("import", "sedna", "--help").stdout
    assert "benchmarking job" in engram("import", "ianvs", "--help").stdout
