"""`engram reporter`: what the report pod runs when a job has ended on a cluster.

From the run's record it makes the report that `engram run` makes: the whole of it on `spec.report.volume`,
where there is one, and what fits a ConfigMap as the last lines of its log (`engram.spec.compact`). A volume
that takes nothing costs the user the pictures, not the report.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.errors import DataError, EngramError
from engram.report.document import build_document
from engram.report.peers import compare_with
from engram.report.record import Record
from engram.report.render import report_texts, write_report
from engram.report.telemetry import Telemetry
from engram.run.directory import RunDirectory
from engram.run.observers import say
from engram.run.obtaining import brief, obtain, source_of
from engram.run.prometheus import PrometheusError, Server, ask
from engram.run.recording import record_text, write_job
from engram.spec import FederatedIncrementalJob, load_job
from engram.spec.compact import MOST_LETTERS, MOST_TEXT, CompactReport, pack
from engram.spec.exit_codes import ExitCode

MOST_OFF_BOARD = 10
"""Jobs that are named because they are not on the leaderboard: all notes must fit the compact report."""
UID_LETTERS = 8
"""Of the job's uid in the name of a directory: a job of the same name that was made anew has another."""


@dataclass(frozen=True)
class ReporterOptions:
    """What to report, and where the report goes beside the log."""

    job: Path
    records: tuple[str, ...]
    """URLs and paths, asked in this order."""
    out: Path | None
    """Where `spec.report.volume` is mounted; None: only what fits the log is kept."""
    deadline_seconds: float
    """How long a record may be in coming."""
    peers: tuple[Path, ...] = ()
    """Directories with the reports of other jobs, for a leaderboard."""
    prometheus: Server | None = None
    """Asked for what it saw of the run; None: nobody."""


def run_reporter(options: ReporterOptions) -> int:
    """Make the report and print its compact form last of all; return the exit code.

    Raises DataError when there is no record, or one that makes no report.
    """
    sources = [source_of(text) for text in options.records]
    job = load_job(options.job)
    record, source = obtain(sources, job.metadata.uid, options.deadline_seconds)
    say(
        f"record: {source.name} ({record.status}, {len(record.history.tasks)} of {len(record.classes)} tasks)"
    )
    telemetry, notes = _telemetry(record, options.prometheus)
    document, texts = _compact(record, source.name, telemetry, notes)
    comparison = compare_with(record, job.name, options.peers)
    texts |= comparison.files
    notes += [note[:MOST_LETTERS] for note in comparison.notes[:MOST_OFF_BOARD]]
    for note in notes:
        say(note)
    location = ""
    if options.out is not None:
        try:
            location = keep(options.out, directory_name(job), record, document, comparison.files)
            say(f"report: {location} in spec.report.volume")
        except (OSError, EngramError) as error:
            notes.append(not_kept(error)[:MOST_LETTERS])
            say(notes[-1])
    sys.stderr.flush()
    print(pack(CompactReport(texts, location, tuple(notes))), end="", flush=True)
    return ExitCode.DONE


def compact_texts(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the report's text files, without the white space of report.json where they would not fit."""
    texts = report_texts(document)
    if CompactReport(texts).size > MOST_TEXT:
        texts["report.json"] = json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n"
    return texts


def directory_name(job: FederatedIncrementalJob) -> str:
    """Return the name of the job's directory on a volume that several jobs may share."""
    parts = (job.metadata.namespace, job.name, job.metadata.uid[:UID_LETTERS])
    return "-".join(re.sub(r"[^-a-zA-Z0-9]", "-", part) for part in parts if part)


def keep(
    out: Path,
    name: str,
    record: Record,
    document: Mapping[str, Any] | None = None,
    more: Mapping[str, str] | None = None,
) -> str:
    """Write the whole report into the directory `name` below `out`, where all of it appears at once.

    It is a run directory like those of `engram run`, so that `engram report` compares several; `document` is
    its report, where that says more than the record, `more` are texts beside it. What an earlier try left
    there is replaced. Returns `name`. Raises OSError, or EngramError for a missing package.
    """
    partial, former = out / f".{name}.partial", out / f".{name}.former"
    try:
        for rest in (partial, former):
            shutil.rmtree(rest, ignore_errors=True)
        partial.mkdir(parents=True)
        directory = RunDirectory(partial)
        write_job(directory.job, record.job)
        directory.record.write_text(record_text(record), encoding="utf-8")
        _with_pictures(partial, record, document)
        for file, text in (more or {}).items():
            (partial / file).write_text(text, encoding="utf-8")
        if (out / name).exists():
            (out / name).replace(former)
        partial.replace(out / name)
    finally:
        for rest in (partial, former):
            shutil.rmtree(rest, ignore_errors=True)
    return name


def _with_pictures(directory: Path, record: Record, document: Mapping[str, Any] | None) -> None:
    """Write the report with matplotlib kept quiet, and its font cache where a pod may write: below /tmp."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="engram-fonts-") as cache:
        os.environ["MPLCONFIGDIR"] = cache
        write_report(directory, record, document)


def _telemetry(record: Record, server: Server | None) -> tuple[Telemetry | None, list[str]]:
    """Return what Prometheus saw of the run, where it was asked, or a note on why there is nothing."""
    if server is None:
        return None, []
    try:
        return ask(server, record), []
    except PrometheusError as error:
        note = f"Prometheus at {server.name} {error}: the report is made of the run's record alone."
        return None, [note[:MOST_LETTERS]]


def _compact(
    record: Record, source: str, telemetry: Telemetry | None, notes: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the report document and its text files."""
    try:
        document = build_document(record, telemetry, notes)
        return document, compact_texts(document)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Each part of it is well-formed, or it would be no Record.
        raise DataError(
            f"the record of the run contradicts itself: {source}: {brief(repr(error))}: "
            "it was damaged or changed by hand; run the job again"
        ) from error


def not_kept(error: OSError | EngramError) -> str:
    """Return in one sentence why the full report is nowhere, and what to do about it."""
    if isinstance(error, EngramError):
        return f"The full report was not kept: {error}"
    user = os.getuid()
    why = {
        errno.ENOSPC: "spec.report.volume is full: make room on it",
        errno.EDQUOT: "the quota of spec.report.volume is used up: make room on it",
        errno.EROFS: "spec.report.volume is read-only: give one that can be written",
        errno.EACCES: f"user {user} may not write to spec.report.volume: give it the permission",
        errno.EPERM: f"user {user} may not write to spec.report.volume: give it the permission",
    }.get(error.errno or 0, str(error))
    return f"The full report was not kept: {why}."
