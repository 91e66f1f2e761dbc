"""Fixtures of the plug-in's tests: a fake API server for its edges, a real control plane for the rest."""

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
