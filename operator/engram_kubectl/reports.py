"""`kubectl engram report` and `engram report --cluster`: a job's report, from its ConfigMap into a directory.

The directory is like that of `engram run`, as far as a ConfigMap holds one: pages, tables and numbers, and
the job file from `<job>-spec`. Pictures and the record are in `spec.report.volume` only, which is said.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engram.errors import ConfigurationError
from engram.run.directory import RUNS, RunDirectory, free_name
from engram.spec.compact import FILE_NAME, CompactReport
from engram.spec.names import Condition, Reason, SpecKey
from engram_kubectl.connection import Cluster, Target, connected
from engram_kubectl.errors import NothingThereError, NotYetError
from engram_kubectl.jobs import condition_of, has_ended, key_of, phase_of, read_job, status_of
from engram_kubectl.words import UNSEEN, headline, one_line, place
from engram_operator.api import path_of
from engram_operator.errors import ApiError
from engram_operator.manifests.names import report_name, spec_name
from engram_operator.model import JobKey, Object

ON_THE_VOLUME = "figures/*.png and record.json"
"""What of a report no ConfigMap holds."""


@dataclass(frozen=True)
class Fetched:
    """A report as the cluster has it."""

    files: Mapping[str, str]
    location: str
    """In `spec.report.volume`; empty: nowhere."""
    altered: bool
    """The ConfigMap is not as the operator left it."""
    notes: str
    """What the operator said of the report."""


async def report(target: Target, name: str, out: Path | None) -> int:
    """Fetch the report of a job into a directory, and say what is where; return the exit code."""
    async with connected(target) as cluster:
        key = key_of(name, cluster.namespace)
        fetched = await fetch(cluster, key)
    directory = write(fetched.files, out, key.name)
    print(
        f"report: {directory / 'report.html'}" if "report.html" in fetched.files else f"report: {directory}"
    )
    print(f"files: {', '.join(sorted(fetched.files))}")
    print(_elsewhere(fetched))
    if fetched.notes:
        print(f"operator: {fetched.notes}")
    if fetched.altered:
        print(f"note: somebody has changed ConfigMap {report_name(key.name)}: its digest is not the job's")
    return 0


async def fetch(cluster: Cluster, key: JobKey) -> Fetched:
    """Return the report of the job.

    Raises:
        ConfigurationError: there is no such job.
        NotYetError: its report is still to come.
        NothingThereError: it has none.
    """
    job = await read_job(cluster, key)
    _check_made(job, key)
    status = status_of(job).get("report") or {}
    name = str(status.get("configMap") or report_name(key.name))
    try:
        found = await cluster.api.request("GET", path_of("ConfigMap", key.namespace, name))
    except ApiError as error:
        if error.status != 404:
            raise
        raise NothingThereError(_gone(key, name, status)) from error
    files = {
        str(name): str(text) for name, text in (found.get("data") or {}).items() if FILE_NAME.fullmatch(name)
    }
    if not files:
        raise NothingThereError(_gone(key, name, status))
    digest = str(status.get("digest") or "")
    altered = bool(digest) and CompactReport(files).digest != digest
    said = condition_of(job, Condition.REPORT_READY)
    location = one_line(status.get("location") or "")
    return Fetched(
        {**await _job_file(cluster, key), **files}, location, altered, one_line(said.message) if said else ""
    )


def write(files: Mapping[str, str], out: Path | None, name: str) -> Path:
    """Write the files into `out`, or the next free of `runs/NAME`, where all of them appear at once.

    Raises ConfigurationError when `out` holds something already, or cannot be written.
    """
    target = free_name(RUNS / name) if out is None else out
    if target.exists() and not target.is_dir():
        raise ConfigurationError(f"{target} is a file", field="--out", remedy="name a directory")
    if target.exists() and any(target.iterdir()):
        holds = "already holds a run" if RunDirectory(target).holds_run() else "is not empty"
        raise ConfigurationError(
            f"{target} {holds}", field="--out", remedy="name an empty or a new directory"
        )
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file, text in files.items():
            (partial / file).write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ConfigurationError(
            f"cannot write {target}: {error.strerror}",
            field="--out",
            remedy="name a directory that can be written",
        ) from error
    return target


def _check_made(job: Object, key: JobKey) -> None:
    """Raise unless the report is in its place; says what to wait for, or why there is none."""
    said = condition_of(job, Condition.REPORT_READY)
    if said is not None and said.true:
        return
    awaited = f"wait for it: kubectl engram wait {key.namespace}/{key.name} --for ReportReady"
    why = one_line(said.message) if said is not None else ""
    if said is not None and said.reason == Reason.REPORT_PENDING:
        raise NotYetError(f"the report of {key} is being made{f' ({why})' if why else ''}: {awaited}")
    if said is not None:
        raise NothingThereError(f"{key} has no report: {why or said.reason}{_volume_hint(job)}")
    if not status_of(job).get("phase"):
        raise NotYetError(f"{key} has no report: {UNSEEN}")
    if not has_ended(job):
        where = f" ({place(job)})" if place(job) else ""
        raise NotYetError(f"{key} is {phase_of(job)}{where}, the report comes at its end: {awaited}")
    raise NothingThereError(
        f"{key} has no report: {headline(job)}: a run that never started, or whose record was lost with "
        "its aggregator (spec.report.graceSeconds, spec.aggregator.checkpoint), leaves none"
    )


def _volume_hint(job: Object) -> str:
    volume = ((job.get("spec") or {}).get("report") or {}).get("volume")
    return ": spec.report.volume may hold an earlier one" if volume else ""


def _gone(key: JobKey, name: str, status: Mapping[str, object]) -> str:
    location = one_line(status.get("location") or "")
    rest = f"the whole report is in spec.report.volume at {location}" if location else "run the job again"
    return f"the report of {key} is gone: somebody has deleted or emptied ConfigMap {name}: {rest}"


async def _job_file(cluster: Cluster, key: JobKey) -> dict[str, str]:
    """Return the job as it ran, as a file; none where it cannot be read."""
    try:
        found = await cluster.api.request("GET", path_of("ConfigMap", key.namespace, spec_name(key.name)))
    except ApiError:
        return {}
    text = (found.get("data") or {}).get(str(SpecKey.JOB))
    return {"job.yaml": str(text)} if text else {}


def _elsewhere(fetched: Fetched) -> str:
    """Return where the rest of the report is."""
    if fetched.location:
        return f"only in spec.report.volume, at {fetched.location}: {ON_THE_VOLUME}"
    return f"not kept, for want of a spec.report.volume that takes them: {ON_THE_VOLUME}"
