"""How long a scrape of an aggregator takes and how many series it has, by workers, tasks and classes.

    python benchmarks/scrape.py [--quick] [--json FILE]

Fills the exporter as a run that has just ended leaves it, every figure of every worker included, and scrapes
it over HTTP from the port that aggregators serve. A figure is the median over the scrapes: of the time
from request to last byte, and of the processor time that both ends took, which is all that counts on a busy
machine. The aggregator's own work is not in it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from engram.federation.history import Counts, History, RoundRow, TaskRow, WorkerRound
from engram.federation.messages import Heartbeat
from engram.metrics.exporter import WORKER_GAUGES, Exporter
from engram.metrics.http import StatusServer
from engram.spec.names import METRICS_PATH, RoundPhase, worker_name

ALLOWED_SECONDS = 0.05
ALLOWED_SERIES = 5000
BOUNDED_WORKERS = 100
"""Workers for which both limits hold, whatever tasks and classes the job has."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    workers: int
    tasks: int
    classes: int
    series: int
    kilobytes: float
    milliseconds: float
    """Median, request to last byte."""
    cpu_milliseconds: float
    """Median of the processor time of both ends: the same on a busy machine, where the former is not."""

    @property
    def reached(self) -> bool:
        """Whether the limits hold, where they are to."""
        small = self.series <= ALLOWED_SERIES and self.milliseconds <= 1000 * ALLOWED_SECONDS
        return small or self.workers > BOUNDED_WORKERS


CASES = ((5, 5, 10), (100, 5, 10), (100, 10, 100), (100, 100, 1000), (1000, 10, 100))
"""Workers, tasks and classes: the demo's, then what limits are for."""


def filled(workers: int, tasks: int, classes: int) -> Exporter:
    """Return the exporter of a run that has just ended and had everything that there are metrics for."""
    names = [worker_name("edge", index) for index in range(workers)]
    share = classes // tasks
    labels = [list(range(share * task, share * (task + 1))) for task in range(tasks)]
    exporter = Exporter("lab", "benchmark", labels, [1] * tasks)
    for name in names:
        exporter.worker_changed(name, "finished")
        exporter.heartbeat(name, Heartbeat("training", memory_bytes=2**28, gpu_memory_bytes=2**30, loss=0.5))
        exporter.transferred(name, "down", 10**6)
        exporter.transferred(name, "up", 10**6)
    history = History()
    part = WorkerRound(outcome="accepted", samples=100, metrics=dict.fromkeys(WORKER_GAUGES.values(), 0.5))
    for task in range(1, tasks + 1):
        seconds = dict.fromkeys(map(str, RoundPhase), 0.5)
        history.rounds.append(
            RoundRow(task=task, round=1, started=0.0, seconds=seconds, workers=dict.fromkeys(names, part))
        )
        seen = range(share * task)
        counts = Counts(right=dict.fromkeys(seen, 8), total=dict.fromkeys(seen, 10))
        history.tasks.append(
            TaskRow(task=task, classes=labels[task - 1], started=0.0, seconds={}, counts=counts, workers={})
        )
    exporter.round_closed(history.rounds[-1], history)
    exporter.finished("complete", "", history)
    return exporter


def series_in(text: str) -> int:
    """Return how many series a scrape has."""
    return sum(not line.startswith("#") for line in text.splitlines())


def scraped(port: int) -> tuple[str, float, float]:
    """Scrape once; return the text, the seconds that it took, and those of the processor."""
    start, busy = time.perf_counter(), time.process_time()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{METRICS_PATH}", timeout=60) as answer:
        text = answer.read().decode()
    return text, time.perf_counter() - start, time.process_time() - busy


def measured(workers: int, tasks: int, classes: int, scrapes: int) -> Row:
    """Scrape so often and return the line."""
    exporter = filled(workers, tasks, classes)
    with StatusServer(exporter.registry, dict, dict) as server:
        text = scraped(server.port)[0]
        seconds = [scraped(server.port)[1:] for _ in range(scrapes)]
    return Row(
        workers,
        tasks,
        classes,
        series_in(text),
        round(len(text) / 1000, 1),
        round(1000 * statistics.median(wall for wall, _ in seconds), 2),
        round(1000 * statistics.median(busy for _, busy in seconds), 2),
    )


def main() -> int:
    """Run the command; the exit code is 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five scrapes a line: does it work?")
    parser.add_argument("--json", type=Path, help="write the rows there")
    options = parser.parse_args()
    scrapes = 5 if options.quick else 50
    print(f"{'workers':>7} {'tasks':>6} {'classes':>8} {'series':>7} {'kB':>7} {'ms':>7} {'CPU ms':>7}")
    rows = []
    for case in CASES:
        row = measured(*case, scrapes)
        rows.append(row)
        print(
            f"{row.workers:>7} {row.tasks:>6} {row.classes:>8} {row.series:>7} {row.kilobytes:>7} "
            f"{row.milliseconds:>7} {row.cpu_milliseconds:>7}{'' if row.reached else '  MISSED'}"
        )
    if options.json:
        command = "python benchmarks/scrape.py"
        document = {"command": command, "machine": platform.machine(), "scrapes": scrapes}
        document |= {"rows": [asdict(row) | {"reached": row.reached} for row in rows]}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
