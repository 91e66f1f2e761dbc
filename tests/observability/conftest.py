"""Fixtures of the tests that look through a real Prometheus."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.conftest import CHART, helm
from tests.cluster.fixtures import control_plane, crd, pytest_collection_finish

__all__ = ["CHART", "control_plane", "crd", "helm", "pytest_collection_finish"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the lab of a module keeps its files."""
    return tmp_path_factory.mktemp("lab")
