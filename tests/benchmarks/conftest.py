"""The real control plane, for benchmarks that measure on one."""

from __future__ import annotations

from tests.cluster.fixtures import control_plane, pytest_collection_finish

__all__ = ["control_plane", "pytest_collection_finish"]
