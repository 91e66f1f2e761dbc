"""The in-process transport: aggregator and all learners in this process, no sockets, same results."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from engram.errors import EngramError
from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.compression.residuals import FileResiduals
from engram.federation.history import History, RoundRow, TaskRow, WorkerState
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Heartbeat, Hello, Reject
from engram.federation.outcome import Outcome
from engram.federation.roles import LocalLearner
from engram.metrics.status import LiveStatus
from engram.run.composition import Composition
from engram.run.directory import RunDirectory
from engram.run.display import Display
from engram.run.edge import translate
from engram.run.ending import Ending
from engram.run.observers import Lines, Observers
from engram.run.recording import Keeper, Recorder, write_record
from engram.run.stop import STOPPING, Stop
from engram.spec.exit_codes import ExitCode

TICK_SECONDS = 0.1


class Refresher:
    """Shows the newest status after every event that changes it visibly."""

    def __init__(self, status: LiveStatus, display: Display) -> None:
        self._status, self._display = status, display

    def _show(self) -> None:
        self._display.status(self._status.as_dict())

    def worker_changed(self, worker: str, state: WorkerState) -> None:
        """Show it."""
        self._show()

    def introduced(self, worker: str, hello: Hello) -> None:
        """Its state changes as well."""

    def worker_failed(self, worker: str, text: str, exit_code: int) -> None:
        """In one process it is an exception."""

    def heartbeat(self, worker: str, beat: Heartbeat) -> None:
        """Show it."""
        self._show()

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int) -> None:
        """Too frequent to show."""

    def rejected(self, worker: str, reject: Reject) -> None:
        """Show it."""
        self._show()

    def round_started(self, task: int, round: int) -> None:
        """Show it."""
        self._show()

    def consolidation_started(self, task: int) -> None:
        """Show it."""
        self._show()

    def evaluation_started(self, task: int, round: int) -> None:
        """Show it."""
        self._show()

    def round_closed(self, row: RoundRow, history: History) -> None:
        """Show it."""
        self._show()

    def task_closed(self, row: TaskRow, history: History) -> None:
        """Show it."""
        self._show()

    def finished(self, reason: str, message: str, history: History) -> None:
        """Show it."""
        self._show()


def run_locally(
    composition: Composition,
    directory: RunDirectory,
    recorder: Recorder,
    display: Display,
    stop: Stop,
    *,
    batched: bool = False,
) -> Ending:
    """Run the job in this process and write its record; `batched`: workers train their rounds together.

    Raises KeyboardInterrupt at the second Ctrl-C; the checkpoint of the last closed round is on disk then.
    """
    classes = [list(plan.classes) for plan in composition.plans]
    rounds = [plan.rounds for plan in composition.plans]
    members = [(worker.name, worker.group) for worker in composition.job.workers()]
    status = LiveStatus(classes, rounds, members)
    observers = Observers(
        *(status, Lines(classes, rounds, display.line), Keeper(recorder, directory)),
        *((Refresher(status, display),) if display.follows else ()),
    )
    with stop.on_signals(raise_second=True), _announcing(stop, display):
        try:
            crew = composition.crew() if batched else None
            learners = (
                {worker.name: composition.local_learner(worker) for worker in composition.job.workers()}
                if crew is None
                else dict(crew.members)
            )
            store = CheckpointStore(directory.checkpoint)
            settings = replace(composition.settings(), take_turns=True)
            aggregator = Aggregator(settings, composition.global_learner(), store, observers)
            status.restored(aggregator.history)
            outcome = run_in_process(
                aggregator,
                learners,
                stop,
                lambda worker: FileResiduals(directory.state_of(worker), composition.job.digest()),
                crew,
            )
        except (EngramError, MemoryError, OSError, RuntimeError) as error:
            known = translate(error)
            if not isinstance(known, EngramError):
                raise
            return Ending.of_error(known)
    if outcome.reason == "complete":
        shutil.rmtree(directory.state, ignore_errors=True)
    write_record(directory, recorder.of_outcome(outcome))
    return ending_of(outcome, devices(learners))


@contextmanager
def _announcing(stop: Stop, display: Display) -> Iterator[None]:
    """Say at once that a stop was asked for: the work looks at the flag only after a worker's round.

    From a thread, because a signal handler may not print.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if stop.wait(TICK_SECONDS):
                display.note(STOPPING)
                return

    thread = threading.Thread(target=watch, name="stop-note", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def devices(learners: Mapping[str, LocalLearner]) -> dict[str, str]:
    """Return worker -> device."""
    return {name: learner.device for name, learner in learners.items()}


def ending_of(outcome: Outcome, known_devices: Mapping[str, str]) -> Ending:
    """Return the ending that an outcome amounts to."""
    if outcome.reason == "complete":
        return Ending("complete", devices=known_devices)
    if outcome.reason == "suspended":
        message = "interrupted; the checkpoint is saved"
        return Ending("suspended", message, ExitCode.RETRY, devices=known_devices)
    bad_input = outcome.exit_code in (ExitCode.CONFIGURATION, ExitCode.DATA)
    code: Any = ExitCode.CONFIGURATION if bad_input else ExitCode.FAILURE
    return Ending("failed", outcome.message, code, devices=known_devices)
