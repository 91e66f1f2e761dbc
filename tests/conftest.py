"""For all tests: how they run side by side, and that no verdict depends on how busy the machine is."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

LONG = ("control", "process", "browser")
"""Marks of tests that take seconds each."""

# Several tests run at a time, and the threads of PyTorch would spin while they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("engram", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("engram")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with long tests first: where files are shared out, short ones are left for the end."""
    long = {item.path for item in items if any(item.get_closest_marker(mark) for mark in LONG)}
    items.sort(key=lambda item: item.path not in long)
