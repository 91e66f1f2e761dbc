"""The aggregator of a measurement, in a process of its own.

    python -m benchmarks.federation_load.server PARAMETERS WORKERS ROUNDS COMPRESSION [CHECKPOINTS]

Prints its port as the first line and what it measured, as JSON, as the last.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

from benchmarks.federation_load.roles import IdleModel
from benchmarks.federation_load.usage import peak_mb
from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.history import History, RoundRow, TaskRow, WorkerState
from engram.federation.messages import Heartbeat, Hello, Reject
from engram.federation.settings import Settings
from engram.federation.websocket.server import serve
from engram.spec.training import Aggregation, Evaluation

TOKEN = "benchmark"


class Stopwatch:
    """Takes the time and the CPU time of every round, from its start to its closed sum."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self._started = self._before = 0.0

    def start(self) -> None:
        """Note that a round's broadcast begins."""
        now = time.process_time()
        if self._before:
            self.cpu_seconds.append(now - self._before)
        self._before, self._started = now, time.perf_counter()

    def stop(self) -> None:
        """Note that its sum is closed."""
        self.seconds.append(time.perf_counter() - self._started)


class Timing:
    """An observer that starts the stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def round_started(self, task: int, round: int) -> None:
        """Start the stopwatch."""
        self._watch.start()

    def consolidation_started(self, task: int) -> None:
        """Take no note."""

    def evaluation_started(self, task: int, round: int) -> None:
        """Take no note."""

    def worker_changed(self, worker: str, state: WorkerState) -> None:
        """Take no note."""

    def introduced(self, worker: str, hello: Hello) -> None:
        """Take no note."""

    def worker_failed(self, worker: str, text: str, exit_code: int) -> None:
        """Say so: the measurement is worth nothing."""
        print(f"{worker} failed: {text}", file=sys.stderr)

    def heartbeat(self, worker: str, beat: Heartbeat) -> None:
        """Take no note."""

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int) -> None:
        """Take no note."""

    def rejected(self, worker: str, reject: Reject) -> None:
        """Say so: the measurement is worth nothing."""
        print(f"{worker} was rejected: {reject.reason}", file=sys.stderr)

    def round_closed(self, row: RoundRow, history: History) -> None:
        """Take no note."""

    def task_closed(self, row: TaskRow, history: History) -> None:
        """Take no note."""

    def finished(self, reason: str, message: str, history: History) -> None:
        """Take no note."""


def names_of(workers: int) -> tuple[str, ...]:
    """Return the workers' names."""
    return tuple(f"trainworker-load-{index}" for index in range(workers))


async def measure(
    parameters: int, workers: int, rounds: int, compression: str, store: CheckpointStore | None
) -> dict[str, Any]:
    """Run a job of one task and return the figures."""
    watch = Stopwatch()
    settings = Settings(
        job_digest="benchmark",
        seed=0,
        workers=names_of(workers),
        rounds=(rounds,),
        aggregation=Aggregation.model_validate({"compression": compression}),
        evaluation=Evaluation(),
    )
    outcome = await serve(
        Aggregator(settings, IdleModel(parameters, watch.stop), store, Timing(watch)),
        host="127.0.0.1",
        port=0,
        authenticate=lambda worker, token: token == TOKEN,
        stop=asyncio.Event(),
        listening=lambda port: print(port, flush=True),
    )
    return {
        "reason": outcome.reason,
        "seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "peak_mb": peak_mb(),
    }


def main(arguments: list[str]) -> None:
    """Measure as the command line says."""
    parameters, workers, rounds = (int(text) for text in arguments[:3])
    store = CheckpointStore(Path(arguments[4])) if len(arguments) > 4 else None
    print(json.dumps(asyncio.run(measure(parameters, workers, rounds, arguments[3], store))))


if __name__ == "__main__":
    main(sys.argv[1:])
