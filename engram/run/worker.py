"""`engram worker`: what a worker pod starts, and the local runner once for each worker of the job."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from engram.errors import FederationError, RetryError
from engram.federation.websocket.client import run_worker
from engram.run.composition import compose_for_worker
from engram.run.identity import find_worker, read_secret
from engram.run.observers import say
from engram.run.source import load_placed
from engram.spec.exit_codes import ExitCode


@dataclass(frozen=True)
class WorkerOptions:
    """Who a worker is and whom it dials."""

    job: Path
    name: str
    index: int | None
    endpoints: tuple[str, ...]
    """`host:port`, tried in order."""
    token_file: Path
    attempt: int = 1
    data: Path | None = None


def run_worker_process(options: WorkerOptions) -> int:
    """Train for the aggregator until the run is over; return the exit code.

    Raises EngramError with the code that the failure policy reads.
    """
    job, place = load_placed(options.job, options.data)
    worker = find_worker(job, name=options.name, index=options.index)
    token = read_secret(options.token_file)
    composition = compose_for_worker(job, place, worker)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    reason = run_worker(
        composition.local_learner(worker),
        worker=worker.name,
        job_digest=job.digest(),
        endpoints=options.endpoints,
        token=token,
        attempt=options.attempt,
        orphan_seconds=float(job.spec.run_policy.orphan_seconds),
        stop=stop,
    )
    say(f"{worker.name}: the run is over: {reason}")
    if reason == "complete":
        return ExitCode.DONE
    if reason == "suspended":
        raise RetryError(f"{worker.name}: the run is suspended; start again and it continues")
    raise FederationError(f"{worker.name}: the aggregator ended the run: {reason}")
