"""A user's training script as KubeEdge's library wants it; run by the interpreter that has the library.

    SEDNA_PYTHON library_worker.py NAME PORT SAMPLES SECONDS

It prints the weights of every round as a line of JSON, the last line first `done`.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

name, port, samples, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
os.environ.update(
    AGG_IP="127.0.0.1",
    AGG_PORT=port,
    BACKEND_TYPE="UNKNOWN",
    JOB_NAME="job",
    LC_SERVER=f"http://127.0.0.1:{port}",
    MODEL_URL=os.path.join(os.getcwd(), name),
    WORKER_NAME=name,
)
asyncio.set_event_loop(asyncio.new_event_loop())

from sedna.core.federated_learning import FederatedLearning  # noqa: E402


class Estimator:
    """Adds a hundredth of its number of samples to every weight."""

    def __init__(self) -> None:
        self.weights: Any = [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], [0.0, 0.0]]

    def train(self, train_data: list[int], valid_data: object = None, **options: object) -> Any:
        time.sleep(seconds)
        step = len(train_data) / 100
        self.weights = [
            [[x + step for x in row] for row in self.weights[0]],
            [x + step for x in self.weights[1]],
        ]
        return {"loss": [1.0, 0.25]}

    def get_weights(self) -> Any:
        return self.weights

    def set_weights(self, weights: Any) -> None:
        print(json.dumps(weights), flush=True)
        self.weights = weights

    def save(self, model_url: str = "") -> str:
        return "model.npz"

    def model_info(self, model: str, relpath: object = None, result: object = None) -> Any:
        return [{"format": "npz", "url": model, "metrics": result}]


job = FederatedLearning(estimator=Estimator(), aggregation="FedAvg")
# The library wraps an estimator of no framework in a backend without get_weights.
job.estimator = job.estimator.estimator
if callable(job.estimator):
    job.estimator = job.estimator()
started = time.monotonic()
job.train(train_data=list(range(samples)))
print(f"done {time.monotonic() - started:.2f}", flush=True)
