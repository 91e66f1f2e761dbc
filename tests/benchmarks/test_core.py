"""The round machine decides for thousands of workers; its work grows with them, not with their square."""

from __future__ import annotations

import time

import pytest

from benchmarks.federation_load.core import SCENES, Scene, simulated

WORKERS, ROUNDS = 2000, 3
MOST_CPU_SECONDS = 1.0
"""Many times what it takes; sorting all workers at each join, say, takes longer."""


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_two_thousand_workers_are_decided_for_at_once(scene: Scene) -> None:
    start = time.process_time()
    seconds = simulated(WORKERS, ROUNDS, scene)
    assert time.process_time() - start < MOST_CPU_SECONDS
    assert len(seconds.rounds) == ROUNDS + 1
