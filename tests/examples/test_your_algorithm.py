"""docs/your-algorithm.md: the page's class trains, on exactly the text that a reader copies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from engram.federation.messages import Train
from engram.run.composition import Place, compose
from engram.spec import parse_job

PAGE = Path(__file__).parents[2] / "docs/your-algorithm.md"


@pytest.fixture
def blocks() -> dict[str, str]:
    """The page's blocks of code by language."""
    found = re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert [language for language, _ in found] == ["python", "yaml"]
    return dict(found)


def test_the_page_s_algorithm_trains(
    blocks: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mean_teacher.py").write_text(blocks["python"])
    monkeypatch.syspath_prepend(tmp_path)
    training = {"roundsPerTask": 1, "localSteps": 3, "batchSize": 8}
    job = parse_job(
        {
            "apiVersion": "engram.dev/v1alpha1",
            "kind": "FederatedIncrementalJob",
            "metadata": {"name": "page"},
            "spec": {
                **yaml.safe_load(blocks["yaml"]),
                "dataset": {"name": "digits", "labelRatio": 0.2},
                "model": {"name": "cnn", "parameters": {"channels": [4], "dense": 8}},
                "training": training,
                "workers": [{"replicas": 1}],
            },
        }
    )
    composition = compose(job, Place(tmp_path))
    central, worker = composition.global_learner(), composition.local_learner(job.workers()[0])
    weights = central.begin_task(1, None)
    update = worker.train(Train(1, 1, weights, central.seen(1)), lambda done, loss: None)
    assert update.metrics["unlabelled"] == len(composition.split.shares[0].tasks[0].unlabelled) > 0
    assert any((update.weights[name] != weights[name]).any() for name in weights)
