"""For all tests: how they run side by side, and that no verdict depends on how busy the machine is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

LONG = ("process", "control", "browser")
"""Marks of tests that take seconds each, those that take the processor first."""

# Several tests run at a time, and the threads of PyTorch would spin while they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("engram", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("engram")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with long tests first: where files are shared out, short ones are left for the end."""
    places: dict[Path, int] = {}
    for item in items:
        found = [place for place, mark in enumerate(LONG) if item.get_closest_marker(mark)]
        places[item.path] = min(*found, len(LONG), places.get(item.path, len(LONG)))
    items.sort(key=lambda item: places[item.path])
