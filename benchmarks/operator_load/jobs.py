"""What is applied, and how its pods end. Pure."""

from __future__ import annotations

from pathlib import Path

from engram.spec.loader import parse_job
from engram.spec.names import API_VERSION, KIND, Label, Role
from engram.spec.summary import FinalSummary
from engram.spec.yaml_text import load_yaml
from tests.cluster.api import Object
from tests.cluster.fake_kubelet import Ending

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-digits.yaml"
PODS_OF_A_SMALL_JOB = 3


def digits_job(namespace: str, number: int) -> Object:
    """Return the example, as it is but for its name and namespace."""
    raw: Object = load_yaml(EXAMPLE.read_text(encoding="utf-8"), EXAMPLE.name)
    return {**raw, "metadata": {"name": f"digits-{number:04d}", "namespace": namespace}}


def small_job(namespace: str, number: int) -> Object:
    """Return a job of one group with two workers, everything else by default."""
    job: Object = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"load-{number:04d}", "namespace": namespace},
        "spec": {"dataset": {"name": "digits"}, "workers": [{"name": "edge", "replicas": 2}]},
    }
    parse_job(job)  # a job that is refused would cost nothing
    return job


def owner_of(child: str) -> str:
    """Return the job that a child's or Event's name belongs to: names here end with four digits."""
    words = child.replace(".", "-").split("-")
    return "-".join(words[:2])


def ending(pod: Object) -> Ending:
    """Return how a pod ends when the run has succeeded: the aggregator leaves the result."""
    if pod["metadata"]["labels"].get(Label.ROLE) == Role.AGGREGATOR:
        return Ending(0, _summary().encode())
    return Ending(0, "the run is over")


def _summary() -> FinalSummary:
    """Return a result with everything that a run of five tasks leaves."""
    figures = ("accuracy", "averageIncrementalAccuracy", "forgetRate", "backwardTransfer", "forwardTransfer")
    tasks = [
        {
            "index": task,
            "classes": [2 * task - 2, 2 * task - 1],
            "accuracy": "0.9312",
            "accuracyNow": "0.9127",
            "forgetRate": "0.0421",
            "seconds": "12.5",
            "bytes": 7_261_600,
        }
        for task in range(1, 6)
    ]
    return FinalSummary(
        outcome="complete",
        metrics=dict.fromkeys(figures, "0.9312"),
        tasks=tasks,
        display={
            "task": "5/5",
            "round": "25/25",
            "workers": "2/2",
            "accuracy": "93.1%",
            "forgetting": "4.2%",
        },
        progress={"task": 5, "tasks": 5, "round": 25, "rounds": 25, "percent": 100},
        rounds=25,
        workers={"desired": 2, "connected": 2, "disconnected": 0, "failed": 0},
        matrix=[[0.93] * 5] * 5,
    )
