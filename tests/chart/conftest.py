"""Fixtures of the chart's tests: Helm, and the control plane where a release is installed for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.fixtures import (
    api,
    control_plane,
    crd,
    fake_kubelet,
    fake_node,
    kubectl,
    namespace,
    pytest_collection_finish,
    unavailable,
)
from tests.cluster.helm import Helm

__all__ = [
    "api",
    "control_plane",
    "crd",
    "fake_kubelet",
    "fake_node",
    "kubectl",
    "namespace",
    "pytest_collection_finish",
]

CHART = Path(__file__).parents[2] / "charts" / "engram"


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm and the chart, without a cluster: it makes manifests."""
    try:
        binaries.find("helm")
    except binaries.Unavailable as reason:
        unavailable(str(reason))
    return Helm(CHART, namespace="engram-system")
