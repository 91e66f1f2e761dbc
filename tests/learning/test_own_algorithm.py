"""examples/own_algorithm.py: one class in one file, by dotted path."""

from __future__ import annotations

from pathlib import Path
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


BROKEN = """
from engram.learning.algorithm import Algorithm

class NoArguments(Algorithm):
    def __init__(self):
        pass

class Loss(Algorithm):
    def loss(self, context, batch):
        return undefined_in_loss

class Choice(Algorithm):
    def labelled(self, share, task):
        return undefined_in_choice

class End(Algorithm):
    def close_task(self, scope, weights, results):
        return undefined_at_end
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoArguments", r"NoArguments failed: TypeError: .*positional argument"),
        ("Loss", r"Loss failed: NameError: .*\n.*broken_own\.py:10 in loss: return undefined_in_loss"),
        ("Choice", r"Choice failed: NameError: .*\n.*in labelled: return undefined_in_choice"),
        ("End", r"End failed: NameError: .*\n.*in close_task: return undefined_at_end"),
    ],
)
def test_an_error_in_a_hook_is_told_with_the_users_line(
    make_job: MakeJob, make_world: MakeWorld, module_folder: Path, name: str, message: str
) -> None:
    (module_folder / "broken_own.py").write_text(BROKEN)
    with pytest.raises(ConfigurationError, match=message):
        make_world(make_job(f"broken_own:{name}")).run()
