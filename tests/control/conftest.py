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
