"""`protocol: sedna` in real containers: workers that are not ours, and ours, on the edge's nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engram import __version__
from engram.spec.names import Condition, Role
from tests.e2e.jobs import Jobs, build_job, node_of
from tests.e2e.reference import run_here

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

STRANGER = Path(__file__).with_name("stranger.py").read_text(encoding="utf-8")
IMAGE = f"engram-runtime:{__version__}"
"""It has Python and the library for WebSockets, which is all that the strangers take from it."""


def test_workers_that_know_only_sedna_train_on_the_edge(jobs: Jobs) -> None:
    command = {"name": "main", "command": ["python3", "-c", STRANGER], "args": []}
    job = build_job(
        "strangers",
        {
            "protocol": "sedna",
            "dataset": {"name": "none"},
            "model": {"name": "none"},
            "tasks": {"count": 1},
            "training": {"roundsPerTask": 3},
            "workers": [
                {
                    "name": "edge",
                    "replicas": 2,
                    "placement": "edge",
                    "image": IMAGE,
                    "podTemplate": {"spec": {"containers": [command]}},
                }
            ],
            "aggregator": {"expose": {"type": "NodePort"}},
        },
    )

    jobs.apply(job)
    jobs.kubectl.wait("fij/strangers", f"condition={Condition.COMPLETE}", seconds=240)

    # One that came before the aggregator served has failed, as the library does, and was replaced.
    workers = [pod for pod in jobs.pods("strangers", Role.WORKER) if pod["status"]["phase"] == "Succeeded"]
    assert sorted(map(node_of, workers)) == ["edge1", "edge2"]
    mean = 1.5  # of the steps 1 and 2
    for pod in workers:
        said = jobs.kubectl.run("logs", pod["metadata"]["name"]).splitlines()
        assert said.count("local controller 200") == 3, said
        rounds = [json.loads(line.split(" ", 2)[2]) for line in said if line.startswith("round ")]
        assert rounds == [[[[mean * n] * 2] * 2, [mean * n]] for n in (1, 2, 3)]
    status = jobs.status("strangers")
    assert (status["display"]["round"], status["display"]["workers"]) == ("3/3", "2/2")


def test_our_workers_speak_it_and_give_the_same_matrix(jobs: Jobs, tmp_path: Path) -> None:
    job = build_job(
        "dialect",
        {
            "protocol": "sedna",
            "dataset": {"name": "digits", "partition": {"method": "iid"}},
            "tasks": {"count": 1, "classesPerTask": 4},
            "model": {"name": "cnn"},
            "training": {"roundsPerTask": 3, "localSteps": 20, "batchSize": 16},
            "algorithm": {"name": "finetune"},
            "workers": [{"name": "edge", "replicas": 2}],
        },
    )

    jobs.apply(job)
    jobs.kubectl.wait("fij/dialect", f"condition={Condition.COMPLETE}", seconds=240)

    assert jobs.matrix("dialect") == run_here(job, tmp_path)
