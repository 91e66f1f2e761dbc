"""One job on this machine, from file to report: check everything, run it, write what is left of it."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engram.errors import CheckpointError, ConfigurationError
from engram.federation.history import History
from engram.metrics.matrix import from_history
from engram.metrics.measures import measure
from engram.report.record import Record
from engram.run.checks import check_code, check_together
from engram.run.composition import Composition, Place, check_trainable, compose
from engram.run.directory import Choice, RunDirectory, choose, claim, occupied
from engram.run.display import Display, duration, open_display
from engram.run.edge import ERROR_MARK, translate
from engram.run.ending import Ending
from engram.run.facts import cpu_seconds, environment, exemplar_warning
from engram.run.observers import percent, size
from engram.run.ports import Reservation
from engram.run.recording import Recorder, now, write_job, write_record
from engram.run.source import with_origin
from engram.run.stop import Stop
from engram.spec import FederatedIncrementalJob
from engram.spec.exit_codes import ExitCode
from engram.spec.loader import load_job

Transport = Literal["websocket", "in-process"]


@dataclass(frozen=True)
class RunOptions:
    """How a job is to be run."""

    transport: Transport = "websocket"
    file: str = ""
    """The job file as the user named it, for messages."""
    out: Path | None = None
    resume: bool = False
    port: int = 0
    """The aggregator's port; 0: any free one."""
    quiet: bool = False
    """Only the summary line, as in a grid."""
    batched: bool = False
    """Workers train their rounds together; in-process only."""
    figures: bool = True
    """Draw figures/*.png."""
    command: tuple[str, ...] = ("engram", "run")
    """What the user typed, for the record and for the command that resumes."""


def run_job(job: FederatedIncrementalJob, place: Place, options: RunOptions) -> int:
    """Run `job` and return the exit code: 0 complete, 42 bad input, 75 interrupted, 1 otherwise.

    Raises EngramError for everything that is wrong before the run starts; nothing is left behind then.
    """
    used_before = cpu_seconds()
    choice = choose(job.name, options.out, resume=options.resume, grid=False)
    previous = _previous(job, choice)
    if previous is not None and previous.status == "complete":
        if not choice.directory.report.exists():  # the disk was full, or a second Ctrl-C
            _write_report(choice.directory, previous, figures=options.figures)
        print(f"{choice.directory.path} is complete already; report: {choice.directory.report}")
        return ExitCode.DONE
    check_trainable(job)
    composition = compose(job, place)
    check_code(job)
    if options.batched:
        check_together(job)
    composition.settings()
    stop = Stop()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(Reservation(options.port)) if options.transport == "websocket" else None
        directory = claim(choice, job.name)
        stack.enter_context(occupied(directory))
        recorder = _recorder(composition, options, previous)
        try:
            _prepare(directory, composition, recorder, previous)
            display = stack.enter_context(open_display(f"{job.name} ({directory.path})", quiet=options.quiet))
            for warning in (*composition.warnings(), *exemplar_warning(composition)):
                display.note(warning)
            ending = _carry_out(
                composition, directory, recorder, display, stop, port, batched=options.batched
            )
        except BaseException:
            if choice.fresh and not directory.checkpoint.exists():
                _discard(directory, choice)
            raise
    record = _final_record(directory, recorder, ending, previous, used_before)
    if ending.exit_code == ExitCode.CONFIGURATION and choice.fresh and not record.history.rounds:
        _discard(directory, choice)
        return _failed(ending, options)
    return _conclude(directory, record, ending, options)


def _carry_out(
    composition: Composition,
    directory: RunDirectory,
    recorder: Recorder,
    display: Display,
    stop: Stop,
    port: Reservation | None,
    *,
    batched: bool,
) -> Ending:
    """Run over the chosen transport."""
    if port is None:
        from engram.run.local import run_locally

        return run_locally(composition, directory, recorder, display, stop, batched=batched)
    from engram.run.supervisor import Supervisor

    with stop.on_signals():
        return Supervisor(composition.job, directory, display, stop, port).run()


def _previous(job: FederatedIncrementalJob, choice: Choice) -> Record | None:
    """Return the record of the run to resume, None for a fresh one; refuse another job's directory."""
    if choice.fresh:
        return None
    directory = choice.directory
    held = load_job(directory.job)
    if held.digest() != job.digest():
        raise ConfigurationError(
            f"{directory.path} holds a run of another job: {_first_difference(held, job)}",
            field="--resume",
            remedy=f"resume it with {directory.job}, or run this job in another directory",
        )
    if not directory.record.exists():
        return None
    from engram.report.compare import load_record

    return load_record(directory.path)


def _first_difference(held: FederatedIncrementalJob, wanted: FederatedIncrementalJob) -> str:
    """Return the first path below spec at which two jobs differ, with both values."""
    left, right = _leaves(held.spec.dump()), _leaves(wanted.spec.dump())
    for path in sorted({*left, *right}):
        if left.get(path) != right.get(path):
            return f"its spec.{path} is {left.get(path)}, here {right.get(path)}"
    return "its digest differs"


def _leaves(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict) and value:
        found: dict[str, object] = {}
        for key, inner in value.items():
            found.update(_leaves(inner, f"{path}.{key}" if path else str(key)))
        return found
    return {path: value}


def _recorder(composition: Composition, options: RunOptions, previous: Record | None) -> Recorder:
    # Also when only what came before a resume was batched: the result is not what it would be without.
    batched = options.batched or (previous is not None and previous.environment.batched)
    facts = environment(options.transport, shlex.join(options.command), batched=batched)
    return Recorder(composition, facts, started=previous.started if previous else now())


def _prepare(
    directory: RunDirectory, composition: Composition, recorder: Recorder, previous: Record | None
) -> None:
    """Write the resolved job and a first record, so that the directory says at once what it holds."""
    if not directory.job.exists():
        write_job(directory.job, with_origin(composition.job.dump(), composition.place.folder))
    if previous is None:
        write_record(directory, recorder.record(History(), "running"))


def _final_record(
    directory: RunDirectory,
    recorder: Recorder,
    ending: Ending,
    previous: Record | None,
    used_before: float,
) -> Record:
    """Return the record as the transport left it, with what only this process knows; write it."""
    from engram.report.compare import load_record

    try:
        record = load_record(directory.path)
    except ConfigurationError:
        record = previous or recorder.record(History(), "failed")
    status = {"complete": "complete", "failed": "failed", "suspended": "interrupted"}[ending.reason]
    spent = cpu_seconds() - used_before
    if previous is not None and previous.cost.cpu_seconds is not None:
        spent += previous.cost.cpu_seconds
    restarts = {worker.name: worker.restarts for worker in previous.workers} if previous else {}
    devices = {worker.name: worker.device for worker in (*record.workers, *(previous or record).workers)}
    workers = [
        worker.model_copy(
            update={
                "restarts": restarts.get(worker.name, 0) + ending.restarts.get(worker.name, 0),
                "device": ending.devices.get(worker.name) or devices.get(worker.name, ""),
            }
        )
        for worker in record.workers
    ]
    record = record.model_copy(
        update={
            "status": status,
            "message": ending.message,
            "environment": recorder.environment,
            "started": recorder.started,
            "completed": now(),
            "workers": workers,
            "cost": record.cost.model_copy(update={"cpu_seconds": round(spent, 2)}),
        }
    )
    with contextlib.suppress(CheckpointError):  # the disk may be full: that is what `ending` says then
        write_record(directory, record)
    return record


def _conclude(directory: RunDirectory, record: Record, ending: Ending, options: RunOptions) -> int:
    """Write the report, print the summary or the failure, return the exit code."""
    if record.history.tasks:
        _write_report(directory, record, figures=options.figures)
    if ending.reason == "suspended":
        print(
            f"engram: {ending.message}. Continue: {resume_command(options.command, directory.path)}",
            file=sys.stderr,
        )
        return ending.exit_code
    if ending.reason == "failed":
        if record.history.rounds:
            command = resume_command(options.command, directory.path)
            print(
                f"engram: rounds so far are kept in {directory.path}; continue with: {command}",
                file=sys.stderr,
            )
        return _failed(ending, options)
    print(summary(record, directory, brief=options.quiet))
    return ending.exit_code


def _write_report(directory: RunDirectory, record: Record, *, figures: bool) -> None:
    from engram.report.render import write_report

    try:
        write_report(directory.path, record, figures=figures)
    except ModuleNotFoundError as error:  # the run itself is fine; `engram report` makes it later
        print(f"engram: no report: {translate(error)}", file=sys.stderr)


def _failed(ending: Ending, options: RunOptions) -> int:
    """Print the failure; one that the job file can mend names it, wherever in the fleet it was found."""
    about_job = ending.exit_code == ExitCode.CONFIGURATION and "spec." in ending.message
    where = f"{options.file}: " if about_job and options.file else ""
    print(f"{ERROR_MARK}{where}{ending.message}", file=sys.stderr)
    return ending.exit_code


def _discard(directory: RunDirectory, choice: Choice) -> None:
    """Remove what a fresh run that never closed a round has written: bad input leaves nothing behind."""
    for path in directory.path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with contextlib.suppress(OSError):  # not empty: somebody else's, or other runs'
        if not choice.existed:
            directory.path.rmdir()
        if not choice.explicit:
            directory.path.parent.rmdir()


def resume_command(command: Sequence[str], path: Path) -> str:
    """Return the command that continues the run in `path`: what was typed, with --out and --resume."""
    kept: list[str] = []
    skip = False
    for word in command:
        if skip or word == "--resume" or word.startswith("--out="):
            skip = False
            continue
        if word == "--out":
            skip = True
            continue
        kept.append(word)
    return shlex.join([*kept, "--out", str(path), "--resume"])


def summary(record: Record, directory: RunDirectory, *, brief: bool) -> str:
    """Return the lines that a finished run ends with (one line when `brief`)."""
    found = measure(from_history(record.classes, record.history))
    cost = record.cost
    figures = f"accuracy {percent(found['accuracy'])}"
    if found["forget_rate"] is not None:
        figures += f", forget rate {percent(found['forget_rate'])}"
    if brief:
        return f"{figures}, {duration(cost.seconds)}"
    return "\n".join(
        [
            f"{record.job['metadata']['name']} is complete: {figures}, "
            f"average incremental accuracy {percent(found['average_incremental_accuracy'])}",
            f"{duration(cost.seconds)}, {size(cost.bytes_down + cost.bytes_up)} on the wire, "
            f"{cost.local_steps} local steps, {cost.cpu_seconds or 0:.0f} s CPU",
            f"report: {directory.report}",
        ]
    )
