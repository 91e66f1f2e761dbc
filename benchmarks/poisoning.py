"""One worker of five lies: what becomes of the accuracy under each aggregation rule.

    python benchmarks/poisoning.py [--json FILE]

Five workers learn the ten digits together, in this process. The liar sends updates that were turned round
(`sign flipped`), blown up (`scaled`), or trained on wrong labels (`labels flipped`). A run takes about a
second; the table is that of docs/security.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engram.data.types import DataSet, ImageSource, Indices
from engram.federation.aggregator import Aggregator
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Consolidate, Consolidated, Evaluate, Train, Update
from engram.federation.roles import LocalLearner, Progress
from engram.learning import build_local
from engram.run.composition import Composition, Place, compose
from engram.run.observers import Silent
from engram.spec import parse_job

Attack = Literal["none", "sign flipped", "scaled", "labels flipped"]
STRENGTH = 10.0
"""How much longer than the trained change of the model the liar's is."""
CLASSES = 10
RULES: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "fedavg, clipNorm 1": {"name": "fedavg", "clipNorm": 1.0},
    "median": {"name": "median"},
    "trimmed-mean, trim 0.2": {"name": "trimmed-mean", "parameters": {"trim": 0.2}},
    "krum": {"name": "krum", "parameters": {"byzantine": 1}},
}


class Liar:
    """A worker that trains as it should and then sends something else."""

    def __init__(self, honest: LocalLearner, attack: Attack) -> None:
        self._honest, self._attack = honest, attack
        self.samples, self.split_digest, self.device = honest.samples, honest.split_digest, honest.device

    def restore(self, state: bytes) -> None:
        """Do it honestly."""
        self._honest.restore(state)

    def train(self, order: Train, progress: Progress) -> Update:
        """Train, then blow the change of the model up, or turn it round as well."""
        update = self._honest.train(order, progress)
        factor = {"sign flipped": -STRENGTH, "scaled": STRENGTH}.get(self._attack, 1.0)
        weights = {
            name: (before + factor * (update.weights[name] - before)).astype(before.dtype)
            for name, before in order.weights.items()
        }
        return replace(update, weights=weights)

    def consolidate(self, order: Consolidate) -> Consolidated:
        """Do it honestly."""
        return self._honest.consolidate(order)

    def evaluate(self, order: Evaluate) -> Any:
        """Do it honestly."""
        return self._honest.evaluate(order)


class Mislabelled:
    """The images of a source, label l as 9 - l."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.labels, self.shape = CLASSES - 1 - source.labels, source.shape

    def read(self, indices: Indices) -> NDArray[np.float32]:
        """Return the true images."""
        return self._source.read(indices)


def accuracy(aggregation: Mapping[str, Any], attack: Attack, rounds: int = 12, seed: int = 0) -> float:
    """Return the share of right predictions after a run in which the last of five workers lies."""
    composition = compose(parse_job(document(aggregation, rounds, seed)), Place(Path()))
    workers = composition.job.workers()
    learners: dict[str, LocalLearner] = {
        worker.name: composition.local_learner(worker) for worker in workers[:-1]
    }
    learners[workers[-1].name] = liar(composition, attack)
    aggregator = Aggregator(composition.settings(), composition.global_learner(), None, Silent())
    outcome = run_in_process(aggregator, learners, lambda: False)
    assert outcome.reason == "complete", outcome.message
    counts = outcome.history.tasks[-1].counts
    return sum(counts.right.values()) / sum(counts.total.values())


def liar(composition: Composition, attack: Attack) -> LocalLearner:
    """Return the last worker, which lies."""
    worker = composition.job.workers()[-1]
    dataset, split, share = composition.worker_data(worker)
    if attack == "labels flipped":
        dataset = mislabelled(dataset)
    return Liar(build_local(composition.job, worker, dataset, share, split), attack)


def mislabelled(dataset: DataSet) -> DataSet:
    """Return the data set as the liar would have it."""
    return replace(dataset, train=Mislabelled(dataset.train))


def document(aggregation: Mapping[str, Any], rounds: int, seed: int) -> dict[str, Any]:
    """Return the job as plain data."""
    return {
        "apiVersion": "engram.dev/v1alpha1",
        "kind": "FederatedIncrementalJob",
        "metadata": {"name": "poisoned"},
        "spec": {
            "seed": seed,
            "dataset": {"name": "digits", "partition": {"method": "iid"}},
            "tasks": {"count": 1, "classesPerTask": CLASSES},
            "model": {"name": "cnn", "parameters": {"channels": [8], "dense": 32}},
            "training": {"roundsPerTask": rounds, "localSteps": 20, "batchSize": 16, "gradientClip": 5},
            "algorithm": {"name": "finetune"},
            "aggregation": dict(aggregation),
            "workers": [{"name": "edge", "replicas": 5}],
        },
    }


def line(row: Mapping[str, Any]) -> str:
    """Return a row of the table in docs/security.md."""
    cells = [f"{100 * row[attack]:.1f} %" for attack in get_args(Attack)]
    return f"| {row['rule']} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    print(f"| rule | {' | '.join(get_args(Attack))} |\n|{'---|' * (1 + len(get_args(Attack)))}")
    rows = []
    for rule, aggregation in RULES.items():
        rows.append({"rule": rule, **{attack: accuracy(aggregation, attack) for attack in get_args(Attack)}})
        print(line(rows[-1]), flush=True)
    if options.json is not None:
        command = "python benchmarks/poisoning.py --json docs/benchmark/poisoning.json"
        text = json.dumps({"command": command, "rows": rows}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
