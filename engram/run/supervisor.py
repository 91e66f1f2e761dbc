"""Runs a job as processes on this machine: one aggregator, one process a worker, WebSockets on loopback.

The supervisor plays Kubernetes' part: it starts the same two commands that pods start, restarts what crashes
up to `runPolicy.backoffLimit` (a closed round resets the count), reads the same exit codes, and takes
everything down at the end. It never touches a weight.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engram.errors import ConfigurationError
from engram.run.child import Child
from engram.run.directory import RunDirectory
from engram.run.display import Display
from engram.run.ending import Ending
from engram.run.ports import LOOPBACK, Reservation
from engram.run.stop import STOPPING, Stop
from engram.run.watch import LineTail, fetch_status
from engram.spec import FederatedIncrementalJob
from engram.spec.exit_codes import ExitCode, meaning_of
from engram.spec.names import Environment
from engram.spec.tokens import worker_token

TICK_SECONDS = 0.05
STATUS_SECONDS = 0.3
FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
"""Seconds before a crashed process is started again; doubles with every failure without progress."""
FAREWELL_SECONDS = 10.0
"""How long workers may take to leave after the aggregator has finished."""
CHECKPOINT_SECONDS = 60.0
"""How long the aggregator may take to save its state when the run is interrupted."""
VERDICT_SECONDS = 20.0
"""How long the aggregator may take to record a failure that a worker has reported, and to see the others off:
longer than the server lingers and closes."""

FINAL_CODES = (ExitCode.CONFIGURATION, ExitCode.DATA, ExitCode.REFUSED)
"""A process that ended so would end so again."""


@dataclass
class Fleet:
    """The processes of a run and what they share."""

    aggregator: Child
    workers: dict[str, Child]
    status_port: int

    def all(self) -> tuple[Child, ...]:
        """Every process, the aggregator first."""
        return (self.aggregator, *self.workers.values())


class Supervisor:
    """Starts, watches and ends the processes of one run."""

    def __init__(
        self,
        job: FederatedIncrementalJob,
        directory: RunDirectory,
        display: Display,
        stop: Stop,
        port: Reservation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`directory` holds the resolved job file; `port` is what the aggregator listens on."""
        self._job, self._directory = job, directory
        self._display, self._stop, self._port, self._clock = display, stop, port, clock
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._progress = (0, 0)
        self._next_status = 0.0
        self._devices: dict[str, str] = {}
        self._lines = LineTail(directory.logs / "aggregator.log")
        self._secrets = directory.path / ".credentials"

    def run(self) -> Ending:
        """Run the job to its end, or until asked to stop. Nothing that was started outlives this call."""
        self._directory.logs.mkdir(exist_ok=True)
        with Reservation() as status_port:
            fleet = self._fleet(status_port.port)
            try:
                for child in fleet.all():
                    child.start()
                address = f"http://{LOOPBACK}:{status_port.port}"
                self._display.note(f"while it runs: {address}/v1/status and {address}/metrics")
                ending = self._watch(fleet)
            finally:
                for child in fleet.all():
                    child.close()
                shutil.rmtree(self._secrets, ignore_errors=True)
        if ending.reason == "complete":
            shutil.rmtree(self._directory.state, ignore_errors=True)
        self._show_lines()
        restarts = {child.name: child.starts - 1 for child in fleet.all() if child.starts > 1}
        return Ending(ending.reason, ending.message, ending.exit_code, restarts, self._devices)

    def _fleet(self, status_port: int) -> Fleet:
        """Prepare every process: arguments, environment, secrets, logs."""
        job, directory = self._job, self._directory
        key, uid = secrets.token_bytes(32), job.metadata.uid or job.name
        self._secrets.mkdir(mode=0o700, exist_ok=True)
        environment = dict(child_environment(job.spec.training.threads))
        if job.spec.protocol == "sedna":
            environment[Environment.LC_SERVER] = f"http://{LOOPBACK}:{self._port.port}"
        arguments = [
            *("aggregator", "--job", str(directory.job), "--dir", str(directory.path)),
            *("--key-file", str(self._secret("key", key.hex()))),
            *("--host", LOOPBACK, "--port", str(self._port.port)),
            *("--status-host", LOOPBACK, "--status-port", str(status_port), "--lifeline"),
        ]
        aggregator = Child("aggregator", arguments, environment, directory.logs / "aggregator.log")
        workers = {}
        for worker in job.workers():
            token = self._secret(worker.name, worker_token(key, uid, worker.name))
            arguments = [
                *("worker", "--job", str(directory.job), "--name", worker.name),
                *("--endpoint", f"{LOOPBACK}:{self._port.port}"),
                *("--token-file", str(token), "--state-dir", str(directory.state_of(worker.name))),
                "--lifeline",
            ]
            log = directory.logs / f"{worker.name}.log"
            workers[worker.name] = Child(worker.name, arguments, environment, log, numbered=True)
        return Fleet(aggregator, workers, status_port)

    def _secret(self, name: str, text: str) -> Path:
        """Write a secret that only this user can read."""
        path = self._secrets / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="ascii")
        return path

    def _watch(self, fleet: Fleet) -> Ending:
        """Follow the run until it ends one way or another."""
        while True:
            self._follow(fleet)
            ending = self._check_aggregator(fleet) or self._check_workers(fleet)
            if ending is not None:
                return ending
            if self._stop():
                return self._suspend(fleet)
            self._restart_due(fleet)
            self._stop.wait(TICK_SECONDS)

    def _check_aggregator(self, fleet: Fleet) -> Ending | None:
        """Return the ending that the aggregator's exit amounts to; plan its restart after a crash."""
        child = fleet.aggregator
        code = child.poll()
        if code is None or child.name in self._due:
            return None
        if code == ExitCode.DONE:
            self._see_off(fleet, FAREWELL_SECONDS)
            return Ending("complete")
        message, clean = child.last_words()
        if code != ExitCode.RETRY and clean:
            self._see_off(fleet, FAREWELL_SECONDS)
            return _failed(child, code, message)
        return self._plan_restart(child, code, message)

    def _check_workers(self, fleet: Fleet) -> Ending | None:
        """Return the ending that a worker's exit amounts to; plan restarts of those that crashed."""
        for child in fleet.workers.values():
            code = child.poll()
            if code in (None, ExitCode.DONE) or child.name in self._due:
                continue
            message, clean = child.last_words()
            if code in FINAL_CODES:
                return self._worker_failed(fleet, child, code, message)
            if code == ExitCode.FAILURE and clean and fleet.aggregator.wait(VERDICT_SECONDS) is not None:
                return None  # the aggregator ended the run: the next look at it says how
            ending = self._plan_restart(child, code, message)
            if ending is not None:
                self._settle(fleet)
                return ending
        return None

    def _worker_failed(self, fleet: Fleet, child: Child, code: int, message: str) -> Ending:
        """End the run because of a worker's error; the aggregator may record it first."""
        if fleet.aggregator.wait(VERDICT_SECONDS) is None:
            self._settle(fleet)
        return _failed(child, code, message)

    def _plan_restart(self, child: Child, code: int, message: str) -> Ending | None:
        """Plan another start of `child`; return the failure when it has had enough of them."""
        if code != ExitCode.RETRY:
            self._failures[child.name] = self._failures.get(child.name, 0) + 1
        failures = self._failures.get(child.name, 0)
        words = message.splitlines()[0] if message else describe_exit(code)
        limit = self._job.spec.run_policy.backoff_limit
        if failures > limit:
            text = (
                f"{child.name} failed {failures} times without a round in between "
                f"(runPolicy.backoffLimit is {limit}): {words}; see {child.log}"
            )
            return Ending("failed", text, 1)
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** max(0, failures - 1))
        self._due[child.name] = self._clock() + delay
        self._display.note(f"{child.name} ended ({words}); it is started again")
        return None

    def _restart_due(self, fleet: Fleet) -> None:
        """Start again whose time has come."""
        for child in fleet.all():
            due = self._due.get(child.name)
            if due is not None and self._clock() >= due:
                del self._due[child.name]
                child.start()

    def _follow(self, fleet: Fleet) -> None:
        """Show what the aggregator says; a closed round or task forgives all failures before it."""
        self._show_lines()
        if self._clock() < self._next_status:
            return
        self._next_status = self._clock() + STATUS_SECONDS
        status = fetch_status(fleet.status_port)
        if status is None:
            return
        self._display.status(status)
        for worker in status.get("workerStatuses", []):
            if worker.get("device"):
                self._devices[worker["name"]] = worker["device"]
        reached = (len(status.get("tasks", [])), int(status.get("progress", {}).get("round", 0)))
        if reached > self._progress:
            self._progress = reached
            self._failures.clear()

    def _show_lines(self) -> None:
        for line in self._lines.read():
            self._display.line(line)

    def _suspend(self, fleet: Fleet) -> Ending:
        """Let the aggregator save its state, then end everything."""
        self._display.note(STOPPING)
        self._settle(fleet)
        if fleet.aggregator.poll() == ExitCode.DONE:
            return Ending("complete")
        saved = any(self._directory.checkpoint.glob("*"))
        what = "the checkpoint is saved" if saved else "no round had been closed"
        return Ending("suspended", f"interrupted; {what}", ExitCode.RETRY)

    def _settle(self, fleet: Fleet) -> None:
        """Ask the aggregator to save and end, then see the workers off."""
        fleet.aggregator.terminate()
        deadline = self._clock() + CHECKPOINT_SECONDS
        while fleet.aggregator.running and not self._stop.at_once and self._clock() < deadline:
            fleet.aggregator.wait(TICK_SECONDS)
        for child in fleet.workers.values():
            child.terminate()
        self._see_off(fleet, FAREWELL_SECONDS / 5)

    def _see_off(self, fleet: Fleet, seconds: float) -> None:
        """Wait for the workers to leave; those that do not are killed by `run`: they have nothing to lose."""
        deadline = self._clock() + seconds
        for child in fleet.workers.values():
            while child.running and not self._stop.at_once and self._clock() < deadline:
                child.wait(TICK_SECONDS)


def child_environment(threads: int) -> Mapping[str, str]:
    """Return what children get beside this process's environment: as many threads as the job says."""
    number = str(threads)
    libraries = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**dict.fromkeys(libraries, number), "PYTHONUNBUFFERED": "1"}


def describe_exit(code: int) -> str:
    """Return in words how a process ended; negative codes are signals."""
    return meaning_of(128 - code if code < 0 else code)


def _failed(child: Child, code: int, message: str) -> Ending:
    """Return the failure that a process's own sentence explains."""
    text = message or f"{describe_exit(code)}; see {child.log}"
    bad_input = code in (ExitCode.CONFIGURATION, ExitCode.DATA)
    known = text if child.name in text or child.name == "aggregator" else f"{child.name}: {text}"
    return Ending("failed", known, ConfigurationError.exit_code if bad_input else 1)
