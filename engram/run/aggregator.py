"""`engram aggregator`: what the aggregation pod starts, and the local runner on loopback.

Only where it listens, keeps its checkpoint and finds its key differs between the two, and that comes from
options or, in a pod, from the environment names of `engram.spec.names`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engram.errors import ConfigurationError, FederationError, RetryError
from engram.federation.aggregator import Aggregator, Outgoing
from engram.federation.checkpoint import CheckpointStore
from engram.federation.messages import Hello
from engram.federation.outcome import Outcome
from engram.federation.tokens import authenticator
from engram.federation.websocket.server import serve
from engram.metrics.exporter import Exporter
from engram.metrics.http import StatusServer
from engram.metrics.status import LiveStatus
from engram.run.composition import compose
from engram.run.directory import RunDirectory
from engram.run.facts import environment
from engram.run.identity import job_uid, read_key
from engram.run.observers import Lines, Observers, say
from engram.run.recording import Keeper, Recorder, write_record
from engram.run.source import load_placed
from engram.spec.exit_codes import ExitCode


@dataclass(frozen=True)
class AggregatorOptions:
    """Where an aggregator listens and where it keeps things."""

    job: Path
    directory: Path
    """Checkpoint and record are kept here."""
    key_file: Path
    """Holds the key that every worker's token is derived from, hexadecimal."""
    host: str
    port: int
    status_host: str
    status_port: int
    uid: str = ""
    """Of the job, part of every token; empty: that of the file, or its name."""
    data: Path | None = None
    """Where the data volume is mounted; None on a machine without mounts."""
    grace_seconds: float = 0.0
    """How long a last scrape is waited for at the end."""


def run_aggregator(options: AggregatorOptions) -> int:
    """Serve the job until it is complete, failed or suspended; return the exit code.

    Writes the record beside the checkpoint whatever happens. Raises EngramError for what must change.
    """
    job, place = load_placed(options.job, options.data)
    key = read_key(options.key_file)
    composition = compose(job, place)
    settings = composition.settings()
    directory = RunDirectory(options.directory)
    recorder = Recorder(composition, environment("websocket", "engram aggregator"))
    classes = [list(plan.classes) for plan in composition.plans]
    rounds = [plan.rounds for plan in composition.plans]
    status = LiveStatus(classes, rounds, [(worker.name, worker.group) for worker in job.workers()])
    exporter = Exporter(job.metadata.namespace, job.name, classes, rounds)
    observers = Observers(status, exporter, Lines(classes, rounds, say), Keeper(recorder, directory))
    latest: list[dict[str, object]] = []
    server = StatusServer(
        exporter.registry,
        status.as_dict,
        lambda: latest[-1] if latest else None,
        port=options.status_port,
        host=options.status_host,
    )
    with server:
        store = CheckpointStore(directory.checkpoint)
        aggregator = _Introduced(settings, composition.global_learner(), store, observers)
        aggregator.introduce_to(status)
        exporter.restored(aggregator.history)
        uid = options.uid or job_uid(job)
        outcome = asyncio.run(_serve(aggregator, options, authenticator(key, uid)))
        recorder.devices = {view.name: view.device for view in status.workers.values()}
        record = recorder.of_outcome(outcome)
        write_record(directory, record)
        latest.append(record.model_dump(mode="json", by_alias=True))
        if outcome.reason == "complete" and options.grace_seconds:
            server.wait_for_scrape(options.grace_seconds)
    return _exit_code(outcome)


class _Introduced(Aggregator):
    """An aggregator whose status also knows what workers say of themselves when they connect."""

    _status: LiveStatus | None = None

    def introduce_to(self, status: LiveStatus) -> None:
        """Tell `status` where the run is, and from now on who connects."""
        self._status = status
        status.restored(self.history)

    def connect(self, worker: str, hello: Hello, now: float) -> list[Outgoing]:
        """Pass the worker's device on once it is accepted."""
        outgoing = super().connect(worker, hello, now)
        if self._status is not None:
            self._status.described(worker, device=hello.device)
        return outgoing


async def _serve(
    aggregator: Aggregator, options: AggregatorOptions, authenticate: Callable[[str, str], bool]
) -> Outcome:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await serve(
        aggregator,
        host=options.host,
        port=options.port,
        authenticate=authenticate,
        stop=stop,
        listening=lambda port: say(f"listening on {options.host}:{port}"),
    )


def _exit_code(outcome: Outcome) -> int:
    """Say how the run ended and return the code; the sentence is what the supervisor shows."""
    if outcome.reason == "complete":
        return ExitCode.DONE
    if outcome.reason == "suspended":
        raise RetryError(outcome.message or "suspended; the checkpoint is saved")
    if outcome.exit_code == ExitCode.CONFIGURATION:
        raise ConfigurationError(outcome.message)
    failure = FederationError(outcome.message)
    failure.exit_code = outcome.exit_code  # a worker's own, such as 43 for its data
    raise failure
