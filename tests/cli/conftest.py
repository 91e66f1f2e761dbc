"""Shared by the tests of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


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
            "training": {"roundsPerTask": 2, "localSteps": 2, "batchSize": 8},
            "algorithm": {"name": "replay", "parameters": {"exemplarsPerWorker": 4}},
            "workers": [{"name": "edge", "replicas": 2}],
        },
    }


@pytest.fixture
def job_file(tmp_path: Path, document: dict[str, Any]) -> Path:
    """The same as a file."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
