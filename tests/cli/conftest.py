"""Shared by the tests of the command line: a job, and a runner that looks like a shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from engram.cli import app


@pytest.fixture
def document() -> dict[str, Any]:
    """A small valid job file as plain data."""
    return {
        "apiVersion": "engram.dev/v1alpha1",
        "kind": "FederatedIncrementalJob",
        "metadata": {"name": "small"},
        "spec": {
            "tasks": {"count": 2, "classesPerTask": 2},
            "model": {"name": "cnn", "parameters": {"channels": [4], "dense": 8}},
            "training": {"roundsPerTask": 1, "localSteps": 2, "batchSize": 8},
            "algorithm": {"name": "replay", "parameters": {"exemplarsPerWorker": 4}},
            "workers": [{"name": "edge", "replicas": 2}],
        },
    }


@pytest.fixture
def job_file(tmp_path: Path, document: dict[str, Any]) -> Path:
    """The same as a file, in the current directory."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture
def engram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `engram ...` within this process, in the test's folder; returns exit_code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def run(*arguments: str | Path) -> Any:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr("sys.argv", ["engram", *words])
        return runner.invoke(app, words)

    return run
