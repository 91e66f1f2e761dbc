"""Series of an aggregator are bounded, whatever a job has; how long a scrape takes is the benchmark's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from benchmarks.scrape import ALLOWED_SERIES, BOUNDED_WORKERS, filled, series_in
from engram.metrics.exporter import MOST_CLASSES, MOST_TASKS
from engram.spec.names import METRICS, MetricName

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def series(workers: int, tasks: int, classes: int) -> int:
    return series_in(generate_latest(filled(workers, tasks, classes).registry).decode())


def test_what_is_counted_has_every_metric_of_a_run() -> None:
    text = generate_latest(filled(2, 3, 6).registry).decode()
    of_runs = {name for name in METRICS if not name.startswith(("engram_operator", "engram_job"))}
    missing = {name for name in of_runs if f"\n{name}" not in text}
    assert missing == {MetricName.FORWARD_TRANSFER}, "one series, of runs that evaluate unseen classes"


@pytest.mark.parametrize(
    ("tasks", "classes"), [(1, 2), (10, 100), (MOST_TASKS, 1000), (2 * MOST_TASKS, 2 * MOST_CLASSES)]
)
def test_a_hundred_workers_are_at_most_five_thousand_series(tasks: int, classes: int) -> None:
    assert series(BOUNDED_WORKERS, tasks, classes) <= ALLOWED_SERIES


def test_the_page_says_what_a_worker_a_task_and_a_class_cost() -> None:
    few = series(2, 4, 8)
    worker = series(3, 4, 8) - few
    assert f"{worker} for each worker" in PAGE
    assert series(2, 4, 12) - few == 4, "one for each class"
    assert series(2, 5, 10) - few == 5 + 2, "T(T+1)/2 of the matrix, and the classes"
    bound = BOUNDED_WORKERS * worker + MOST_TASKS * (MOST_TASKS + 1) // 2 + MOST_CLASSES
    assert bound < ALLOWED_SERIES - 200, "the rest is what does not grow"
    assert f"the newest {MOST_TASKS} tasks" in PAGE


def test_the_page_has_every_metric() -> None:
    for metric in METRICS.values():
        assert f"| `{metric.name}` | {metric.kind} | " in PAGE
        assert f" | {metric.help} |" in PAGE


def test_the_page_has_the_measured_figures() -> None:
    measured = json.loads((ROOT / "docs" / "benchmark" / "scrape.json").read_text(encoding="utf-8"))
    assert measured["command"] in PAGE
    for row in measured["rows"]:
        line = (
            f"| {row['workers']:,} | {row['tasks']} | {row['classes']:,} | {row['series']:,} "
            f"| {row['milliseconds']:.0f} ms |"
        )
        assert line in PAGE, f"write into docs/metrics.md:\n{line}"


@pytest.mark.process
def test_the_command_scrapes_a_real_port(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, "benchmarks/scrape.py", "--quick", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (0, 1), done.stderr  # a busy machine may miss the bar
    rows = json.loads(out.read_text())["rows"]
    assert all(row["cpu_milliseconds"] > 0 and row["series"] > 100 for row in rows)
