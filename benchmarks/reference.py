"""Accuracy and forget rate of the reference algorithms, beside the bars that a right implementation reaches.

    python benchmarks/reference.py [--quick] [--json FILE] [--only digits|fashion] [--keep DIR]

Runs the example job files through `engram run --vary` (in-process transport, two cells at a time, seeds 0 to
2) and prints mean and standard error of each measure. `--quick` takes digits with seed 0 only. Fashion-MNIST
needs its files (Debian package dataset-fashion-mnist); without them its rows say "not installed".
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from engram.metrics.matrix import AccuracyMatrix
from engram.metrics.measures import measure
from engram.report.compare import load_record
from engram.report.record import Environment

ROOT = Path(__file__).parents[1]
FASHION = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Bar:
    """What an algorithm must reach on a benchmark: bounds on means over seeds; None: no bound."""

    benchmark: str
    algorithm: str
    accuracy_at_least: float | None = None
    accuracy_at_most: float | None = None
    forget_rate_at_least: float | None = None
    forget_rate_at_most: float | None = None

    def holds(self, accuracy: float, forget_rate: float | None) -> bool:
        """Return whether the means keep all bounds."""
        forgot = float("nan") if forget_rate is None else forget_rate
        return (
            (self.accuracy_at_least is None or accuracy >= self.accuracy_at_least)
            and (self.accuracy_at_most is None or accuracy <= self.accuracy_at_most)
            and (self.forget_rate_at_least is None or forgot >= self.forget_rate_at_least)
            and (self.forget_rate_at_most is None or forgot <= self.forget_rate_at_most)
        )

    def words(self) -> str:
        """Return the bounds as a reader would write them."""
        parts = [
            ("accuracy >= ", self.accuracy_at_least),
            ("accuracy <= ", self.accuracy_at_most),
            ("forget rate >= ", self.forget_rate_at_least),
            ("forget rate <= ", self.forget_rate_at_most),
        ]
        return ", ".join(f"{text}{value:.0%}" for text, value in parts if value is not None)


BARS = (
    Bar("digits", "finetune", accuracy_at_most=0.25, forget_rate_at_least=0.80),
    Bar("digits", "replay", accuracy_at_least=0.85),
    Bar("digits", "icarl", accuracy_at_least=0.87, forget_rate_at_most=0.12),
    Bar("digits", "joint", accuracy_at_least=0.93),
    Bar("fashion", "finetune", accuracy_at_most=0.25),
    Bar("fashion", "replay", accuracy_at_least=0.65),
    Bar("fashion", "icarl", accuracy_at_least=0.69),
    Bar("fashion", "joint", accuracy_at_least=0.72),
)

FILES = {"digits": "examples/01-digits.yaml", "fashion": "examples/02-fashion-mnist.yaml"}


@dataclass(frozen=True)
class Cell:
    """One run's figures."""

    accuracy: float
    forget_rate: float | None
    newest_task_accuracy: float
    cpu_seconds: float | None


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    benchmark: str
    algorithm: str
    seeds: int
    accuracy: float
    accuracy_standard_error: float | None
    forget_rate: float | None
    newest_task_accuracy: float
    """Mean over tasks: is every new task still learned?"""
    cpu_seconds: float | None
    bar: str
    reached: bool


def run_grid(benchmark: str, seeds: str, out: Path) -> None:
    """Run all algorithms of a benchmark over the seeds into `out`."""
    algorithms = ",".join(bar.algorithm for bar in BARS if bar.benchmark == benchmark)
    command = [sys.executable, "-m", "engram", "run", FILES[benchmark], "--out", str(out)]
    command += ["--transport", "in-process", "--jobs", "2"]
    command += ["--set", "algorithm.parameters.upfront=true"]  # for joint; dropped for the others
    command += ["--vary", f"algorithm.name={algorithms}", "--vary", f"seed={seeds}"]
    subprocess.run(command, cwd=ROOT, check=True)


def mean_error(values: list[float]) -> tuple[float, float | None]:
    """Return mean and standard error (None for one value)."""
    if len(values) < 2:
        return values[0], None
    return statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5


def rows_of(benchmark: str, out: Path) -> tuple[list[Row], Environment]:
    """Compare the finished cells under `out` with the bars, and say where they ran."""
    found: dict[str, list[Cell]] = {}
    environment: Environment | None = None
    for path in sorted(out.glob("*/record.json")):
        record = load_record(path.parent)
        environment = record.environment
        measures = measure(AccuracyMatrix.load(path.with_name("matrix.json")))
        newest = statistics.fmean(measures["newest_task_accuracy_by_task"])
        cell = Cell(measures["accuracy"], measures["forget_rate"], newest, record.cost.cpu_seconds)
        found.setdefault(record.job["spec"]["algorithm"]["name"], []).append(cell)
    if environment is None:
        raise SystemExit(f"no finished run under {out}")
    return [row_of(bar, found[bar.algorithm]) for bar in BARS if bar.benchmark == benchmark], environment


def row_of(bar: Bar, cells: list[Cell]) -> Row:
    """Summarise one algorithm's cells, one a seed."""
    accuracy, error = mean_error([cell.accuracy for cell in cells])
    forgot = [cell.forget_rate for cell in cells if cell.forget_rate is not None]
    forget_rate = statistics.fmean(forgot) if forgot else None
    cpu = [cell.cpu_seconds for cell in cells if cell.cpu_seconds is not None]
    return Row(
        benchmark=bar.benchmark,
        algorithm=bar.algorithm,
        seeds=len(cells),
        accuracy=accuracy,
        accuracy_standard_error=error,
        forget_rate=forget_rate,
        newest_task_accuracy=statistics.fmean(cell.newest_task_accuracy for cell in cells),
        cpu_seconds=statistics.fmean(cpu) if cpu else None,
        bar=bar.words(),
        reached=bar.holds(accuracy, forget_rate),
    )


def print_table(rows: list[Row]) -> None:
    """Print one line an algorithm."""
    columns = ("accuracy %", 13), ("forget", 7), ("newest", 7), ("CPU s", 6)
    head = " ".join(f"{name:>{width}}" for name, width in columns)
    print(f"\n{'benchmark':9} {'algorithm':9} {'n':>2} {head}  bar")
    for row in rows:
        error = "" if row.accuracy_standard_error is None else f" ± {100 * row.accuracy_standard_error:.1f}"
        forgot = "-" if row.forget_rate is None else f"{100 * row.forget_rate:.1f}"
        seconds = "-" if row.cpu_seconds is None else f"{row.cpu_seconds:.0f}"
        verdict = f"{row.bar}: {'reached' if row.reached else 'MISSED'}"
        print(
            f"{row.benchmark:9} {row.algorithm:9} {row.seeds:2} {f'{100 * row.accuracy:.1f}{error}':>13} "
            f"{forgot:>7} {100 * row.newest_task_accuracy:7.1f} {seconds:>6}  {verdict}"
        )


def main() -> int:
    """Run, print, and return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="digits with seed 0 only")
    parser.add_argument("--only", choices=sorted(FILES), help="one benchmark")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--keep", type=Path, help="keep the run directories here")
    options = parser.parse_args()
    benchmarks = [options.only] if options.only else ["digits"] if options.quick else sorted(FILES)
    started = time.time()
    rows: list[Row] = []
    facts: dict[str, object] = {"command": "python benchmarks/reference.py" + " --quick" * options.quick}
    with tempfile.TemporaryDirectory() as scratch:
        for benchmark in benchmarks:
            if benchmark == "fashion" and not FASHION.exists():
                print("fashion: not installed (Debian package dataset-fashion-mnist)")
                continue
            out = (options.keep or Path(scratch)) / benchmark
            run_grid(benchmark, "0" if options.quick else "0,1,2", out)
            more, environment = rows_of(benchmark, out)
            rows += more
            facts |= environment.model_dump(include={"engram", "python", "torch", "numpy", "cpu", "cores"})
    print_table(rows)
    if options.json:
        facts["seconds"] = round(time.time() - started)
        options.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
