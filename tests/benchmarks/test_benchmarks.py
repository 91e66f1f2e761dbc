"""Benchmarks are commands that users run: they start, print a table and write rows with plain keys."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fcil.page import shown
from benchmarks.training_load.page import NAME, section
from benchmarks.training_load.setting import PSEUDO
from engram.federation import kernel

ROOT = Path(__file__).parents[2]
FASHION = Path("/usr/share/datasets/fashion-mnist")


def rows_of(arguments: list[str], out: Path, codes: tuple[int, ...]) -> list[dict[str, object]]:
    command = [sys.executable, *arguments, "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in codes, done.stdout + done.stderr
    rows: list[dict[str, object]] = json.loads(out.read_text())["rows"]
    return rows


@pytest.mark.process
@pytest.mark.parametrize("script", ["wall", "training"])
def test_quick_benchmarks_measure(script: str, tmp_path: Path) -> None:
    # A busy machine may miss the bar (exit 1); that is a figure, not a failure of the command.
    rows = rows_of([f"benchmarks/{script}.py", "--quick"], tmp_path / "rows.json", (0, 1))
    figures = [value for row in rows for key, value in row.items() if key in ("seconds", "milliseconds")]
    assert figures
    assert all(isinstance(value, float) and value > 0 for value in figures)


def test_the_page_shows_the_committed_steps() -> None:
    measured = json.loads((ROOT / "docs/benchmark/training.json").read_text(encoding="utf-8"))
    text = shown((ROOT / "docs/benchmark.md").read_text(encoding="utf-8"), NAME)
    assert text == section(measured)
    (pseudo,) = (row for row in measured["rows"] if row["algorithm"] == PSEUDO)
    assert f"| 9.5 ({pseudo['milliseconds'] / 9.5:.2f}) | 3 x 16 without gradient, 1 x 32 |" in text


@pytest.mark.process
def test_compiled_sums_beside_numpys() -> None:
    command = [sys.executable, "benchmarks/sums.py", "--parameters", "5000", "--repeat", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not kernel.COMPILED:
        assert done.returncode == 1
        assert "without a compiler" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("largest", "add", "mean"))]
    assert len(lines) == 3
    assert all(float(figure) > 0 for line in lines for figure in line.split()[-3:-1])


KEYS = {
    "system",
    "parameters",
    "workers",
    "compression",
    "seconds_per_round",
    "limit_seconds",
    "bytes_per_worker_round",
    "server_cpu_seconds_per_round",
    "server_peak_mb",
    "worker_peak_mb",
}


@pytest.mark.process
def test_the_federation_benchmark_measures_real_processes_and_names_what_it_does_not(tmp_path: Path) -> None:
    arguments = ["benchmarks/federation.py", "--quick", "--only", "62000", "--compression", "none,int8"]
    rows = rows_of(arguments, tmp_path / "rows.json", (0,))
    assert all(row.keys() >= KEYS for row in rows)
    packed = [row for row in rows if row["compression"] == "int8"]
    assert [row["workers"] for row in packed] == [2, 5, 10]
    for row in packed:
        assert 0.25 < float(str(row["bytes_per_worker_round"])) / (2 * 4 * 62_000) < 0.3
    ours = [row for row in rows if row["system"] == "engram" and row["compression"] == "none"]
    assert [row["workers"] for row in ours] == [2, 5, 10]
    for row in ours:
        assert float(str(row["seconds_per_round"])) > 0
        # float32 both ways, and next to nothing beside it.
        assert 1.0 < float(str(row["bytes_per_worker_round"])) / (2 * 4 * 62_000) < 1.05
        assert float(str(row["server_peak_mb"])) < 150
    assert {row["note"] for row in rows if row["system"] == "Sedna"} == {
        "not installed: a figure of another run"
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("benchmark", ["digits", "fashion"])
def test_reference_figures_are_reached(benchmark: str, tmp_path: Path) -> None:
    if benchmark == "fashion" and not FASHION.exists():
        pytest.skip("Fashion-MNIST is not installed (Debian package dataset-fashion-mnist)")
    rows = rows_of(["benchmarks/reference.py", "--only", benchmark], tmp_path / "rows.json", (0, 1))
    assert [row for row in rows if not row["reached"]] == []
    assert len(rows) == 4
