"""examples/own_algorithm.py: one class in one file, by dotted path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from engram.errors import ConfigurationError

if TYPE_CHECKING:
    from tests.learning.conftest import MakeJob, MakeWorld

NAME = "own_algorithm:RehearsalWithMixup"


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.syspath_prepend(request.config.rootpath / "examples")


def test_without_blending_it_is_replay(make_job: MakeJob, make_world: MakeWorld) -> None:
    plain = {"exemplarsPerWorker": 10, "weightAlignment": False}
    expected, _ = make_world(make_job("replay", plain)).run()
    weights, _ = make_world(make_job(NAME, {"exemplarsPerWorker": 10, "blend": 0})).run()
    for name in expected:
        assert np.allclose(weights[name], expected[name], atol=1e-4)


def test_it_remembers(make_job: MakeJob, make_world: MakeWorld) -> None:
    job = make_job(NAME, {"blend": 0.3}, training={"localSteps": 15, "roundsPerTask": 3})
    _, counts = make_world(job).run()
    assert sum(counts[-1].right.values()) / sum(counts[-1].total.values()) >= 0.8


def test_a_path_that_leads_nowhere_is_told(make_job: MakeJob, make_world: MakeWorld) -> None:
    with pytest.raises(ConfigurationError, match=r"spec\.algorithm\.name.*own_algorithm has no Rehearsel"):
        make_world(make_job("own_algorithm:Rehearsel"))
