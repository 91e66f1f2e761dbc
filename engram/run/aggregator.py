"""`engram aggregator`: what the aggregation pod starts, and the local runner on loopback.

Only where it listens, keeps its checkpoint and finds its key differs between the two, and that comes from
options or, in a pod, from the environment names of `engram.spec.names`. What can be wrong with the job file
is looked at before anything is read or opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.errors import CheckpointError, ConfigurationError, FederationError, RetryError
from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.outcome import Outcome
from engram.federation.tokens import authenticator
from engram.federation.websocket.server import serve
from engram.federation.websocket.tls import server_context
from engram.federation.websocket.usage import peak_bytes
from engram.metrics.exporter import Exporter
from engram.metrics.http import StatusServer
from engram.metrics.measures import task_accuracy
from engram.metrics.status import LiveStatus
from engram.run.checks import check_code
from engram.run.composition import Composition, compose
from engram.run.directory import RunDirectory
from engram.run.facts import environment
from engram.run.identity import job_uid, read_key
from engram.run.mounted import explaining_data
from engram.run.observers import Lines, Observers, say
from engram.run.pod import Pod
from engram.run.recording import Keeper, Recorder, write_record
from engram.run.roster import Roster
from engram.run.source import load_placed
from engram.sedna.dialect import Dialect
from engram.sedna.server import serve as serve_sedna
from engram.sedna.wire import MOST_SAMPLES
from engram.spec.exit_codes import EXIT_MEANINGS, ExitCode
from engram.spec.status import MetricsStatus, ProgressStatus

SAVE_SECONDS = 50.0
"""How long a checkpoint may take when the process is told to stop; pods are killed after a minute."""
FOR_GOOD = frozenset(row.code for row in EXIT_MEANINGS if row.aggregator in (None, "FailJob"))
"""Exit codes that Kubernetes makes no other pod after."""


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
    tls_certificate: Path | None = None
    """What workers verify (PEM); None: no TLS."""
    tls_key: Path | None = None
    grace_seconds: float = 0.0
    """How long the record is served at the end until it is fetched; a last scrape is another wait."""


class _Run:
    """The parts of one run that outlive its aggregator: what is shown, recorded and served."""

    def __init__(self, composition: Composition, options: AggregatorOptions) -> None:
        self.job = job = composition.job
        self.most_samples = most_samples(composition)
        self.shares = {share.worker: share.samples for share, _ in composition.shares}
        self.directory = RunDirectory(options.directory)
        self.recorder = Recorder(composition, environment("websocket", "engram aggregator"))
        classes = [list(plan.classes) for plan in composition.plans]
        rounds = [plan.rounds for plan in composition.plans]
        workers = [(worker.name, worker.group) for worker in job.workers()]
        self.status = LiveStatus(classes, rounds, workers, memory=peak_bytes)
        self.exporter = Exporter(job.metadata.namespace, job.name, classes, rounds)
        self.observers = Observers(
            self.status,
            self.exporter,
            Lines(classes, rounds, say),
            Keeper(self.recorder, self.directory),
        )
        self.listening = False
        self.waits = False
        """Whether the run is over for good and its record waits to be fetched."""
        self._record: Mapping[str, Any] | None = None
        self.server = StatusServer(
            self.exporter.registry,
            lambda: {**self.status.as_dict(), "recordServed": self.waits},
            lambda: self._record,
            port=options.status_port,
            host=options.status_host,
            ready=lambda: self.listening,
        )

    def record(self, outcome: Outcome) -> None:
        """Write the record beside the checkpoint, and serve it."""
        record = self.recorder.of_outcome(outcome)
        write_record(self.directory, record)
        self._record = record.model_dump(mode="json", by_alias=True)


def run_aggregator(options: AggregatorOptions, pod: Pod) -> int:
    """Serve the job until it is complete, failed or suspended; return the exit code.

    Writes the record beside the checkpoint whatever happens. Raises EngramError for what must change.
    """
    job, place = load_placed(options.job, options.data)
    place.open_modules()
    check_code(job)
    tls = _tls(options)
    authenticate = authenticator(read_key(options.key_file), options.uid or job_uid(job))
    _prepare(options.directory)
    data = job.spec.dataset
    with explaining_data(place, data.volume, data.path, "runAsUser in spec.aggregator.podTemplate"):
        composition = compose(job, place)
    run = _Run(composition, options)
    pod.result = lambda: summary_of(run.status)
    with run.server:
        aggregator = Aggregator(
            composition.settings(),
            composition.global_learner(),
            CheckpointStore(run.directory.checkpoint),
            run.observers,
            replicas=Roster(options.job, job, run.status.resized),
        )
        run.status.restored(aggregator.history)
        run.exporter.restored(aggregator.history)
        outcome = asyncio.run(_serve(aggregator, run, options, authenticate, tls, pod))
        run.record(outcome)
        if outcome.reason != "suspended":
            code = _code(outcome)
            pod.leave(code, outcome.message, outcome.cause)
            # A crash is tried again, and the record of that try is the one that counts.
            run.waits = options.grace_seconds > 0 and code in FOR_GOOD
            run.server.linger(options.grace_seconds if run.waits else 0.0, pod.asked)
    return _exit_code(outcome)


async def _serve(
    aggregator: Aggregator,
    run: _Run,
    options: AggregatorOptions,
    authenticate: Callable[[str, str], bool],
    tls: ssl.SSLContext | None,
    pod: Pod,
) -> Outcome:
    stop = asyncio.Event()
    sedna = run.job.spec.protocol == "sedna"
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run is over
            loop.call_soon_threadsafe(stop.set)

    def listening(port: int) -> None:
        run.listening = True
        how = " for Sedna's workers" if sedna else " with TLS" if tls is not None else ""
        say(f"listening on {options.host}:{port}{how}")

    pod.orderly(SAVE_SECONDS, wake)
    if sedna:
        return await serve_sedna(
            Dialect(aggregator, run.most_samples, run.shares),
            host=options.host,
            port=options.port,
            authenticate=authenticate,
            stop=stop,
            listening=listening,
        )
    return await serve(
        aggregator,
        host=options.host,
        port=options.port,
        authenticate=authenticate,
        stop=stop,
        listening=listening,
        tls=tls,
    )


def most_samples(composition: Composition) -> int:
    """Return how many samples a Sedna worker may say it holds: all there are, where that is known here."""
    known = composition.job.spec.dataset.partition.method != "local"
    return (len(composition.dataset.train.labels) if known else 0) or MOST_SAMPLES


def _tls(options: AggregatorOptions) -> ssl.SSLContext | None:
    if options.tls_certificate is None and options.tls_key is None:
        return None
    if options.tls_certificate is None or options.tls_key is None:
        raise ConfigurationError(
            "certificate and key belong together", field="--tls-cert", remedy="give --tls-cert and --tls-key"
        )
    return server_context(options.tls_certificate, options.tls_key)


def _prepare(directory: Path) -> None:
    """Make the directory of the checkpoint, and see that it takes files before anybody trains for it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"engram")
    except OSError as error:
        raise CheckpointError(
            f"{directory}: the checkpoint cannot be kept there: {error.strerror or error}: make room on "
            f"spec.aggregator.checkpoint, or let user {os.getuid()} write to it"
        ) from error


def summary_of(status: LiveStatus) -> dict[str, Any]:
    """Return the fields of a FinalSummary that a run's live status knows."""
    live, matrix = status.as_dict(), status.matrix
    tasks = range(1, matrix.tasks + 1)
    return {
        "metrics": {name: value for name, value in live["metrics"].items() if name in _names(MetricsStatus)},
        "tasks": live["tasks"],
        "display": live["display"],
        "progress": {
            name: value for name, value in live["progress"].items() if name in _names(ProgressStatus)
        },
        "rounds": status.closed,
        "resumes": status.faults.resumes,
        "workers": live["workers"],
        "matrix": [[task_accuracy(matrix, t, k) for k in range(1, t + 1)] for t in tasks] or None,
    }


def _names(part: type[MetricsStatus | ProgressStatus]) -> set[str]:
    return {field.alias or name for name, field in part.model_fields.items()}


def _code(outcome: Outcome) -> int:
    return {"complete": int(ExitCode.DONE), "suspended": int(ExitCode.RETRY)}.get(
        outcome.reason, outcome.exit_code
    )


def _exit_code(outcome: Outcome) -> int:
    """Say how the run ended and return the code; the sentence is what the supervisor shows."""
    if outcome.reason == "complete":
        return ExitCode.DONE
    if outcome.reason == "suspended":
        raise RetryError(outcome.message or "suspended; the checkpoint is saved")
    failure = FederationError(outcome.message)
    # Those of the error that ended the run, a worker's included.
    failure.exit_code, failure.reason = outcome.exit_code, outcome.cause
    raise failure
