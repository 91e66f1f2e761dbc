"""Published settings as job files: what they name is what they run, on images of CIFAR-100's shape."""

from __future__ import annotations

import itertools
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.run.grid import expand
from engram.run.source import load_mapping
from engram.spec.loader import load_job

ROOT = Path(__file__).parents[2]
JOBS = {
    "glfc": ("glfc", {}),
    "target": (
        "target",
        {"syntheticImages": 4, "syntheticBatch": 2, "generatorBatch": 4, "studentSteps": 1},
    ),
    "fedcbdr": ("replay", {}),
}
"""File -> its algorithm, and parameters that make it small."""


def file_of(paper: str) -> Path:
    return ROOT / f"benchmarks/jobs/cifar100-{paper}.yaml"


def commands(path: Path) -> list[list[str]]:
    """Return the commands of a file's head, continued lines joined."""
    lines = [line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines()]
    text = "\n".join(lines).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith("engram ")]


def test_all_of_them_are_here() -> None:
    assert {path.stem for path in (ROOT / "benchmarks/jobs").glob("*.yaml")} == {
        f"cifar100-{paper}" for paper in JOBS
    }


@pytest.mark.parametrize("paper", JOBS)
def test_a_published_setting_is_a_valid_job_of_its_algorithm_that_says_where_it_differs(paper: str) -> None:
    path = file_of(paper)
    job = load_job(path)
    assert job.spec.algorithm.name == JOBS[paper][0]
    assert job.spec.dataset.name == "cifar100"
    assert job.spec.tasks.count * job.spec.tasks.classes_per_task == 100
    text = path.read_text(encoding="utf-8")
    assert "What is otherwise here:" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("paper", JOBS)
def test_the_commands_of_its_head_are_valid_grids_of_it(paper: str) -> None:
    path = file_of(paper)
    found = commands(path)
    assert len(found) >= 2
    for command in found:
        assert f"benchmarks/jobs/{path.name}" in command
        given: dict[str, list[str]] = {"--set": [], "--vary": []}
        for option, value in itertools.pairwise(command):
            given.get(option, []).append(value)
        if command[1] == "run":
            grid = expand(load_mapping(path), given["--set"], given["--vary"], str(path))
            assert len(grid.cells) > 1


@pytest.mark.process
@pytest.mark.parametrize("paper", JOBS)
def test_it_runs_where_the_data_are(paper: str, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for part, count in (("train", 1200), ("test", 100)):
        (folder / part).write_bytes(pickle.dumps(images(count), protocol=2))
    names = {b"fine_label_names": [str(label).encode() for label in range(100)]}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    path = file_of(paper)
    small: dict[str, Any] = {
        "dataset.path": str(tmp_path),
        "tasks.count": 2,
        "training.roundsPerTask": 1,
        "training.localSteps": 1,
        "training.batchSize": 4,
        "model.parameters.width": 4,
        **{f"algorithm.parameters.{name}": value for name, value in JOBS[paper][1].items()},
    }
    sets = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    options = ["--transport", "in-process", "--out", str(tmp_path / "out"), *sets]
    command = [sys.executable, "-m", "engram", "run", str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is complete: accuracy" in done.stdout


def images(count: int) -> dict[bytes, Any]:
    """Return a part of the archive: noise, each class equally often."""
    data = np.random.RandomState(count).randint(0, 256, (count, 3072)).astype(np.uint8)
    return {b"data": data, b"fine_labels": [number % 100 for number in range(count)]}
