"""Fixtures of the tests on a real control plane; the operator's pure tests beside them need none."""

from __future__ import annotations

from tests.cluster.fixtures import (
    api,
    control_plane,
    crd,
    fake_kubelet,
    fake_node,
    kubectl,
    namespace,
    pytest_collection_finish,
)
from tests.control.explaining import cloud, user, world

__all__ = [
    "api",
    "cloud",
    "control_plane",
    "crd",
    "fake_kubelet",
    "fake_node",
    "kubectl",
    "namespace",
    "pytest_collection_finish",
    "user",
    "world",
]
