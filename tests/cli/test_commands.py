"""What the commands print and write when all is well."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import engram as package

Engram = Callable[..., Any]
IMPORT_SECONDS = 0.3

CLASSES = [[0, 1], [2, 3], [4, 5]]
ACCURACY = [
    {"0": 0.60, "1": 0.80},
    {"0": 1.00, "1": 0.60, "2": 0.80, "3": 0.90},
    {"0": 0.40, "1": 0.60, "2": 0.95, "3": 0.85, "4": 0.70, "5": 0.90},
]


def test_version(engram: Engram) -> None:
    result = engram("--version")
    assert (result.exit_code, result.stdout) == (0, f"engram {package.__version__}\n")


def test_help_names_every_command(engram: Engram) -> None:
    shown = engram("--help").stdout
    for command in (
        *("run", "validate", "report", "check", "metrics", "crd", "import"),
        *("aggregator", "worker", "reporter"),
    ):
        assert command in shown
        assert engram(command, "--help").exit_code == 0


def test_importing_the_command_line_is_quick_and_loads_nothing_heavy() -> None:
    program = (
        # CPU time of the whole process, interpreter included: a busy machine must not fail this.
        "import sys, time; import engram.cli; took = time.process_time();"
        "heavy = {'torch', 'numpy', 'matplotlib', 'websockets', 'rich.console'} & set(sys.modules);"
        "print(took, sorted(heavy))"
    )
    found = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(5)
    ]
    assert all(line.endswith("[]\n") for line in found), found
    assert min(float(line.split()[0]) for line in found) < IMPORT_SECONDS


def test_metrics_reproduces_the_hand_computed_vector(engram: Engram, tmp_path: Path) -> None:
    matrix = {
        "classes": CLASSES,
        "counts": {str(label): 100 for label in range(6)},
        "accuracy": ACCURACY,
        "initial": [0.10, 0.12, 0.08],
        "unseen": {"1,2": 0.14, "1,3": 0.05, "2,3": 0.20},
    }
    (tmp_path / "matrix.json").write_text(json.dumps(matrix))
    result = engram("metrics", "matrix.json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["accuracy_by_task"] == pytest.approx([0.7, 0.825, 0.733333], abs=1e-6)
    assert found["average_incremental_accuracy"] == pytest.approx(0.752778, abs=1e-6)
    assert found["forget_rate_by_task"] == [None, pytest.approx(-0.1), pytest.approx(0.175)]
    assert found["forget_rate_ianvs"] == pytest.approx(0.063889, abs=1e-6)
    assert found["forward_transfer"] == pytest.approx(0.07)
    assert found["backward_transfer"] == pytest.approx(-0.075)


def test_crd_prints_yaml(engram: Engram) -> None:
    result = engram("crd")
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout)["spec"]["names"]["kind"] == "FederatedIncrementalJob"


def test_validate_prints_a_line_a_job_and_goes_on_after_a_bad_file(
    engram: Engram, job_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "two.yaml").write_text(job_file.read_text() + "---\n" + job_file.read_text())
    (tmp_path / "bad.yaml").write_text("kind: x\n")
    result = engram("validate", "bad.yaml", "job.yaml", "two.yaml")
    assert result.exit_code == 42
    valid = "valid: small: replay on digits, 2 tasks, 2 workers"
    assert result.stdout.splitlines() == [f"job.yaml: {valid}", f"two.yaml: {valid}", f"two.yaml: {valid}"]
    assert result.stderr.count("engram: error: bad.yaml") == 1
    assert engram("validate", "job.yaml").exit_code == 0


def test_validate_with_data_reads_them(engram: Engram, job_file: Path) -> None:
    result = engram("validate", "--data", job_file)
    assert result.exit_code == 0
    assert "1442 training images, split " in result.stdout
    assert engram("validate", "--data", job_file).stdout == result.stdout


@pytest.fixture
def run(engram: Engram, job_file: Path, tmp_path: Path) -> Path:
    """A finished run."""
    result = engram("run", job_file, "--transport", "in-process", "--out", "run")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "report: run/report.html"
    return tmp_path / "run"


def test_the_matrix_of_a_run_reproduces_its_report(engram: Engram, run: Path) -> None:
    assert sorted(json.loads((run / "matrix.json").read_text())) == ["accuracy", "classes", "counts"]
    measured = json.loads(engram("metrics", run / "matrix.json").stdout)
    assert measured == json.loads((run / "report.json").read_text())["metrics"]


def test_a_run_again_from_its_own_directory_gives_the_same(engram: Engram, run: Path, tmp_path: Path) -> None:
    result = engram("run", run / "job.yaml", "--transport", "in-process", "--out", "again", "--quiet")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 1
    assert (tmp_path / "again/matrix.json").read_bytes() == (run / "matrix.json").read_bytes()


def test_a_batched_run_says_so_in_its_report_and_how_to_repeat_it(
    engram: Engram, job_file: Path, tmp_path: Path
) -> None:
    batched = ("--transport", "in-process", "--batched")
    result = engram("run", job_file, *batched, "--out", "together")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "together/report.json").read_text())
    assert report["run_again"] == "engram run job.yaml --out again --transport in-process --batched"
    assert "workers trained together (--batched)" in (tmp_path / "together/report.html").read_text()
    assert report["status"] == "complete"
    grid = engram("run", job_file, *batched, "--out", "grid", "--vary", "seed=0,1", "--quiet")
    assert grid.exit_code == 0, grid.output
    assert (tmp_path / "together/figures").is_dir()
    for seed in (0, 1):
        record = json.loads((tmp_path / f"grid/seed={seed}/record.json").read_text())
        assert record["environment"]["batched"] is True
        assert not (tmp_path / f"grid/seed={seed}/figures").exists()


def test_resuming_a_complete_run_says_so(engram: Engram, job_file: Path, run: Path) -> None:
    before = (run / "record.json").stat().st_mtime_ns
    result = engram("run", job_file, "--transport", "in-process", "--out", "run", "--resume")
    assert (result.exit_code, result.stdout) == (0, "run is complete already; report: run/report.html\n")
    assert (run / "record.json").stat().st_mtime_ns == before


def test_resuming_a_complete_run_without_its_report_writes_it(
    engram: Engram, job_file: Path, run: Path
) -> None:
    (run / "report.html").unlink()  # the disk was full, or Ctrl-C came in the last second
    result = engram("run", job_file, "--transport", "in-process", "--out", "run", "--resume")
    assert (result.exit_code, result.stdout) == (0, "run is complete already; report: run/report.html\n")
    assert (run / "report.html").stat().st_size > 10_000
    assert not list(run.glob(".*"))


def test_report_writes_a_report_again_and_compares_runs(
    engram: Engram, job_file: Path, run: Path, tmp_path: Path
) -> None:
    (run / "report.html").unlink()
    assert engram("report", run).stdout == f"report: {run}/report.html\n"
    assert (run / "report.html").exists()
    other = engram(
        "run", job_file, "--transport", "in-process", "--out", "other", "--quiet",
        "--set", "algorithm={name: finetune}",
    )  # fmt: skip
    assert other.exit_code == 0, other.output
    result = engram("report", "run", "other", "--out", "board", "--rank", "forget_rate")
    assert result.exit_code == 0, result.output
    assert "finetune" in result.stdout
    assert "replay" in result.stdout
    assert (tmp_path / "board/leaderboard.csv").exists()
    assert engram("report", "run", "other", "--rank", "nothing").exit_code == 42


def test_report_of_a_grid_ranks_its_cells_in_its_own_directory(
    engram: Engram, run: Path, tmp_path: Path
) -> None:
    grid = tmp_path / "grid"
    for cell in ("seed=0", "seed=1"):
        shutil.copytree(run, grid / cell)
    (grid / "grid.json").write_text("{}")
    result = engram("report", "grid", "--rank", "forget_rate:ascend")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "report: grid/report.html"
    assert (grid / "leaderboard.csv").exists()


def test_an_empty_worker_is_a_warning_and_the_run_goes_on(
    engram: Engram, job_file: Path, tmp_path: Path
) -> None:
    result = engram(
        "run", job_file, "--transport", "in-process", "--out", "uneven",
        "--set", "dataset.partition={method: dirichlet, alpha: 0.01}",
        "--set", "dataset.samplesPerClass=20",
        "--set", "workers.edge.replicas=6",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    notes = json.loads((tmp_path / "uneven/record.json").read_text())["notes"]
    assert any("holds no samples of task" in note for note in notes)
    assert f"note: {notes[0]}" in result.stdout


def test_exemplars_that_hold_most_labels_are_a_warning(engram: Engram, job_file: Path) -> None:
    result = engram(
        "run", job_file, "--transport", "in-process", "--out", "kept",
        "--set", "algorithm.parameters.exemplarsPerWorker=500",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "above 50% a run does not test forgetting" in result.stdout
