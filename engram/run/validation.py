"""`engram validate`: everything that can be checked of job files without running them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from engram.errors import ConfigurationError, EngramError
from engram.run.checks import check_code
from engram.run.composition import compose
from engram.run.edge import ERROR_MARK
from engram.run.source import naming, place_of
from engram.spec import FederatedIncrementalJob, load_jobs


def validate_files(files: Sequence[Path], *, with_data: bool) -> int:
    """Check every job of every file; print a line each, errors on stderr. Returns 0, or 42 if any is bad."""
    code = 0
    for path in files:
        try:
            jobs = load_jobs(path)
            for job in jobs:
                with naming(str(path)):
                    print(f"{path}: {_check(job, path, with_data=with_data)}", flush=True)
        except EngramError as error:
            print(f"{ERROR_MARK}{error}", file=sys.stderr, flush=True)
            code = ConfigurationError.exit_code
    return code


def _check(job: FederatedIncrementalJob, path: Path, *, with_data: bool) -> str:
    """Return the line of a valid job."""
    place = place_of(job, path)
    place.open_modules()
    check_code(job)
    spec = job.spec
    size = f"{_count(spec.tasks.count, 'task')}, {_count(len(job.workers()), 'worker')}"
    line = f"valid: {job.name}: {spec.algorithm.name} on {spec.dataset.name}, {size}"
    if not with_data:
        return line
    composition = compose(job, place)
    found = f"{len(composition.dataset.train.labels)} training images, split {composition.split.digest[:12]}"
    return "; ".join([line, found, *composition.warnings()])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
