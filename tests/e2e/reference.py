"""The same job on this machine: what a run on the cluster must give bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from engram.metrics.format import load_matrix
from engram.metrics.measures import task_accuracy
from tests.cluster.api import Object
from tests.e2e.jobs import Matrix

RUN_SECONDS = 240
OF_THE_PLACE = ("started", "completed", "job", "environment", "run_again", "telemetry", "notes")
"""Parts of report.json that say where and when a run was, beside all that is measured in seconds or bytes."""


def run_here(job: Path | Object, folder: Path, transport: str = "in-process") -> Matrix:
    """Return the accuracy matrix of `engram run` of a job file or object, R[t][k] with t, k from 1."""
    if isinstance(job, Path):
        file = job
    else:
        file = folder / "job.yaml"
        file.write_text(json.dumps(job), encoding="utf-8")
    out = folder / "run"
    command = [sys.executable, "-m", "engram", "run", str(file), "--quiet", f"--transport={transport}"]
    done = subprocess.run(
        [*command, f"--out={out}"], capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    matrix = load_matrix(out / "matrix.json")
    return [
        [task_accuracy(matrix, after, task) for task in range(1, after + 1)]
        for after in range(1, matrix.tasks + 1)
    ]


def numbers_of(report: Any) -> Any:
    """Return what of report.json, or of a part of it, must be the same wherever a job runs."""
    if isinstance(report, dict):
        return {
            key: numbers_of(value)
            for key, value in report.items()
            if key not in OF_THE_PLACE and "seconds" not in key and "bytes" not in key
        }
    return [numbers_of(item) for item in report] if isinstance(report, list) else report
