"""The same job on this machine: what a run on the cluster must give bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from engram.metrics.format import load_matrix
from engram.metrics.measures import task_accuracy
from tests.cluster.api import Object
from tests.e2e.jobs import Matrix

RUN_SECONDS = 240


def run_here(job: Path | Object, folder: Path) -> Matrix:
    """Return the accuracy matrix of `engram run` of a job file or object, R[t][k] with t, k from 1."""
    if isinstance(job, Path):
        file = job
    else:
        file = folder / "job.yaml"
        file.write_text(json.dumps(job), encoding="utf-8")
    out = folder / "run"
    command = [sys.executable, "-m", "engram", "run", str(file), "--quiet", "--transport=in-process"]
    done = subprocess.run(
        [*command, f"--out={out}"], capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    matrix = load_matrix(out / "matrix.json")
    return [
        [task_accuracy(matrix, after, task) for task in range(1, after + 1)]
        for after in range(1, matrix.tasks + 1)
    ]
